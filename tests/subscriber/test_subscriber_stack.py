"""The Subscriber on the real stack: Kafka, Redis, the processor, the store and the gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import string
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest
from pydantic import SecretStr

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import ConfigError
from dualstream_lab.event import Event
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.subscriber import Gap, Received, StreamGap, Subscriber
from tests.gateway.serving import Constants, command
from tests.kafka_log.hostile import Writer, delete_records, grow
from tests.subscriber.test_subscriber import ODD_IDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from dualstream_lab.config import Settings
    from dualstream_lab.stack import LocalStack

SOURCE = "repo:octo/hello"
both = pytest.mark.parametrize("transport", ["ws", "sse"])


class Service:
    """Parts of ``dualstream serve`` as a process of its own, on one port for as long as this lives."""

    def __init__(self, settings: ServeSettings, *parts: str, constants: Constants | None = None) -> None:
        self._settings = settings
        self._parts = parts
        self._constants = constants
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"http://{settings.listen}"

    async def start(self) -> None:
        given = self._settings.model_dump(include=self._settings.model_fields_set)
        where = {
            f"DUALSTREAM_{name.upper()}": value.get_secret_value()
            if isinstance(value, SecretStr)
            else str(value)
            for name, value in given.items()
        }
        only = [word for part in self._parts for word in ("--only", part)]
        said = self._settings.store.with_name(f"{'-'.join(self._parts)}.log")
        with said.open("wb") as errors:
            self._process = process = await asyncio.create_subprocess_exec(
                *command("serve", *only, constants=self._constants),
                env=os.environ | where,
                stderr=errors,
            )
        await until(lambda: process.returncode is not None or "serving" in said.read_text())
        assert process.returncode is None, said.read_text()

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            await process.wait()


@pytest.fixture
def served(settings: Callable[..., Settings], tmp_path: Path) -> Callable[..., ServeSettings]:
    """Makes the settings of a delivery side of this test's own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def make(**values: object) -> ServeSettings:
        where = settings().model_dump(include={"kafka_url", "redis_url", "topic"})
        own = {
            "store": tmp_path / "events.db",
            "group": f"group-{where['topic']}",
            "listen": f"127.0.0.1:{port}",
        }
        return ServeSettings.load(**(where | own | values))

    return make


@asynccontextmanager
async def serving(settings: ServeSettings, constants: Constants | None = None) -> AsyncIterator[str]:
    """The URL of a processor and a gateway."""
    service = Service(settings, "processor", "gateway", constants=constants)
    try:
        await service.start()
        yield service.url
    finally:
        await service.stop()


async def until(true: Callable[[], bool], timeout: float = 60) -> None:
    async with asyncio.timeout(timeout):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def some(count: int, *, source: str = SOURCE, first: int = 0) -> list[Event]:
    source_type, _, source_id = source.partition(":")
    return [
        Event(type="push", source_type=source_type, source_id=source_id, data={"n": first + n})
        for n in range(count)
    ]


async def take(events: AsyncIterator[Received], count: int, timeout: float = 60) -> list[Received]:
    async with asyncio.timeout(timeout):
        return [await anext(events) for _ in range(count)]


def numbers(events: list[Received]) -> list[int]:
    return [one.data["n"] for one in events]


