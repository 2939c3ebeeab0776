"""The fault proxy before servers of these tests, and before the stack's Redis."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from dualstream_lab.errors import StackError
from dualstream_lab.faults.proxy.proxy import Proxy
from dualstream_lab.faults.proxy.toxics import (
    Bandwidth,
    BlackHole,
    Delay,
    Refuse,
    Reset,
    Road,
    Toxic,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dualstream_lab.stack import LocalStack

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def server(serve: Callable[..., object] = echoes) -> AsyncIterator[Proxy]:
    """A proxy before a server of its own."""
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)  # type: ignore[arg-type]
    with Proxy(listening.sockets[0].getsockname()) as proxy:
        yield proxy
        await until(lambda: not connections(proxy))
    listening.close()
    await listening.wait_closed()


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(*proxy.address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def connections(proxy: Proxy) -> int:
    """Open ones, of clients and to servers."""
    return sum(len(relay.ends) for relay in tuple(proxy._relays.values()))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ask(streams: Streams, word: bytes = b"word") -> bytes:
    streams[1].write(word)
    async with asyncio.timeout(30):
        return await streams[0].readexactly(len(word))


async def is_mute(streams: Streams) -> bool:
    streams[1].write(b"anyone?")
    try:
        async with asyncio.timeout(0.2):
            return await streams[0].read(1) == b"never"
    except TimeoutError:
        return True


TOXICS: list[Toxic | None] = [
    None,
    Delay(delay_ms=3),
    Delay(delay_ms=3, jitter_ms=3),
    Bandwidth(rate_kib=2000),
]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=12),
    toxics=st.lists(st.sampled_from(TOXICS), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
async def test_bytes_come_unharmed_and_in_order(chunks: list[bytes], toxics: list[Toxic | None]) -> None:
    # whatever the chunks, and also when the toxic changes in their midst
    async with server() as proxy, client(proxy) as (reader, writer):
        for number, chunk in enumerate(chunks):
            proxy.set(toxics[number % len(toxics)])
            writer.write(chunk)
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(30):
            assert await reader.read() == b"".join(chunks)


async def test_much_comes_unharmed_through_every_toxic() -> None:
    data = Random(1).randbytes(600_000)
    for toxic in TOXICS:
        async with server() as proxy, client(proxy) as (reader, writer):
            proxy.set(toxic)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(60):
                assert await reader.read() == data


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(1, 100)), max_size=50), st.integers(0, 99))
def test_a_jittered_road_keeps_the_order_and_its_bounds(gaps: list[tuple[float, int]], seed: int) -> None:
    road, now, last = Road(seed), 0.0, 0.0
    road.become(Delay(delay_ms=20, jitter_ms=10))
    for gap, size in gaps:
        now += gap
        arrival = road.arrival(now, size, last)
        assert max(last, now + 0.01) <= arrival <= max(last, now + 0.0301)
        last = arrival


async def test_delay_is_each_way_and_ends() -> None:
    async with server() as proxy, client(proxy) as streams:
        proxy.set(Delay(delay_ms=60))
        begin = time.monotonic()
        await ask(streams)
        assert 0.12 <= time.monotonic() - begin < 10
        proxy.set(Delay(delay_ms=10_000))
        streams[1].write(b"on the way")
        await asyncio.sleep(0.05)
        proxy.clear()
        begin = time.monotonic()
        assert await streams[0].readexactly(10) == b"on the way"
        await ask(streams)
        assert time.monotonic() - begin < 9


async def test_bandwidth_is_shared_by_the_connections() -> None:
    async with server() as proxy, client(proxy) as one, client(proxy) as two:
        proxy.set(Bandwidth(rate_kib=200))
        begin = time.monotonic()
        await asyncio.gather(ask(one, b"x" * 30_720), ask(two, b"x" * 30_720))
        assert 0.29 <= time.monotonic() - begin < 10  # 60 KiB there; and back at the same time


async def test_a_black_hole_is_silent_and_resets_who_lost_bytes_when_it_ends() -> None:
    async with server() as proxy, client(proxy) as loser, client(proxy) as idle:
        await ask(loser)
        await ask(idle)
        proxy.set(BlackHole())
        assert await is_mute(loser)
        async with client(proxy) as newcomer:
            assert await is_mute(newcomer)
            proxy.clear()
            for reader, _ in (loser, newcomer):
                with pytest.raises(ConnectionResetError):
                    await reader.read(1)
        assert await ask(idle) == b"word"


async def test_who_closes_in_a_black_hole_is_not_heard_before_its_end() -> None:
    closed = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await echoes(reader, writer)
        closed.set()

    async with server(watch) as proxy:
        async with client(proxy) as streams:
            await ask(streams)
            proxy.set(BlackHole())
        await asyncio.sleep(0.1)
        assert not closed.is_set()
        proxy.clear()
        async with asyncio.timeout(30):
            await closed.wait()


async def test_reset_ends_every_connection_and_each_new_one() -> None:
    async with server() as proxy, client(proxy) as old:
        await ask(old)
        proxy.set(Reset())
        with pytest.raises(ConnectionResetError):
            await old[0].read(1)
        with pytest.raises(ConnectionResetError):  # already in connect, or then
            async with client(proxy) as new:
                await new[0].read(1)
        proxy.clear()
        async with client(proxy) as streams:
            assert await ask(streams) == b"word"


async def test_refuse_closes_the_port_and_the_same_one_opens_again() -> None:
    async with server() as proxy, client(proxy) as old:
        await ask(old)
        for _ in range(3):
            proxy.set(Refuse())
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*proxy.address)
        with pytest.raises(ConnectionResetError):
            await old[0].read(1)
        proxy.clear()
        async with client(proxy) as streams:
            assert await ask(streams) == b"word"


@pytest.mark.parametrize("toxic", [None, Delay(delay_ms=200), Bandwidth(rate_kib=100)])
async def test_no_more_is_read_than_can_be_passed_on(toxic: Toxic | None) -> None:
    stop = asyncio.Event()

    async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.transport.abort()

    async with server(never_reads) as proxy, client(proxy) as (_, writer):
        proxy.set(toxic)
        writer.transport.set_write_buffer_limits(0)
        sent, piece = 0, bytes(2**20)
        with suppress(TimeoutError):
            for _ in range(200):
                writer.write(piece)
                async with asyncio.timeout(0.5):
                    await writer.drain()
                sent += len(piece)
        stop.set()
        writer.transport.abort()
    # The system's own buffers of four sockets have the most of it.
    assert sent <= 40 * 2**20


async def test_one_end_is_told_how_the_other_ended() -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ended.put_nowait("closed" if await reader.read() == b"bye" else "odd")
        except ConnectionResetError:
            ended.put_nowait("reset")
        writer.close()

    async with server(serve) as proxy:
        async with client(proxy) as (_, writer):
            writer.write(b"bye")
        assert await ended.get() == "closed"
        async with client(proxy) as (_, writer):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        assert await ended.get() == "reset"


async def test_an_unreachable_server_is_seen_as_a_reset() -> None:
    gone = await asyncio.start_server(echoes, "127.0.0.1", 0)
    address = gone.sockets[0].getsockname()
    gone.close()
    with Proxy(address) as proxy, pytest.raises(ConnectionResetError):
        async with client(proxy) as (reader, _):
            await reader.read(1)


async def test_a_thousand_connections_leave_nothing() -> None:
    process, threads = psutil.Process(), threading.active_count()
    async with server() as proxy:
        before = process.num_fds()
        for number in range(20):
            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(_visit(proxy, polite=number % 2 == 0))
        await until(lambda: process.num_fds() <= before)
        assert not connections(proxy)
        assert not any(relay._dials for relay in proxy._relays.values())
    assert threading.active_count() == threads


async def _visit(proxy: Proxy, *, polite: bool) -> None:
    reader, writer = await asyncio.open_connection(*proxy.address)
    await ask((reader, writer))
    if polite:
        writer.close()
        await writer.wait_closed()
    else:
        writer.transport.abort()


async def test_stop_leaves_no_thread_and_no_port_also_in_a_black_hole() -> None:
    threads, fds = threading.active_count(), psutil.Process().num_fds()
    async with server() as proxy:
        async with client(proxy) as streams:
            await ask(streams)
            proxy.set(BlackHole())
            assert await is_mute(streams)
            address = proxy.address
            proxy.stop()
            with pytest.raises(ConnectionResetError):
                await streams[0].read(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        with pytest.raises(StackError, match="not started"):
            proxy.clear()
        proxy.start()
    await until(lambda: psutil.Process().num_fds() <= fds)
    assert threading.active_count() == threads


async def test_stop_does_not_wait_for_a_client_that_does_not_read() -> None:
    async def says_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(bytes(50 * 2**20))
        await asyncio.wait([asyncio.ensure_future(writer.drain())], timeout=0.3)
        writer.transport.abort()

    async with server(says_much) as proxy, client(proxy) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write_eof()
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(proxy.stop)
        assert time.monotonic() - began < 10
        proxy.start()


async def test_a_port_that_is_taken_is_told() -> None:
    async with server() as proxy:
        proxy.set(Refuse())
        with socket.create_server(proxy.address), pytest.raises(StackError, match="cannot listen"):
            proxy.clear()
        proxy.clear()


async def test_redis_py_publishes_and_hears_through_the_proxy(stack: LocalStack) -> None:
    port = stack.redis_url.rpartition(":")[2]
    with Proxy(("127.0.0.1", int(port))) as proxy:
        redis = Redis(host=proxy.address[0], port=proxy.address[1])
        async with redis, redis.pubsub() as ear:
            await ear.subscribe("through")
            await ear.get_message(timeout=20)
            proxy.set(Delay(delay_ms=20))
            assert await redis.publish("through", b"here" * 50_000) == 1
            heard = await ear.get_message(timeout=20)
            assert heard is not None
            assert heard["data"] == b"here" * 50_000
