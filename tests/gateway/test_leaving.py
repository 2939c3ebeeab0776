"""Whoever leaves, at whatever moment, leaves nothing behind: no source, no channel, no task."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from redis.asyncio import Redis

from benchmarks.attacks import drop_at_random
from dualstream_lab.stack import LocalStack
from tests.gateway.published import new_source
from tests.gateway.serving import serve_settings, served, until, until_so

_AT_ONCE = 50
_KEPT = 1000  # objects that may be more: caches of libraries, a log line. One a client would be 4000


@pytest.mark.parametrize(("clients", "slow"), [(4000, False), (1000, True)], ids=["", "Redis confirms late"])
async def test_clients_that_come_and_drop_leave_nothing(
    stack: LocalStack,
    topic: str,
    tmp_path: Any,
    clients: int,
    slow: bool,
    caplog: pytest.LogCaptureFixture,
):
    """F5; ten thousand do it in `make soak ARGS=--abuse`."""
    prefix = f"left-{uuid4().hex[:8]}:"
    settings = serve_settings(stack, topic, tmp_path, channel_prefix=prefix, linger=0.1)
    async with served(settings, "gateway") as url, aiohttp.ClientSession() as session:

        async def sources() -> float:
            async with session.get(f"{url}/metrics") as answer:
                text = await answer.text()
            return sum(
                float(line.split()[1])
                for line in text.splitlines()
                if line.startswith(("dualstream_sources ", "dualstream_clients "))
            )

        async def drop(first: int) -> None:
            chance = random.Random(first)
            await asyncio.gather(
                *(
                    drop_at_random(address, number, chance.sample(names, 3))
                    for number in range(first, first + _AT_ONCE)
                )
            )

        await until_so(sources, 0)
        await asyncio.sleep(1.5)
        before = len(asyncio.all_tasks())
        host, _, port = settings.listen.rpartition(":")
        address = host, int(port)
        names = [new_source() for _ in range(50)]
        await drop(clients)  # whatever is made once
        await until_so(sources, 0)
        objects = _objects()
        if slow:
            stack.redis.pause()
        for first in range(0, clients, _AT_ONCE):
            await drop(first)
        if slow:
            stack.redis.resume()
        await until_so(sources, 0)
        async with Redis.from_url(stack.redis_url) as redis:

            async def channels() -> list[bytes]:
                return await redis.pubsub_channels(f"{prefix}*")

            await until_so(channels, [f"{prefix}events:_resync".encode()])
        await until(lambda: len(asyncio.all_tasks()) <= before, timeout=30)
        await until(lambda: _objects() < objects + _KEPT, timeout=30)
    assert "was destroyed" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_websocket_leaves_no_cycle_for_the_collector(stack: LocalStack, topic: str, tmp_path: Any):
    """A full collection with ten thousand connections stops a gateway for a third of a second."""
    settings = serve_settings(stack, topic, tmp_path, linger=0.1)
    host, _, port = settings.listen.rpartition(":")
    upgrade = (
        f"GET /ws?source={new_source()} HTTP/1.1\r\nHost: {settings.listen}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()

    async def visit() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(upgrade)
        await reader.readuntil(b'"subscribed"')
        writer.write(b"\x88\x80\0\0\0\0")  # a close frame
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with served(settings, "gateway"):
        await visit()  # whatever is made once
        await until(lambda: not _handlers())
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await visit()
            await until(lambda: not _handlers())
            found = gc.collect()
        finally:
            gc.enable()
    assert found < 2000, "14 a connection are asyncio's transports; 31 more would be aiohttp's"


def _handlers() -> list[str]:
    """The tasks of connections; the gateway's own, and its clients', come and go."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("RequestHandler.")]


def _objects() -> int:
    """That the collector knows of, without what it can free."""
    gc.collect()
    return len(gc.get_objects())