class Cutter:
    """A way to a port that can be cut: every connection through it ends at once, without a word."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, back))
                group.create_task(self._copy(there, writer))
        except* OSError:
            pass
        finally:
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    def cut(self) -> None:
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def cuttable(url: str) -> AsyncIterator[tuple[str, Cutter]]:
    cutter = Cutter(int(url.rpartition(":")[2]))
    server = await asyncio.start_server(cutter, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", cutter
    finally:
        server.close()
        cutter.cut()


class Follower:
    """A Subscriber, and the ids that it handed out."""

    def __init__(self, url: str, sources: list[str], **options: Any) -> None:
        self.sources = sources
        self.stream = Subscriber(url, sources=sources, fetch=False, **options)
        self.ids: list[str] = []
        self.late = 0

    async def run(self) -> None:
        async for received in self.stream:
            self.ids.append(received.id)


Published = dict[str, list[str]]
"""Ids, by source: those that are durable."""


async def publish_steadily(
    publisher: DualPublisher, published: Published, *, rate: int, over: asyncio.Event
) -> None:
    """``rate`` events/s, spread over the sources that are the keys."""
    loop, sources = asyncio.get_running_loop(), list(published)
    began, sent = loop.time(), 0
    while not over.is_set():
        due = round((loop.time() - began) * rate) - sent
        batch = [some(1, source=sources[n % len(sources)], first=n)[0] for n in range(sent, sent + due)]
        await publisher.publish_batch(batch)
        for event in batch:
            published[f"{event.source_type}:{event.source_id}"].append(event.id)
        sent += due
        await asyncio.sleep(0.01)


@asynccontextmanager
async def followed(
    publisher: DualPublisher, followers: list[Follower], *, rate: int, timeout: float = 30
) -> AsyncIterator[None]:
    """While the body makes trouble, events flow to the followers; afterwards each has every one, once."""
    published: Published = {source: [] for follower in followers for source in follower.sources}
    async with AsyncExitStack() as exits:
        tasks = []
        for follower in followers:
            await exits.enter_async_context(follower.stream)
            tasks.append(asyncio.create_task(follower.run()))
        await asyncio.gather(*(follower.stream.wait_live(20) for follower in followers))
        over = asyncio.Event()
        flow = asyncio.create_task(publish_steadily(publisher, published, rate=rate, over=over))
        try:
            yield
        finally:
            over.set()
            await flow
        wanted = [{one for source in f.sources for one in published[source]} for f in followers]
        with suppress(TimeoutError):  # who is behind by then has lost some
            for follower, ids, task in zip(followers, wanted, tasks, strict=True):
                await until(lambda: task.done() or ids <= set(follower.ids), timeout)  # noqa: B023
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.wait(tasks)
    for follower, ids in zip(followers, wanted, strict=True):
        assert len(follower.ids) == len(set(follower.ids))
        assert set(follower.ids) == ids
    assert sum(map(len, published.values())) > rate


@both
async def test_the_past_and_the_present_arrive_whole(
    transport: Any, served: Callable[..., ServeSettings]
) -> None:
    settings = served()
    async with (
        serving(settings) as url,
        DualPublisher(settings) as publisher,
        Subscriber(url, source=SOURCE, transport=transport, since="earliest") as events,
    ):
        await publisher.publish_batch(some(10))
        await publisher.publish_batch(some(10, source="repo:octo/other"))
        assert numbers(await take(events, 10)) == list(range(10))
        await events.wait_live()
        published = some(50, first=10)
        await publisher.publish_batch(published)
        got = await take(events, 50)
        assert [(one.id, one.data["n"]) for one in got] == [
            (event.id, event.data["n"]) for event in published
        ]
        assert all(one.source == SOURCE and not one.old for one in got)
        assert all(one.latency is not None and -0.1 < one.latency < 15 for one in got)
        assert events.states == {SOURCE: "live"}
    async with serving(settings) as url, Subscriber(url, source=SOURCE, since=events.cursors) as tomorrow:
        async with DualPublisher(settings) as publisher:
            await publisher.publish_batch(some(1, first=60))
        last = (await take(tomorrow, 1))[0]
        while last.data["n"] < 60:  # the last ones may come again
            last = (await take(tomorrow, 1))[0]


SOURCES = [f"repo:octo/{n}" for n in range(10)]


def four(url: str) -> list[Follower]:
    return [
        Follower(url, SOURCES[:5], transport="ws"),
        Follower(url, SOURCES[5:], transport="ws"),
        Follower(url, SOURCES[:5], transport="sse"),
        Follower(url, SOURCES[9:], transport="sse"),
    ]


async def test_clients_that_are_cut_off_while_events_flow_get_every_one_once(
    served: Callable[..., ServeSettings],
) -> None:
    settings = served(catch_up_events=100)  # so few that the way back leads through pages, too
    async with (
        serving(settings) as direct,
        cuttable(direct) as (url, cutter),
        DualPublisher(settings) as publisher,
    ):
        followers = four(url)
        async with followed(publisher, followers, rate=3000):
            for _ in range(8):
                await asyncio.sleep(0.4)
                cutter.cut()
        assert all(follower.stream.stats.drops >= 2 for follower in followers)
        assert sum(follower.stream.stats.old for follower in followers) > 100


@pytest.mark.parametrize("part", ["gateway", "processor"])
async def test_every_event_arrives_though_a_part_is_killed_and_started_again(
    part: str, served: Callable[..., ServeSettings]
) -> None:
    settings = served()
    soon = {"kafka_log.group._SESSION": 3.0}
    parts = {name: Service(settings, name, constants=soon) for name in ("processor", "gateway")}
    try:
        for service in parts.values():
            await service.start()
        followers = four(parts["gateway"].url)
        async with DualPublisher(settings) as publisher, followed(publisher, followers, rate=1000):
            await asyncio.sleep(0.5)
            await parts[part].kill()
            await asyncio.sleep(0.5)
            await parts[part].start()
            if part == "gateway":
                for follower in followers:
                    await until(lambda: follower.stream.stats.drops > 0)  # noqa: B023
                    await follower.stream.wait_live(20)
            await asyncio.sleep(0.5)
    finally:
        for service in parts.values():
            await service.stop()


async def test_every_event_arrives_though_redis_is_killed_and_started_again(
    served: Callable[..., ServeSettings], stack: LocalStack
) -> None:
    settings = served()
    async with serving(settings) as url, DualPublisher(settings) as publisher:
        followers = four(url)
        async with followed(publisher, followers, rate=1000):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(stack.redis.kill)
            await until(lambda: all("degraded" in one.stream.states.values() for one in followers))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(stack.redis.launch)
            await until(lambda: not any("degraded" in one.stream.states.values() for one in followers))
            await asyncio.sleep(0.5)
        assert all(follower.stream.stats.late > 0 for follower in followers)
        assert all(follower.stream.stats.drops == 0 for follower in followers)


async def test_what_retention_removed_is_a_gap_and_the_earliest_is_what_is_left(
    served: Callable[..., ServeSettings],
) -> None:
    settings = served(retention_events=10)
    often = {"processor.processor._PRUNE": 0.5}
    async with serving(settings, often) as url, DualPublisher(settings) as publisher:
        async with Subscriber(url, source=SOURCE) as events:
            await events.wait_live()
            await publisher.publish_batch(some(5))
            await take(events, 5)
            await events.wait_live()
        await publisher.publish_batch(some(500, first=5))
        await pruned(url, newest=504, most=10)
        stale = f"{events.cursors[SOURCE].rpartition(':')[0]}:0"
        async with (
            Subscriber(url, source=SOURCE, since=stale) as events,
            asyncio.timeout(30),
        ):
            with pytest.raises(StreamGap, match="retention"):
                await take(events, 1000)
            await publisher.publish_batch(some(1, first=1000))
            while (await anext(events)).data["n"] != 1000:
                pass
        async with Subscriber(url, source=SOURCE, since="earliest") as events:
            assert numbers(await take(events, 3))[0] > 400


async def pruned(url: str, *, newest: int, most: int) -> None:
    """Wait until the store holds so few, and the newest."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        while True:
            async with session.get(f"{url}/events?source={SOURCE}&since=earliest&limit=1000") as answer:
                held = [event["data"]["n"] for event in (await answer.json())["events"]]
            if newest in held and len(held) <= most:
                return
            await asyncio.sleep(0.2)


