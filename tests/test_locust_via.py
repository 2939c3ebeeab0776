"""Load through the gateway: its subscribers, and the locustfiles with ``--via``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
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
from dualstream_lab.load.gateway_subscriber import (
    SOURCES_EACH,
    GatewayReceiveRecorder,
    GatewaySubscriber,
    checked_gateway,
)
from dualstream_lab.load.gateway_wire import Incoming, SseIncoming, WsIncoming
from dualstream_lab.recording import Ending
from dualstream_lab.stack.ports import free_ports
from dualstream_lab.subscriber.wire import Dropped
from dualstream_lab.workload import RunIds
from tests.fake_gateway import SOURCE, Talk, cursor, event, fake_gateway, subscribed, sync
from tests.test_locust import in_kafka, locust, places, side_by_side, the_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from dualstream_lab.stack import LocalStack

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


# --- under Locust, on the real stack


@contextmanager
def serving(stack: LocalStack, topic: str, directory: Path, redis_url: str = "") -> Iterator[str]:
    """The URL of a processor and a gateway."""
    url = f"127.0.0.1:{free_ports(1)[0]}"
    where = {
        "KAFKA_URL": stack.kafka_url,
        "REDIS_URL": redis_url or stack.redis_url,
        "TOPIC": topic,
        "GROUP": topic,
        "STORE": str(directory / "events.db"),
        "LISTEN": url,
    }
    environment = os.environ | {f"DUALSTREAM_{name}": value for name, value in where.items()}
    command = [
        sys.executable,
        "-m",
        "dualstream_lab.cli",
        "serve",
        "--only",
        "processor",
        "--only",
        "gateway",
    ]
    said = directory / "serve.log"
    with said.open("wb") as errors, subprocess.Popen(command, env=environment, stderr=errors) as process:
        try:
            deadline = time.monotonic() + 60
            while "serving" not in said.read_text():
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://{url}"
        finally:
            process.terminate()


@pytest.fixture
def gateway(stack: LocalStack, topic: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a processor and a gateway on this test's topic."""
    with serving(stack, topic, tmp_path) as url:
        yield url


@pytest.fixture
def where(stack: LocalStack, topic: str) -> list[str]:
    return ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic, "--yes"]


PROCESSES = {"ws": ["--processes", "2"], "sse": []}


@pytest.fixture(scope="module")
def mixed(
    stack: LocalStack, new_topic: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[subprocess.CompletedProcess[str], Path]]:
    """mixed.py through a gateway: what it said, and where."""

    def call(via: str) -> subprocess.CompletedProcess[str]:
        shape = ["--sources", "250", "--users", "20", "--rate", "1000", "--run-time", "2s", *PROCESSES[via]]
        through = ["--via", via, "--gateway", urls[via]]
        return locust("mixed.py", *at[via].where, *through, *shape, cwd=at[via].cwd)

    with places(stack, new_topic, tmp_path_factory) as place, ExitStack() as exits:
        at = {via: place() for via in PROCESSES}
        urls = {
            via: exits.enter_context(serving(stack, one.topic, one.cwd, one.redis_url))
            for via, one in at.items()
        }
        done = side_by_side({via: partial(call, via) for via in PROCESSES})
        return {via: (done[via], at[via].cwd) for via in PROCESSES}


@both
def test_mixed_hears_through_the_gateway_all_that_it_published(
    via: str, mixed: dict[str, tuple[subprocess.CompletedProcess[str], Path]]
) -> None:
    done, directory = mixed[via]
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    _, verdict = the_run(directory)
    found = verdict["measures"]
    assert found["publish.durable"] == 2000
    assert found["live.missing"] == found["live.gaps"] == 0
    assert found["live.delivered"] == 2000 if via == "sse" else 2000 < found["live.delivered"] <= 4000
    assert found["live.latency.p99"] >= found["live.latency_raw.p99"] > 0
    assert found["live.subscriptions"] >= -(-250 // SOURCES_EACH[via])


def test_fan_out_through_the_gateway_loses_nothing_though_all_come_and_go(
    gateway: str, where: list[str], tmp_path: Path
) -> None:
    through = ["--via", "ws", "--gateway", gateway]
    listeners = ["--users", "120", "--connections-per-user", "5", "--channels", "uniform", "--stay", "1"]
    shape = ["--sources", "100", "--zipf", "0", "--rate", "1000", "--batch-size", "10", "--run-time", "3s"]
    done = locust("subscriber_fanout.py", *where, *through, *listeners, *shape, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    _, verdict = the_run(tmp_path)
    found = verdict["measures"]
    assert found["live.subscriptions"] > 250
    assert found["publish.durable"] == 3000
    assert (found["live.gaps"], verdict["counters"].get("subscriptions_lost", 0)) == (0, 0)
    assert "live.skipped" not in found
    assert found["live.delay.p50"] > 0
    assert found["live.delivered"] == 3000 * 5, "each event is heard by the five connections of its source"
    assert found["live.repeated"] == 0


def test_a_gateway_that_is_not_there_gives_3_before_anything_is_sent(
    where: list[str], stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    through = ["--via", "ws", "--gateway", "http://127.0.0.1:1", "--processes", "2"]
    done = locust("mixed.py", *where, *through, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "http://127.0.0.1:1 could not be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").glob("*"))
    assert in_kafka(stack, topic) == 0


def test_a_gateway_of_another_topic_is_refused(
    gateway: str, stack: LocalStack, where: list[str], tmp_path: Path
) -> None:
    other = f"other-{uuid4().hex[:8]}"
    stack.create_topic(other)
    through = ["--topic", other, "--via", "sse", "--gateway", gateway]
    done = locust("mixed.py", *where, *through, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "serves another log" in done.stderr
    assert in_kafka(stack, other) == 0


def test_all_channels_at_once_are_not_to_be_had_from_a_gateway(where: list[str], tmp_path: Path) -> None:
    done = locust("subscriber_fanout.py", *where, "--via", "ws", "--channels", "all", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--channels all: needs --via redis" in done.stderr


def test_the_options_explain_themselves(tmp_path: Path) -> None:
    done = locust("mixed.py", "--options", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("--via", "--gateway", "--channels", "--rate", "--threshold", "WebSocket"):
        assert word in " ".join(done.stdout.split())
    assert "--web-host" not in done.stdout
