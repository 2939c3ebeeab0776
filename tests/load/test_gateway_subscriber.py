"""The subscribers of the load engine at a gateway: a fake one, for the moments that are needed."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.gateway.clients import Frame, sse_chunk, websocket_frames
from dualstream_lab.load.gateway_subscriber import GatewayReceiveRecorder, GatewaySubscriber, checked_gateway
from dualstream_lab.load.gateway_wire import Incoming, SseIncoming, WsIncoming
from dualstream_lab.recording import Ending
from dualstream_lab.subscriber.wire import Dropped
from dualstream_lab.workload import RunIds
from tests.fake_gateway import SOURCE, Talk, cursor, event, fake_gateway, subscribed, sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

both = pytest.mark.parametrize("via", ["ws", "sse"])
HEADS = {
    "ws": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "sse": b"HTTP/1.1 200 OK\r\n\r\n",
}


def incoming(via: str) -> Incoming:
    return WsIncoming() if via == "ws" else SseIncoming()


# --- bytes


@both
@given(
    bodies=st.lists(st.binary(max_size=300).map(lambda b: b'{"x":"' + b.hex().encode() + b'"}'), max_size=8),
    cuts=st.sets(st.integers(0, 3000)),
)
def test_the_gateways_frames_are_read_wherever_they_are_cut(
    via: str, bodies: list[bytes], cuts: set[int]
) -> None:
    frames = [Frame("event", "e:0:1", body) for body in bodies]
    sent = HEADS[via] + (
        b"\x89\x02hi" + websocket_frames(frames) if via == "ws" else b"3\r\n:\n\n\r\n" + sse_chunk(frames)
    )
    sent = sent.replace(b"0\r\n\r\n", b"")  # no frames are no chunk
    reader, found, before = incoming(via), [], 0
    for cut in [*sorted(cuts), len(sent)]:
        found += reader.feed(sent[before:cut])
        before = max(before, cut)
    assert found == bodies
    assert reader.pings == ([b"hi"] if via == "ws" else [])


@pytest.mark.parametrize(
    ("via", "sent", "says"),
    [
        ("ws", b"HTTP/1.1 403 Forbidden\r\n\r\nnot you", "403 Forbidden not you"),
        ("sse", b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "503"),
        ("ws", HEADS["ws"] + b"\x88\x05\x11\x38bye", "4408 bye"),
        ("ws", HEADS["ws"] + b"\x01\x01x", "0x1"),  # a fragment
        ("sse", HEADS["sse"] + b"0\r\n\r\n", "ended"),
        ("ws", b"x" * 20_000, "no answer of HTTP"),
    ],
)
def test_refusals_and_ends_are_told(via: str, sent: bytes, says: str) -> None:
    with pytest.raises(Dropped, match=says):
        incoming(via).feed(sent)


# --- one subscriber


@asynccontextmanager
async def listening(
    url: str, via: Any, sources: list[str], **options: Any
) -> AsyncIterator[tuple[Any, list[str]]]:
    delivered: list[str] = []

    def hear(number: int, message: bytes, now: int) -> None:
        assert (number, message[:7]) == (7, b'{"id":"')
        assert abs(now - time.monotonic_ns()) < 60e9
        delivered.append(msgspec.json.decode(message)["id"])

    subscriber = GatewaySubscriber(URL(url), sources, hear, via=via, number=7, **options)
    task = asyncio.create_task(subscriber.run())
    try:
        yield subscriber, delivered
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@both
async def test_a_subscriber_resumes_with_its_cursors_and_hears_every_event_once(via: str) -> None:
    other = "repo:octo/other"

    async def first(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), subscribed(3, source=other), event(12, 9), sync(10))
        await talk.half(event(13, 10))

    async def second(talk: Talk) -> None:
        past = (event(n, n, old=True) for n in (11, 12, 13))
        await talk.say(*past, subscribed(13), subscribed(3, source=other), event(14, 13))
        await talk.stay()

    async with (
        fake_gateway(first, second, sources=2) as gateway,
        listening(gateway.url, via, [SOURCE, other]) as (subscriber, delivered),
    ):
        await until(lambda: len(delivered) == 5)
        assert delivered == [f"id-{n}" for n in (10, 12, 11, 13, 14)]
        assert gateway.talks[1].since == {SOURCE: cursor(10), other: cursor(3)}
        assert (subscriber.lost, subscriber.joined, subscriber.gaps, subscriber.epoch) == (1, 2, 0, "e0")


@both
async def test_what_the_gateway_cannot_recover_is_counted(via: str) -> None:
    async def first(talk: Talk) -> None:
        await talk.say(subscribed(9))
        talk.drop()

    async def second(talk: Talk) -> None:
        await talk.say(event(30, 29), subscribed(29, recovered=False, reason="retention"), event(31, 29))
        await talk.stay()

    async with (
        fake_gateway(first, second) as gateway,
        listening(gateway.url, via, [SOURCE]) as (subscriber, delivered),
    ):
        await until(lambda: len(delivered) == 2)
        assert subscriber.gaps == 1
        assert gateway.talks[1].since == {SOURCE: cursor(9)}


def rows(directory: Path, kind: str) -> list[dict[str, int]]:
    tables = [pq.read_table(path) for path in sorted(directory.glob(f"{kind}-*"))]
    return [row for table in tables for row in table.to_pylist()]


@both
async def test_who_listened_when_is_recorded_and_what_came_later(via: str, tmp_path: Path) -> None:
    ids = RunIds.of_run(uuid4())

    async def first(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9, id=ids.of(10)), event(12, 9, id=ids.of(12), late=True))
        talk.drop()

    async def second(talk: Talk) -> None:
        await talk.say(event(13, 13, id=ids.of(13), old=True), subscribed(13))
        await talk.stay()

    receiver = GatewayReceiveRecorder(tmp_path, "worker0", ids)
    async with fake_gateway(first, second) as gateway:
        subscriber = GatewaySubscriber(
            URL(gateway.url), [SOURCE], receiver, via=via, number=7, listening=receiver.listening, ranks=[3]
        )
        receiver.subscribers = [subscriber]
        task = asyncio.create_task(subscriber.run())
        await until(lambda: subscriber.joined == 2)
        receiver.close()
        task.cancel()
        await asyncio.wait([task])
    assert [(row["seq"], row["subscriber"]) for row in rows(tmp_path, "delivered")] == [(10, 7)]
    assert [(row["seq"], row["by_repair"]) for row in rows(tmp_path, "caught_up")] == [(12, 1), (13, 0)]
    listened = rows(tmp_path, "listening")
    assert {(row["subscriber"], row["source"]) for row in listened} == {(7, 3)}
    assert [Ending(row["why"]) for row in listened] == [Ending.OPEN, Ending.LOST, Ending.OPEN, Ending.CLOSED]


async def test_leaving_and_coming_again_is_not_losing() -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9))
        await talk.stay()

    async with (
        fake_gateway(script) as gateway,
        listening(gateway.url, "ws", [SOURCE], stay=0.1) as (subscriber, _),
    ):
        await until(lambda: subscriber.joined >= 3)
        assert subscriber.lost == 0


async def test_what_arrives_while_a_subscriber_is_being_stopped_does_no_harm() -> None:
    asked = asyncio.Event()

    async def script(talk: Talk) -> None:
        asked.set()
        await talk.stay()

    async with fake_gateway(script) as gateway:
        subscriber = GatewaySubscriber(URL(gateway.url), [SOURCE], lambda *_: None, via="ws", number=7)
        task = asyncio.create_task(subscriber.run())
        async with asyncio.timeout(30):
            await asked.wait()
        body = msgspec.json.encode(subscribed(9))
        frame = websocket_frames([Frame("subscribed", cursor(9), body)])
        task.cancel()  # what it waits for is over from here on
        subscriber.data_received(frame)
        await asyncio.wait([task])
        assert task.cancelled()


@both
async def test_a_refusal_is_remembered(via: str) -> None:
    async with fake_gateway() as gateway:
        gateway.refusals = [403] * 100
        async with listening(gateway.url, via, [SOURCE]) as (subscriber, _):
            await until(lambda: "403" in subscriber.trouble)
            assert not subscriber.ready.is_set()


def test_the_delay_is_of_what_was_told_live() -> None:
    ids = RunIds.of_run(uuid4())
    receiver = GatewayReceiveRecorder(None, "test", ids, details=True)
    ack = time.time_ns()
    for more in (f'"ts":{ack}', f'"ts":{ack},"late":true', f'"ts":{ack},"old":true', '"cursor":"e:0:1"'):
        receiver(0, f'{{"id":"{ids.of(5)}","type":"push",{more}}}'.encode(), time.monotonic_ns())
    (delay,) = receiver._spent["live_delay"]
    assert 0 <= delay < 60e9
    receiver.collect()
    counters = receiver.meter.take().counters
    assert (counters["delivered"], counters["caught_up"]) == (2, 2)


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("http://127.0.0.1:1", StreamUnavailable, "could not be reached"),
        ("redis://127.0.0.1", ConfigError, "http://"),
    ],
)
async def test_a_gateway_that_is_not_there_is_told_at_once(
    url: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await checked_gateway(url)