@both
async def test_the_earliest_behind_what_kafka_lost_is_one_gap_and_what_is_left(
    transport: Any, served: Callable[..., ServeSettings], stack: LocalStack
) -> None:
    """Records were deleted before the processor had them: the store has those before and those after."""
    settings = served()
    parts = {name: Service(settings, name) for name in ("processor", "gateway")}
    gaps: list[Gap] = []
    try:
        for service in parts.values():
            await service.start()
        url = parts["gateway"].url
        async with DualPublisher(settings) as publisher:
            first = await publisher.publish_batch(some(5))
            async with Subscriber(url, source=SOURCE, since="earliest") as events:
                assert numbers(await take(events, 5)) == list(range(5))
            await pruned(url, newest=4, most=5)
            await parts["processor"].stop()
            rest = await publisher.publish_batch(some(5, first=5))
        (partition,) = {*map(int, first.partitions), *map(int, rest.partitions)}
        await delete_records(stack.kafka_url, settings.topic, {partition: int(rest.offsets[3])})
        await parts["processor"].start()
        async with (
            DualPublisher(settings) as publisher,
            Subscriber(
                url, source=SOURCE, since="earliest", transport=transport, on_gap=gaps.append
            ) as events,
        ):
            assert numbers(await take(events, 2)) == [8, 9]
            await events.wait_live(20)
            await publisher.publish_batch(some(1, first=10))
            assert numbers(await take(events, 1)) == [10]
        (gap,) = gaps
        assert (gap.reason, gap.after) == ("retention", None)
        async with Subscriber(url, source=SOURCE, since=events.cursors, on_gap=gaps.append) as again:
            await again.wait_live(20)
            assert len(gaps) == 1
    finally:
        for service in parts.values():
            await service.stop()


@both
async def test_two_sources_may_have_the_same_ids_and_each_gets_its_own(
    transport: Any, served: Callable[..., ServeSettings]
) -> None:
    """Also where somebody takes an id before its owner does."""
    settings = served()
    sources = ("repo:evil/a", "repo:victim/b")
    async with serving(settings) as url, DualPublisher(settings) as publisher:
        live = [Subscriber(url, source=source, transport=transport) for source in sources]
        async with live[0] as one, live[1] as two:
            await one.wait_live(20)
            await two.wait_live(20)
            for number in range(5):
                for source in sources:
                    kind, _, name = source.partition(":")
                    event = Event(id=f"{number}", type="t", source_type=kind, source_id=name, data=name)
                    await publisher.publish(event)
            for source, stream in zip(sources, (one, two), strict=True):
                got = await take(stream, 5)
                assert [(e.source, e.id, e.data) for e in got] == [
                    (source, f"{number}", source.partition(":")[2]) for number in range(5)
                ]
                assert (stream.stats.gaps, stream.stats.refused) == (0, 0)
        for source in sources:
            async with Subscriber(url, source=source, transport=transport, since="earliest") as later:
                assert [(e.id, e.data) for e in await take(later, 5)] == [
                    (f"{number}", source.partition(":")[2]) for number in range(5)
                ]


async def test_ids_of_every_allowed_character_are_handed_out_whole(
    served: Callable[..., ServeSettings],
) -> None:
    settings = served()
    allowed = "".join(c for c in string.printable.strip() if c not in '"\\')
    ids = [*ODD_IDS, allowed[:64], allowed[64:]]
    source = "repo:ö/a%2F+&=#{}~;:@日本"
    async with (
        serving(settings) as url,
        DualPublisher(settings) as publisher,
        Subscriber(url, source=source) as events,
    ):
        await events.wait_live(20)
        for one in ids:
            await publisher.publish(
                Event(id=one, type="t", source_type="repo", source_id=source.partition(":")[2], data=one)
            )
        assert [(e.id, e.data) for e in await take(events, len(ids))] == [(one, one) for one in ids]
        assert events.stats.gaps == 0


async def test_a_source_that_is_in_several_partitions_is_followed_and_resumed_in_all(
    served: Callable[..., ServeSettings], stack: LocalStack
) -> None:
    """Partitions are added, and another client places events otherwise."""
    settings = served(refresh_interval=0.5)
    writer = Writer(stack.kafka_url, settings.topic)
    async with serving(settings) as url, DualPublisher(settings) as publisher:
        async with Subscriber(url, source=SOURCE, since="earliest") as events:
            await publisher.publish_batch(some(3))
            assert numbers(await take(events, 3)) == [0, 1, 2]
            old = events.cursors[SOURCE]
            await grow(stack.kafka_url, settings.topic, 9)
            async with writer.producer() as producer:
                for number in (3, 4, 5):
                    (event,) = some(1, first=number)
                    await writer.send(producer, event, partition=number + 3)
            got = await take(events, 3, timeout=30)
            assert sorted(numbers(got)) == [3, 4, 5]
            await events.wait_live(20)
            await publisher.publish_batch(some(1, first=6))
            (last,) = await take(events, 1)
            assert (last.data["n"], last.late) == (6, False)
            assert events.stats.gaps == 0
        again = Subscriber(url, source=SOURCE, since=old)
        async with again as events:
            assert sorted(numbers(await take(events, 5)))[-4:] == [3, 4, 5, 6]
            assert events.stats.gaps == 0
        await publisher.publish_batch(some(1, first=7))
        async with Subscriber(url, source=SOURCE, since=again.cursors) as events:
            got = numbers(await take(events, 1))
            while got[-1] != 7:  # the last ones may come again
                got += numbers(await take(events, 1))
            assert not {0, 1} & set(got)


async def test_a_cursor_of_another_log_is_a_gap(served: Callable[..., ServeSettings]) -> None:
    settings = served()
    async with (
        serving(settings) as url,
        DualPublisher(settings) as publisher,
        Subscriber(url, source=SOURCE, since="0123456789ab:0:17") as events,
    ):
        with pytest.raises(StreamGap, match="epoch_changed"):
            await take(events, 1)
        await publisher.publish_batch(some(3))
        assert numbers(await take(events, 3)) == [0, 1, 2]


@both
async def test_tokens_are_shown_renewed_and_refused(
    transport: Any, served: Callable[..., ServeSettings]
) -> None:
    secret = "a secret of at least thirty-two bytes"
    settings = served(jwt_secret=secret)
    made: list[str] = []

    def token(*, key: str = secret, seconds: float = 2) -> str:
        claims = {"exp": time.time() + seconds, "read": ["repo:octo/*"]}
        made.append(jwt.encode(claims, key, algorithm="HS256"))
        return made[-1]

    async with serving(settings) as url, DualPublisher(settings) as publisher:
        options = {"transport": transport}
        async with Subscriber(url, source=SOURCE, token=token, **options) as events:
            for n in range(2):
                await events.wait_live()
                await publisher.publish_batch(some(5, first=5 * n))
                assert numbers(await take(events, 5)) == list(range(5 * n, 5 * n + 5))
                if n == 0:
                    await until(lambda: len(made) > 1)
        refused = {"forged": token(key="x" * 40, seconds=60), "expired": token(seconds=-60), "none": None}
        for why, shown in refused.items():
            stranger = Subscriber(url, source=SOURCE, token=shown, **options)
            with pytest.raises(ConfigError, match="401"):
                await take(aiter(stranger), 1)
            assert stranger.stats.connections == 1, why
        with pytest.raises(ConfigError, match="4403" if transport == "ws" else "403"):
            await take(aiter(Subscriber(url, source="repo:other/one", token=token(seconds=60), **options)), 1)
