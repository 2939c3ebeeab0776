"""The gateway's protocol, and what is thrown at it, by clients that nobody here wrote.

Everything runs in real processes on the real stack. Some constants are shortened there; it is said where.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Self
from uuid import uuid4

import jwt
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dualstream_lab import DualPublisher, Event
from dualstream_lab.config import ServeSettings, Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.gateway.access import Access, Denied
from dualstream_lab.stack import LocalStack
from tests.gateway.ears import Socket, curl, escaped, hearing, streaming
from tests.gateway.serving import Delivery, Server, command, until, until_so
from tests.publisher.helpers import read_log

SECRET = "a secret of the tests, long enough for every algorithm that signs with one"
CHECK = 1.0  # s: check_interval of these gateways


class Place(NamedTuple):
    """A published event."""

    id: str
    partition: int
    offset: int

    @property
    def pos(self) -> str:
        return f"{self.partition}:{self.offset}"


class Published:
    """Publishes numbered events, and remembers what Kafka said. ``silent``: not a word on Redis."""

    def __init__(self, settings: Settings) -> None:
        self._loud = DualPublisher(settings)
        self._silent = DualPublisher(settings.model_copy(update={"redis_url": None}))
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        await self._loud.start()
        await self._silent.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loud.close()
        await self._silent.close()

    async def __call__(
        self, source: str, count: int = 1, *, silent: bool = False, size: int = 0
    ) -> list[Place]:
        kind, _, name = source.partition(":")
        data = {"x": "x" * size}
        batch = [Event(type="push", source_type=kind, source_id=name, data=data) for _ in range(count)]
        receipt = await (self._silent if silent else self._loud).publish_batch(batch)
        return [Place(one.event_id, one.partition, one.offset) for one in receipt]


@pytest.fixture(scope="module")
def delivery(stack: LocalStack) -> Iterator[Delivery]:
    topic = f"gateway-{uuid4().hex[:12]}"
    stack.create_topic(topic)
    with Delivery(stack, topic, check_interval=CHECK, linger=0.3, request_timeout=1.0) as made:
        yield made


class Servers(NamedTuple):
    processor: Server
    plain: Server
    guarded: Server
    small: Server
    patient: Server
    pattern: Server


@pytest.fixture(scope="module")
def servers(delivery: Delivery) -> Servers:
    processor = delivery.start("processor")
    made = Servers(
        processor=processor,
        # A client that does not answer pings is gone after 1.5 times this.
        plain=delivery.make(
            "gateway",
            constants={
                "gateway.websocket._HEARTBEAT": 2.0,
                "gateway.sse._KEEP_ALIVE": 0.5,
                "lab.serve._IDLE": 3.0,
            },
        ),
        guarded=delivery.make(
            "gateway", jwt_secret=SECRET, auth_timeout=0.7, allowed_origins="https://friend.example"
        ),
        small=delivery.make(
            "gateway",
            constants={"gateway.tails._MOST": 10},
            catch_up_events=20,
            max_connections=6,
            max_subscriptions=3,
            max_message_bytes=1024,
            client_buffer_bytes=65_536,
            store_timeout=0.5,
        ),
        patient=delivery.make("gateway", check_interval=300),
        pattern=delivery.make("gateway", check_interval=300, upstream="pattern"),
    )
    delivery.launch(*made[1:])
    return made


@pytest.fixture
def processor(servers: Servers) -> Iterator[Server]:
    yield servers.processor
    servers.processor.process.resume()


@pytest.fixture
def plain(servers: Servers) -> Server:
    return servers.plain


@pytest.fixture
def guarded(servers: Servers) -> Server:
    return servers.guarded


@pytest.fixture
def small(servers: Servers) -> Server:
    return servers.small


@pytest.fixture
async def publish(delivery: Delivery) -> AsyncIterator[Published]:
    settings = {name: delivery.where[name] for name in ("kafka_url", "redis_url", "topic")}
    async with Published(Settings.load(**settings)) as made:
        yield made


def new_source() -> str:
    return f"repo:o/{uuid4().hex[:12]}"


@pytest.fixture
def source() -> str:
    return new_source()


def ids(places: list[Place]) -> list[str]:
    return [place.id for place in places]


def at(cursor: str, offset: int) -> str:
    """The cursor of another place of the same source."""
    return cursor.rpartition(":")[0] + f":{offset}"


def place_of(cursor: str) -> int:
    return int(cursor.rpartition(":")[2])


@asynccontextmanager
async def undisturbed(server: Server, publish: Published, **options: Any) -> AsyncIterator[None]:
    """Beside a healthy client, which keeps its connection, misses nothing, and waits for nothing."""
    source = new_source()
    sent: list[str] = []

    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            sent.extend(ids(await publish(source, 2)))
            await asyncio.sleep(0.02)

    async with hearing(server.ws, source, **options) as ear:
        going = asyncio.create_task(go_on())
        try:
            await ear.hear(2)
            yield
        finally:
            stop.set()
            await going
        sent.extend(ids(await publish(source, 2)))
        heard = await ear.hear(len(sent), timeout=5)
        assert sorted(heard) == sorted(sent)
        assert not list(ear.of("degraded"))


# --- WebSocket


async def test_a_websocket_client_hears_what_is_published_after_it_came(plain, publish, source):
    await publish(source, 3)
    began = time.time_ns()
    async with hearing(plain.ws, source) as ear:
        told = ear.messages[0]
        assert told == {"kind": "subscribed", "source": source, "cursor": told["cursor"], "recovered": True}
        (place,) = await publish(source)
        event = await ear.see("event")
        assert event == {
            "kind": "event",
            "source": source,
            "id": place.id,
            "type": "push",
            "pos": place.pos,
            "ts": event["ts"],
            "cursor": event["cursor"],
        }
        assert began < event["ts"] < time.time_ns()
        # To resume from: all is known up to it, which the event's own offset would not say.
        assert place_of(told["cursor"]) <= place_of(event["cursor"]) <= place.offset
        await ear.until(lambda: [*ear.of("sync")] and place_of(ear.cursor) >= place.offset, timeout=4 * CHECK)
        (*_, sync) = ear.of("sync")
        assert sync["cursor"].split(":")[:2] == told["cursor"].split(":")[:2]
        assert len(ear.ids()) == 1


async def test_earliest_is_all_there_is_in_order_and_then_live(plain, publish, source):
    past = await publish(source, 500)
    async with hearing(plain.ws, source, since="earliest") as ear:
        assert ear.ids() == ids(past)
        assert all(event["old"] for event in ear.of("event"))
        assert ear.messages[500]["kind"] == "subscribed"
        new = await publish(source, 5)
        assert await ear.hear(505) == ids(past + new)
        assert not any("old" in event or "late" in event for event in ear.messages[-5:] if "id" in event)


async def test_a_cursor_brings_what_came_after_it(plain, publish, source):
    past = await publish(source, 20)
    async with hearing(plain.ws, source) as ear:
        now = ear.cursor
    for known in (-1, *(place.offset for place in past)):
        async with hearing(plain.ws, source, since=at(now, known)) as ear:
            assert ear.ids() == [place.id for place in past if place.offset > known]
            assert next(ear.of("subscribed"))["recovered"] is True


async def test_who_drops_and_resumes_while_much_is_published_has_everything_once(plain, publish, source):
    """Also: at every moment all up to the cursor was told; whoever is cut off there loses nothing."""
    sent: list[Place] = []
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            sent.extend(await publish(source, 20))
            await asyncio.sleep(0.01)

    going = asyncio.create_task(go_on())
    known: set[str] = set()
    cursor = "earliest"
    connections: list[tuple[str, list[dict[str, Any]]]] = []
    for number in range(25):
        async with hearing(plain.ws, source, since=cursor, wait=False) as ear:
            await ear.until(lambda: len(ear.messages) > number * 7)  # noqa: B023
            ear.drop()
            messages = ear.messages[: number * 7 + 1]  # what came later may as well have been lost
        connections.append((cursor, messages))
        cursor = next((m["cursor"] for m in reversed(messages) if "cursor" in m), cursor)
    stop.set()
    await going
    async with hearing(plain.ws, source, since=cursor) as ear:
        connections.append((cursor, list(ear.messages)))
    for began, messages in connections:
        heard = [message["id"] for message in messages if message["kind"] == "event"]
        assert len(heard) == len(set(heard)), f"twice on one connection, since {began}"
        for message in messages:
            if message["kind"] == "event":
                known.add(message["id"])
            through = place_of(message["cursor"])
            assert not [place for place in sent if place.offset <= through and place.id not in known], message
    assert known == set(ids(sent))


async def test_several_sources_on_one_connection_come_and_go(plain, publish):
    one, two, three, four = (new_source() for _ in range(4))
    past = await publish(four, 5)
    async with hearing(plain.ws, one, two) as ear:
        await ear.say(subscribe=three)
        await ear.say(subscribe=four, since="earliest")
        await ear.see("subscribed", three)
        await ear.see("subscribed", four)
        assert ear.ids() == ids(past)
        news = {source: await publish(source, 3) for source in (one, two, three, four)}
        await ear.hear(17)
        for source, places in news.items():
            assert ear.ids(source)[-3:] == ids(places)
        await ear.say(unsubscribe=one)
        await ear.see("unsubscribed", one)
        await publish(one, 3)
        last = await publish(two, 3)
        await ear.hear(6, two)
        assert ear.ids(two)[-3:] == ids(last)
        assert len(ear.ids(one)) == 3
        # And again, from where it was.
        await ear.say(
            subscribe=one, since=at(next(ear.of("subscribed", one))["cursor"], news[one][-1].offset)
        )
        await ear.see("subscribed", one, count=2)
        assert len(ear.ids(one)) == 6


async def test_a_client_may_come_without_a_source(plain, publish, source):
    async with hearing(plain.ws) as ear:
        await ear.say(subscribe=source)
        await ear.see("subscribed", source)
        (place,) = await publish(source)
        assert await ear.hear(1) == [place.id]
        await ear.say(subscribe=source)
        assert "already" in (await ear.see("error", source))["error"]
        await ear.say(unsubscribe=new_source())
        assert "not followed" in (await ear.see("error", count=2))["error"]
        (other,) = await publish(source)
        assert await ear.hear(2) == [place.id, other.id]


async def test_names_of_all_the_world_are_heard_everywhere(plain, publish):
    source = "repo:\N{SNOWMAN}/\N{LATIN SMALL LETTER E WITH ACUTE}%2F+&=#" + uuid4().hex[:8]
    past = await publish(source, 2)
    async with (
        hearing(plain.ws, source, since="earliest") as ear,
        streaming(plain.url, source, since="earliest") as stream,
    ):
        new = await publish(source, 2)
        assert await ear.hear(4) == await stream.hear(4) == ids(past + new)
        assert ear.messages[0]["source"] == source
    await until_status(f"{plain.url}/events/{new[-1].id}?pos={new[-1].pos}", 200)
    page = (await curl(f"{plain.url}/events?source={escaped(source)}")).json
    assert [event["id"] for event in page["events"]] == ids(past + new)


async def test_all_sources_of_a_connection_share_since(plain, publish):
    one, two = new_source(), new_source()
    first, second = await publish(one, 2), await publish(two, 2)
    async with hearing(plain.ws, one, two, since="earliest") as ear:
        assert (ear.ids(one), ear.ids(two)) == (ids(first), ids(second))


async def test_clients_of_a_source_share_one_subscription_which_ends_after_them(
    servers, stack, publish, source
):
    channel = f"events:{source}"
    async with Redis.from_url(stack.redis_url) as redis:

        async def subscribers() -> int:
            return int((await redis.pubsub_numsub(channel))[0][1])

        async with AsyncExitStack() as clients:
            ears = [await clients.enter_async_context(hearing(servers.plain.ws, source)) for _ in range(20)]
            assert await subscribers() == 1
            sent = ids(await publish(source, 10))
            for ear in ears:
                assert await ear.hear(10) == sent
        await until_so(subscribers, 0)


# --- SSE


async def test_curl_streams_and_resumes_with_the_last_event_id(plain, publish, source):
    past = await publish(source, 3)
    async with streaming(plain.url, source, since="earliest") as ear:
        new = await publish(source, 3)
        assert await ear.hear(6) == ids(past + new)
        assert [kind for kind, _ in ear.heads] == ["event"] * 3 + ["subscribed"] + ["event"] * 3
        for message, (kind, name) in zip(ear.messages, ear.heads, strict=True):
            assert (message["kind"], message["cursor"]) == (kind, name)
        await ear.see("sync", timeout=3 * CHECK)
        assert ear.heads[-1][0] == "sync"
        await ear.until(lambda: ear.comments >= 2, timeout=5)
        last = ear.last_id
    missed = await publish(source, 4)
    header = ("-H", f"Last-Event-ID: {last}")
    # As an EventSource reconnects: to the same URL, whose `since` is now of no meaning.
    async with streaming(plain.url, source, since="earliest", options=header) as ear:
        assert ear.ids() == ids(missed)


async def test_the_id_of_several_sources_holds_the_cursor_of_each(plain, publish):
    sources = [new_source() for _ in range(3)]
    past = {source: await publish(source, 2) for source in sources}
    async with streaming(plain.url, *sources, since="earliest") as ear:
        for source in sources:
            assert ear.ids(source) == ids(past[source])
        assert len(ear.last_id.split(",")) == 3
        last = ear.last_id
    missed = {source: await publish(source, 2) for source in sources}
    async with streaming(plain.url, *sources, options=("-H", f"Last-Event-ID: {last}")) as ear:
        for source in sources:
            assert ear.ids(source) == ids(missed[source])


async def test_a_source_that_had_no_cursor_yet_resumes_where_the_url_says(plain, publish):
    """Cut off after the first words on the first source: the other was not begun yet."""
    one, two = new_source(), new_source()
    first, second = await publish(one, 1), await publish(two, 3)
    async with streaming(plain.url, one, since="earliest") as ear:
        cursor = ear.last_id
    header = ("-H", f"Last-Event-ID: {cursor},")
    async with streaming(plain.url, one, two, since="earliest", options=header) as ear:
        assert ear.ids(one) == []
        assert ear.ids(two) == ids(second)
    assert first


async def test_sse_is_not_for_head_nor_for_http_1_0(plain):
    """Both would get a stream that they cannot read."""
    url = f"{plain.url}/sse?source=repo:o/x"
    assert 400 <= (await curl(url, "--head")).status < 500
    assert 400 <= (await curl(url, "--http1.0")).status < 600
    assert (await curl(url, "-X", "POST")).status == 405


# --- What cannot be recovered is said, with its reason, and live goes on


async def refused(server: Server, source: str, since: str, publish: Published) -> str:
    """The reason; the client is live from the cursor that it was given."""
    async with hearing(server.ws, source, since=since) as ear:
        (told,) = ear.of("subscribed")
        assert told["recovered"] is False
        assert not ear.ids()
        places = await publish(source, 3)
        assert await ear.hear(3) == ids(places)
        assert place_of(told["cursor"]) < places[0].offset
        cursor = told["cursor"]
    async with streaming(server.url, source, since=cursor) as stream:
        assert stream.ids() == ids(places)
    reason = told["reason"]
    assert isinstance(reason, str)
    return reason


async def test_a_cursor_of_another_log_or_beyond_its_end_is_said(plain, publish, source):
    await publish(source, 3)
    async with hearing(plain.ws, source) as ear:
        epoch, partition, offset = ear.cursor.split(":")
    strangers = (
        f"0123456789ab:{partition}:{offset}",
        f"{epoch}:{(int(partition) + 1) % 6}:{offset}",
        f"{epoch}:{partition}:{int(offset) + 1_000_000}",
        f"{epoch}:{partition}:{10**18 - 1}",
    )
    for stranger in strangers:
        assert await refused(plain, source, stranger, publish) == "epoch_changed"


async def test_too_far_behind_is_said_and_nothing_partial_is_sent(small, publish, source):
    past = await publish(source, 21)
    assert await refused(small, source, "earliest", publish) == "too_far_behind"
    # One less, and it is caught up.
    async with hearing(small.ws, source) as ear:
        known = at(ear.cursor, past[3].offset)
    async with hearing(small.ws, source, since=known) as ear:
        assert next(ear.of("subscribed"))["recovered"] is True
        assert len(ear.ids()) == 20


async def test_too_far_behind_amid_traffic_misses_nothing_after_its_cursor(small, publish, source):
    """What happened between the fence and the refusal is either before the cursor or told."""
    sent: list[Place] = []
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            sent.extend(await publish(source, 5))

    going = asyncio.create_task(go_on())
    await until(lambda: len(sent) > 100)
    for _ in range(15):
        async with hearing(small.ws, source, since="earliest") as ear:
            (told,) = ear.of("subscribed")
            assert told["reason"] == "too_far_behind"
            await ear.hear(10)
            seen = len(sent)
            await ear.until(lambda: ear.ids()[-1:] > [] and len(sent) > seen)  # noqa: B023
            last = sent[seen - 1]
            await ear.until(lambda: last.id in ear.ids())  # noqa: B023
            after = [p for p in sent[:seen] if p.offset > place_of(told["cursor"])]
            assert set(ids(after)) <= set(ear.ids())
    stop.set()
    await going


async def test_retention_is_said(stack, publish_to):
    topic = f"retention-{uuid4().hex[:12]}"
    stack.create_topic(topic)
    source = new_source()
    with Delivery(stack, topic, check_interval=CHECK, store_timeout=0.5) as made:
        processor = made.make("processor", retention_events=10, constants={"processor.processor._PRUNE": 0.2})
        made.launch(processor)
        gateway = made.start("gateway")
        async with publish_to(made) as publish:
            past = await publish(source, 60)
            async with hearing(gateway.ws, source) as ear:
                now = ear.cursor
            await settled(gateway, source, 10)
            for gone in (past[0], past[30], past[48]):
                assert await refused(gateway, source, at(now, gone.offset), publish) == "retention"
            places = await publish(source, 30)
            await settled(gateway, source, 10)
            answer = (
                await curl(f"{gateway.url}/events?source={source}&since={at(now, past[0].offset)}")
            ).json
            assert (answer["events"], answer["recovered"], answer["reason"]) == ([], False, "retention")
            async with hearing(gateway.ws, source, since=at(now, places[-3].offset)) as ear:
                assert ear.ids() == ids(places[-2:])
            # `earliest` is what is kept.
            async with hearing(gateway.ws, source, since="earliest") as ear:
                assert next(ear.of("subscribed"))["recovered"] is True
                assert ear.ids() == ids(places[-10:])
            # The store is behind, and Kafka's own retention was faster.
            processor.kill()
            behind = await publish(source, 20)
            known = at(now, places[-3].offset)
            async with hearing(gateway.ws, source, since=known) as ear:
                assert ear.ids() == ids(places[-2:] + behind)
            admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
            await admin.start()
            target = TopicPartition(topic, behind[0].partition)
            await admin.delete_records({target: RecordsToDelete(before_offset=behind[10].offset)})
            await admin.close()
            async with hearing(gateway.ws, source, since=known) as ear:
                (told,) = ear.of("subscribed")
                assert (told["recovered"], told["reason"]) == (False, "store_lag")
                assert not ear.ids()


async def settled(gateway: Server, source: str, count: int) -> None:
    """Until the store keeps so many."""

    async def kept() -> int:
        return len((await curl(f"{gateway.url}/events?source={source}&limit=1000")).json["events"])

    await until_so(kept, count)


@pytest.fixture
def publish_to():
    def make(delivery: Delivery) -> Published:
        return Published(
            Settings.load(**{name: delivery.where[name] for name in ("kafka_url", "redis_url", "topic")})
        )

    return make


async def test_what_the_store_does_not_have_yet_comes_from_kafka(plain, small, publish, processor):
    """The processor stands still. Also: many who come at once, amid traffic, are all served."""
    sources = [new_source() for _ in range(4)]
    past = {source: await publish(source, 5) for source in sources}
    cursors = {}
    for source in sources:
        async with hearing(plain.ws, source) as ear:
            cursors[source] = at(ear.cursor, past[source][1].offset)
    await processor.pause()
    for source in sources:
        past[source] += await publish(source, 5)
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            for source in sources:
                past[source] += await publish(source, 1)
            await asyncio.sleep(0.02)

    async def come(source: str) -> tuple[Socket, float]:
        began = time.monotonic()
        ear = await clients.enter_async_context(
            hearing(plain.ws, source, since=cursors[source], open_timeout=30)
        )
        return ear, time.monotonic() - began

    going = asyncio.create_task(go_on())
    async with AsyncExitStack() as clients:
        came = await asyncio.gather(*(come(source) for source in sources for _ in range(5)))
        stop.set()
        await going
        for number, (ear, _) in enumerate(came):
            source = sources[number // 5]
            (told,) = ear.of("subscribed")
            assert told["recovered"] is True, told
            wanted = ids(past[source][2:])
            await ear.hear(len(wanted))
            assert sorted(ear.ids()) == sorted(wanted)
        assert max(seconds for _, seconds in came) < 8
        # A cursor beyond what the store has: nothing is told again.
        (told,) = came[0][0].of("subscribed")
        async with hearing(plain.ws, sources[0], since=told["cursor"]) as ear:
            assert ear.ids() == [p.id for p in past[sources[0]] if p.offset > place_of(told["cursor"])]
        # More than may be read from Kafka for one client: said, not guessed.
        async with hearing(small.ws, sources[0], since=cursors[sources[0]]) as ear:
            (told,) = ear.of("subscribed")
            assert (told["recovered"], told["reason"]) == (False, "store_lag")
            assert not ear.ids()


async def test_without_kafka_and_processor_a_client_is_served_from_the_store_and_misses_nothing(
    plain, stack, publish, processor, source
):
    past = await publish(source, 5)
    async with hearing(plain.ws, source) as ear:
        known = at(ear.cursor, past[0].offset)
    await settled(plain, source, 5)
    await processor.pause()
    past += await publish(source, 5)
    stack.brokers[0].pause()
    began = time.monotonic()
    async with hearing(plain.ws, source, since=known) as ear:
        assert time.monotonic() - began < 12
        stack.brokers[0].resume()
        processor.process.resume()
        past += await publish(source, 5)
        heard = await ear.hear(14)
        assert sorted(heard) == sorted(ids(past[1:]))


async def test_a_broken_store_is_said(delivery, stack, publish, source):
    past = await publish(source, 3)
    broken = delivery.directory / "broken.db"
    await asyncio.sleep(0)
    import sqlite3

    with sqlite3.connect(delivery.where["store"]) as original, sqlite3.connect(broken) as copy:
        original.backup(copy)
    copy.close()
    original.close()
    gateway = await asyncio.to_thread(lambda: delivery.start("gateway", store=broken, store_timeout=0.3))
    async with hearing(gateway.ws, source) as ear:
        known = at(ear.cursor, past[0].offset)
    for path in (broken, broken.with_name("broken.db-wal")):
        if path.exists():
            with path.open("r+b") as file:
                file.write(os.urandom(path.stat().st_size))
    async with hearing(gateway.ws, source, since=known) as ear:
        (told,) = ear.of("subscribed")
        assert (told["recovered"], told["reason"]) == (False, "store_unavailable")
        places = await publish(source, 2)
        assert await ear.hear(2) == ids(places)
    answer = await curl(f"{gateway.url}/events?source={source}")
    assert answer.status == 503
    assert "Retry-After".lower() in answer.headers
    gateway.kill()


# --- What Redis lost is found


async def test_lost_notifications_are_found_by_looking(plain, publish, source):
    async with hearing(plain.ws, source) as ear:
        lost = await publish(source, 3, silent=True)
        heard = await ear.hear(3, timeout=1.5 * CHECK + 3)
        assert heard == ids(lost)
        assert all(event["late"] for event in ear.of("event"))


async def test_a_late_event_promises_no_more_than_was_told_when_it_came(plain, publish, source):
    """Who is cut off between two of them has the second one after resuming."""
    async with hearing(plain.ws, source) as ear:
        lost = await publish(source, 50, silent=True)
        await ear.hear(50, timeout=1.5 * CHECK + 3)
        for number, event in enumerate(ear.of("event")):
            known = [place.offset for place in lost if place.id in ear.ids()[: number + 1]]
            unknown = [place.offset for place in lost if place.offset not in known]
            assert place_of(event["cursor"]) < min(unknown, default=10**9), event


async def test_a_hole_in_a_publishers_numbers_is_looked_into_at_once(servers, stack, publish, source):
    async with hearing(servers.patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        lost = await publish(source, 4, silent=True)
        for number, place in ((1, lost[0]), (4, lost[3])):
            note = {
                "id": place.id,
                "type": "push",
                "source_id": source[5:],
                "pos": place.pos,
                "pub": f"n:{number}",
            }
            await redis.publish(f"events:{source}", json.dumps(note))
        assert sorted(await ear.hear(4, timeout=5)) == sorted(ids(lost))
        assert [e["id"] for e in ear.of("event") if "late" in e] == ids(lost[1:3])


@pytest.mark.parametrize("everything", [False, True])
async def test_a_publisher_that_skipped_says_so(servers, stack, publish, source, everything):
    async with hearing(servers.patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        lost = await publish(source, 4, silent=True)
        said = {"sources": [], "all": True} if everything else {"sources": [source]}
        await redis.publish("events:_resync", json.dumps(said))
        assert await ear.hear(4, timeout=5) == ids(lost)


async def test_a_repeated_confirmation_is_a_reason_to_look(servers, stack, publish, source):
    async with hearing(servers.patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        lost = await publish(source, 4, silent=True)
        await redis.client_kill_filter(_type="pubsub")
        assert await ear.hear(4, timeout=10) == ids(lost)
        await ear.see("degraded")
        await ear.see("live")


async def test_notifications_that_say_only_that_there_is_something(servers, publish, source, delivery):
    where = {name: delivery.where[name] for name in ("kafka_url", "redis_url", "topic")}
    async with (
        Published(Settings.load(**where, notify_details=False)) as brief,
        hearing(servers.patient.ws, source) as ear,
    ):
        places = await brief(source, 5)
        assert await ear.hear(5, timeout=5) == ids(places)


async def test_without_redis_clients_are_served_from_the_store(delivery, publish, source):
    gateway = await asyncio.to_thread(
        lambda: delivery.start("gateway", redis_url="redis://127.0.0.1:1", check_interval=300)
    )
    past = await publish(source, 3)
    began = time.monotonic()
    async with hearing(gateway.ws, source, since="earliest") as ear:
        assert time.monotonic() - began < 4
        assert "reason" in await ear.see("degraded")
        new = await publish(source, 3)
        assert await ear.hear(6, timeout=5) == ids(past + new)
        assert not list(ear.of("live"))
    ready = await curl(f"{gateway.url}/readyz")
    assert (ready.status, ready.json["redis"]) == (200, "away")
    gateway.kill()


async def test_noise_on_redis_is_ignored(servers, stack, publish, source):
    async with hearing(servers.patient.ws, source) as ear, Redis.from_url(stack.redis_url) as redis:
        channels = (f"events:{source}", "events:_resync")
        good = {"id": "x", "type": "push", "source_id": source[5:]}
        noise: list[bytes | str] = [b"", b"\xff\xfe", b"{", b"[]", b"null", b"[" * 5000, b'{"sources":[1]}']
        noise += [json.dumps(good | {"pos": pos}) for pos in ("x", "1", "1:x", ":", "9:1", "0:" + "9" * 5000)]
        noise += [json.dumps(good | {"pub": pub, "pos": "0:1"}) for pub in ("x", "n:x", "n:" + "9" * 5000)]
        for message in noise:
            for channel in channels:
                await redis.publish(channel, message)
        places = await publish(source, 2)
        await ear.until(lambda: {*ids(places)} <= {*ear.ids()}, timeout=5)


async def test_one_pattern_or_the_shard_channels_serve_as_well(servers, delivery, publish, source, stack):
    sources = [source, new_source(), new_source()]
    async with hearing(servers.pattern.ws, *sources) as ear:
        places = [place for one in sources for place in await publish(one, 5)]
        assert sorted(await ear.hear(15, timeout=5)) == sorted(ids(places))
        assert not any("late" in event for event in ear.of("event"))
        lost = await publish(source, 2, silent=True)
        async with Redis.from_url(stack.redis_url) as redis:
            await redis.publish("events:_resync", json.dumps({"sources": [source]}))
        await ear.until(lambda: {*ids(lost)} <= {*ear.ids()}, timeout=5)
    gateway = await asyncio.to_thread(
        lambda: delivery.start("gateway", check_interval=300, upstream="aggregate", channel_shards=4)
    )
    where = {name: delivery.where[name] for name in ("kafka_url", "redis_url", "topic")}
    settings = Settings.load(**where, channel_policy="shard", channel_shards=4)
    async with Published(settings) as to_shards, hearing(gateway.ws, *sources) as ear:
        places = [place for one in sources for place in await to_shards(one, 5)]
        assert sorted(await ear.hear(15, timeout=5)) == sorted(ids(places))
        assert not any("late" in event for event in ear.of("event"))
        async with streaming(gateway.url, source) as stream:
            await gateway.end()
            assert (await ear.closed())[0] == 1001
            await until(lambda: stream.ended)


# --- GET /events and /events/{id}


async def test_recent_events_are_the_newest_in_order_as_they_are_in_kafka(
    plain, publish, source, stack, delivery
):
    past = await publish(source, 120, size=20)
    await settled(plain, source, 120)
    answer = await curl(f"{plain.url}/events?source={source}")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert [event["id"] for event in answer.json["events"]] == ids(past[-50:])
    assert answer.json["recovered"] is True
    assert place_of(answer.json["cursor"]) >= past[-1].offset
    log = {
        r.offset: r.value
        for r in await read_log(stack.kafka_url, str(delivery.where["topic"]))
        if r.key == source[5:].encode()
    }
    for place in past[-50:]:
        assert log[place.offset] in answer.body
    assert len((await curl(f"{plain.url}/events?source={source}&limit=7")).json["events"]) == 7


async def test_pages_join_without_a_gap_and_their_cursor_begins_a_stream(plain, publish, source):
    past = await publish(source, 55)
    await settled(plain, source, 55)
    seen: list[str] = []
    since, more = "earliest", True
    while more:
        page = (await curl(f"{plain.url}/events?source={source}&since={since}&limit=10")).json
        assert page["recovered"] is True
        seen += [event["id"] for event in page["events"]]
        since, more = page["cursor"], page["more"]
    assert seen == ids(past)
    new = await publish(source, 3)
    async with hearing(plain.ws, source, since=since) as ear:
        assert ear.ids() == ids(new)


async def test_recent_events_of_nobody_and_of_another_log(plain, publish, source):
    page = (await curl(f"{plain.url}/events?source={source}")).json
    assert (page["events"], page["more"], page["recovered"]) == ([], False, True)
    new = await publish(source, 2)
    async with hearing(plain.ws, source, since=page["cursor"]) as ear:
        assert ear.ids() == ids(new)
        now = ear.cursor
    stranger = "0123456789ab" + now[12:]
    page = (await curl(f"{plain.url}/events?source={source}&since={stranger}")).json
    assert (page["events"], page["recovered"], page["reason"]) == ([], False, "epoch_changed")
    # Of a place that the store has not reached: nothing yet, and never a step back.
    page = (await curl(f"{plain.url}/events?source={source}&since={at(now, 10**6)}")).json
    assert page["events"] == []
    assert page["recovered"] is False or place_of(page["cursor"]) >= 10**6


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=1.5", "limit=" + "9" * 5000, "since=x", "limit="],
)
async def test_a_bad_query_is_named(plain, source, query):
    answer = await curl(f"{plain.url}/events?source={source}&{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer.json["error"]


async def test_a_whole_event_byte_for_byte(plain, publish, source, stack, delivery):
    (place,) = await publish(source, size=100)
    answer = await curl(f"{plain.url}/events/{place.id}?pos={place.pos}")
    assert answer.status == 200
    assert answer.headers["x-position"] == place.pos
    log = await read_log(stack.kafka_url, str(delivery.where["topic"]))
    assert answer.body == next(r.value for r in log if (r.partition, r.offset) == place[1:])
    assert (await curl(f"{plain.url}/events/{place.id}")).body == answer.body


async def test_a_whole_event_is_waited_for(plain, publish, source, processor):
    await processor.pause()
    (place,) = await publish(source)
    began = time.monotonic()
    asked = asyncio.create_task(curl(f"{plain.url}/events/{place.id}?pos={place.pos}"))
    late = await curl(f"{plain.url}/events/{place.id}")
    assert (late.status, "retry-after" in late.headers) == (404, False)
    await asyncio.sleep(0.5)
    assert not asked.done()
    processor.process.resume()
    assert (await asked).status == 200
    await processor.pause()
    (place,) = await publish(source)
    began = time.monotonic()
    answer = await curl(f"{plain.url}/events/{place.id}?pos={place.pos}")
    assert answer.status == 404
    assert "retry-after" in answer.headers
    assert 1.5 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    "pos", ["x", "1", "1:", ":1", "1:x", "-1:2", "1:-2", "9" * 5000 + ":1", "1:" + "9" * 30]
)
async def test_a_bad_place_is_named(plain, pos):
    answer = await curl(f"{plain.url}/events/some-id?pos={pos}")
    assert answer.status == 400
    assert "pos" in answer.json["error"]


@pytest.mark.parametrize("name", ["nothing", "%00", "%ff", "a%2Fb", "%F0%9F%98%80", "x" * 4000])
async def test_an_event_that_is_not_there(plain, name):
    answer = await curl(f"{plain.url}/events/{name}")
    assert answer.status == 404
    assert "retry-after" not in answer.headers


async def test_what_watches_a_gateway_is_answered(plain, publish, source):
    assert (await curl(f"{plain.url}/healthz")).status == 200
    ready = await curl(f"{plain.url}/readyz")
    assert (ready.status, ready.json) == (200, {"ready": True, "redis": "up", "kafka": "up", "store": "up"})
    async with hearing(plain.ws, source) as ear:
        await publish(source)
        await ear.hear(1)
        text = (await curl(f"{plain.url}/metrics")).body.decode()
    assert "messaging_client_sent_messages_total{" in text
    assert "dualstream_clients 1.0" in text
    assert (await curl(f"{plain.url}/openapi.json")).json["openapi"].startswith("3.")
    assert (await curl(f"{plain.url}/")).headers["content-type"].startswith("text/html")
    missing = await curl(f"{plain.url}/nothing")
    assert missing.status == 404


async def test_ready_says_what_is_missing(plain, stack):
    stack.brokers[0].pause()
    ready = await curl(f"{plain.url}/readyz")
    assert (ready.status, ready.json["ready"], ready.json["store"]) == (503, False, "up")
    assert ready.json["kafka"] != "up"
    stack.brokers[0].resume()


# --- Bad names

ILLEGAL = [
    "*",
    "repo:*",
    "_resync",
    "events:_resync",
    "repo:_resync",
    "repo:_shard1",
    "",
    ":",
    "repo",
    "repo:",
    ":o/x",
    "Repo:o/x",
    "re po:o/x",
    "repo:" + "x" * 300,
    "x" * 300 + ":o/x",
    "repo:" + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 129,
    "repo:a b",
    "repo:a\nb",
    "repo:a\x00b",
    "repo:a\x7fb",
    "repo:a?b",
    "repo:a\\b",
    "repo:a*",
    "repo:e\N{COMBINING ACUTE ACCENT}",
    "repo:\N{RIGHT-TO-LEFT OVERRIDE}x",
    "repo:\N{NO-BREAK SPACE}",
]


async def test_illegal_sources_are_refused_everywhere(plain, publish):
    async with undisturbed(plain, publish):
        async with hearing(plain.ws) as ear:
            for number, name in enumerate(ILLEGAL[:18], 1):
                await ear.say(subscribe=name)
                said = await ear.see("error", count=number)
                assert said.get("source", "") == name
                assert "source" in said["error"]
            source = new_source()
            await ear.say(subscribe=source)
            await ear.see("subscribed", source)
            (place,) = await publish(source)
            assert await ear.hear(1) == [place.id]
        for name in ILLEGAL:
            async with hearing(plain.ws, name, wait=False) as ear:
                code, reason = await ear.closed()
                assert (code, bool(reason)) == (4400, True), name
                assert not list(ear.of("subscribed"))
            for path in ("/sse", "/events"):
                answer = await curl(f"{plain.url}{path}?source={escaped(name)}")
                assert answer.status == 400, (path, name)
                assert "source" in answer.json["error"]
        for path in ("/sse", "/events"):
            assert (await curl(f"{plain.url}{path}")).status == 400


async def test_a_client_that_only_makes_mistakes_is_closed(plain, publish):
    async with undisturbed(plain, publish), hearing(plain.ws) as ear:
        for _ in range(100):
            await ear.say(subscribe="*")
        code, _ = await ear.closed()
        assert code == 4400


CURSORS = [
    "x",
    "1:2",
    "a:b:c",
    "0123456789ab:0:",
    "0123456789ab:0:1:2",
    "0123456789ab:-1:1",
    "0123456789ab:0:-2",
    "0123456789ab:0:1.5",
    "0123456789ab:0:" + "9" * 40,
    "0123456789ab:0:٣",
    "0123456789ab:0:1\n",
    "Latest",
    "\x00",
    "9" * 3000,
]


async def test_malformed_cursors_are_refused_everywhere(plain, publish, source):
    async with undisturbed(plain, publish):
        async with hearing(plain.ws) as ear:
            for number, cursor in enumerate(CURSORS, 1):
                await ear.say(subscribe=source, since=cursor)
                assert "since" in (await ear.see("error", source, count=number))["error"]
            await ear.say(subscribe=source)
            await ear.see("subscribed", source)
        for cursor in CURSORS:
            async with hearing(plain.ws, source, since=cursor, wait=False) as ear:
                code, reason = await ear.closed()
                assert (code, bool(reason)) == (4400, True), cursor
            for path in ("/sse", "/events"):
                url = f"{plain.url}{path}?source={source}&since={escaped(cursor)}"
                assert (await curl(url)).status == 400
        for last in ("x", "a,b", ",", "x" * 3000):
            header = ("-H", f"Last-Event-ID: {last}")
            assert (await curl(f"{plain.url}/sse?source={source}", *header)).status == 400


# --- Bad messages


@pytest.mark.parametrize(
    "message",
    [
        "",
        "x",
        "null",
        "[]",
        "{}",
        '{"subscribe":1}',
        '{"subscribe":null}',
        '{"subscribe":"repo:o/x","unsubscribe":"repo:o/x"}',
        '{"subscribe":"repo:o/x","sinse":"latest"}',
        '{"since":"latest"}',
        '{"publish":"repo:o/x"}',
        "[" * 60_000,
        '{"subscribe":' * 4000,
        '{"subscribe":"repo:o/x"} trailing',
        '{"subscribe":"repo:\\ud800"}',
        '{"unsubscribe":"\\ud800"}',
        '{"subscribe":"repo:o/x","since":"\\udfff"}',
    ],
    ids=lambda text: text[:40],
)
async def test_what_is_no_command_is_told_and_closed(plain, publish, message):
    async with undisturbed(plain, publish), hearing(plain.ws) as ear:
        await ear.socket.send(message)
        code, reason = await ear.closed()
        assert (code, bool(reason)) == (4400, True)


async def test_too_long_and_binary_messages_are_told_and_closed(plain, small, publish, source):
    async with undisturbed(plain, publish):
        for server, limit in ((plain, 65_536), (small, 1024)):
            async with hearing(server.ws) as ear:
                await ear.socket.send(json.dumps({"unsubscribe": source}).ljust(limit - 50))
                await ear.see("error", source)
                await ear.socket.send("x" * (limit + 1))
                assert (await ear.closed())[0] == 1009
            async with hearing(server.ws) as ear:  # in pieces, none of them too long
                await ear.socket.send("x" * (limit // 4 + 1) for _ in range(4))
                assert (await ear.closed())[0] == 1009
            async with hearing(server.ws) as ear:
                await ear.socket.send(os.urandom(300))
                assert (await ear.closed())[0] == 1003


async def raw(server: Server, *data: bytes, timeout: float = 5, patience: float = 0.0) -> bytes:
    """What comes back until the server ends the connection. AssertionError if it does not."""
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        for piece in data:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(patience)
        async with asyncio.timeout(timeout):
            return await reader.read()
    except ConnectionError:
        return b""
    except TimeoutError:
        raise AssertionError(f"still open after {data!r:.80}") from None
    finally:
        writer.transport.abort()


UPGRADE = (
    b"GET /ws?source=repo:o/x HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_garbage_instead_of_http_is_refused(plain, publish):
    async with undisturbed(plain, publish):
        noise = [
            os.urandom(2000) + b"\r\n\r\n",
            b"\x00" * 100 + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),  # TLS
            b"GET\r\n\r\n",
            b"GET /ws HTTP/9.9\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
            b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /ws HTTP/1.1\r\n" + b"".join(b"X%d: x\r\n" % n for n in range(100_000)) + b"\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\n*\r\n",
        ]
        for garbage in noise:
            answer = await raw(plain, garbage)
            assert answer[:12] in {b"HTTP/1.1 400", b"HTTP/1.0 400", b""}, garbage[:50]
        broken = [
            UPGRADE.replace(b"Version: 13", b"Version: 99"),
            UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
            UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        ]
        for handshake in broken:
            answer = await raw(plain, handshake.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert answer[:10] == b"HTTP/1.1 4", handshake


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        b"\x81\x85abcd" + b"\xff" * 5,  # a text that is not UTF-8 once unmasked
        b"\x83\x80abcd",  # no such opcode
        b"\xc1\x80abcd",  # a reserved bit
        b"\x80\x80abcd",  # goes on with nothing
        b"\x89\xfe\x00\xffabcd" + b"x" * 255,  # a ping that is too long
        b"\x81\xff" + struct.pack(">Q", 2**62) + b"abcd",  # four exabytes, it says
        b"\x88\x81abcdx",  # a close with half a code
        bytes(range(256)) * 40,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda data: data[:6].hex(),
)
async def test_garbage_in_a_websocket_ends_it(plain, publish, garbage):
    async with undisturbed(plain, publish):
        answer = await raw(plain, UPGRADE, garbage, patience=0.05)
        assert answer.startswith(b"HTTP/1.1 101")
        # Its last words are a close frame with a reason why.
        frames = answer.partition(b"\r\n\r\n")[2]
        assert b"\x88" in frames
        code = int.from_bytes(frames[frames.rindex(b"\x88") + 2 :][:2])
        assert code in {1002, 1003, 1007, 1009, 4400}


async def test_a_client_that_answers_no_ping_is_gone(plain, publish):
    """`_HEARTBEAT` is 2 s there and not 15, so that this takes 3 s and not 22.5."""
    async with undisturbed(plain, publish):
        began = time.monotonic()
        # One that answers stays, however quiet it is.
        async with hearing(plain.ws) as ear:
            answer = await raw(plain, UPGRADE, timeout=8)
            assert 2 < time.monotonic() - began < 6
            assert b"\x89\x00" in answer
            await asyncio.sleep(1)
            assert not ear.ended


async def test_a_client_that_begins_and_says_nothing_is_gone(plain, publish):
    """Of an HTTP request that never ends. `_IDLE` is 3 s there and not 60."""
    async with undisturbed(plain, publish):
        beginnings = (
            b"",
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        await asyncio.gather(*(raw(plain, beginning, timeout=8) for beginning in beginnings))


async def test_many_commands_in_a_burst_disturb_nobody(plain, publish):
    async with undisturbed(plain, publish), hearing(plain.ws) as ear:
        sources = [new_source() for _ in range(50)]
        for _ in range(10):
            for source in sources:
                await ear.say(subscribe=source)
            for source in sources:
                await ear.say(unsubscribe=source)
        await ear.until(lambda: sum(1 for _ in ear.of("unsubscribed")) == 500)
        after = len(ear.messages)
        for source in sources:
            await ear.say(subscribe=source)
        await ear.until(lambda: sum(m["kind"] == "subscribed" for m in ear.messages[after:]) == 50)
        sent = [place for source in sources for place in await publish(source)]
        await ear.until(lambda: {*ids(sent)} <= {*ear.ids()})
        assert len(ear.ids()) == 50


# --- Tokens


def token(key: Any = SECRET, *, algorithm: str = "HS256", life: float = 60, **claims: Any) -> str:
    content = {"exp": time.time() + life, "read": ["repo:o/*"], "write": []} | claims
    return jwt.encode({name: value for name, value in content.items() if value is not None}, key, algorithm)


def bearer(text: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {text}"}}


async def test_a_token_is_taken_by_header_first_message_or_query(guarded, publish, source):
    good = token()
    async with (
        hearing(guarded.ws, source, **bearer(good)) as by_header,
        hearing(guarded.ws, source, wait=False) as by_message,
        hearing(f"{guarded.ws}?access_token={good}&source={source}") as by_query,
    ):
        await by_message.say(token=good)
        for ear in (by_message, by_query):
            await ear.see("subscribed", source)
        (place,) = await publish(source)
        for ear in (by_header, by_message, by_query):
            assert await ear.hear(1) == [place.id]
    async with streaming(guarded.url, source, options=("-H", f"Authorization: bearer {good}")) as stream:
        (place,) = await publish(source)
        assert await stream.hear(1) == [place.id]
    await until_status(f"{guarded.url}/events/{place.id}?pos={place.pos}&access_token={good}", 200)
    assert (await curl(f"{guarded.url}/events?source={source}&access_token={good}")).status == 200


async def until_status(url: str, status: int) -> None:
    answer = await curl(url)
    assert answer.status == status, answer


def bad_tokens() -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec

    head, body, signature = token().split(".")
    stronger = jwt.utils.base64url_encode(json.dumps({"exp": 9e9, "read": ["*"]}).encode()).decode()
    other = ec.generate_private_key(ec.SECP256R1())
    return {
        "expired": token(life=-1),
        "no exp": token(exp=None),
        "exp is no number": token(exp="tomorrow"),
        "alg none": token(None, algorithm="none"),
        "another secret": token("another-secret-that-is-long-enough-too"),
        "another algorithm": token(algorithm="HS512"),
        "a public key's": token(other, algorithm="ES256"),
        "other claims": f"{head}.{stronger}.{signature}",
        "no signature": f"{head}.{body}.",
        "not yet": token(nbf=time.time() + 3600),
        "read is no list": token(read="*"),
        "read holds no texts": token(read=[1]),
        "not a token": "x",
        "dots": "..",
        "long": "x" * 5000,
    }


async def test_bad_tokens_are_refused_everywhere(guarded, publish, source):
    async with undisturbed(guarded, publish, **bearer(token())):
        for name, text in bad_tokens().items():
            with pytest.raises(InvalidStatus) as refusal:
                await connect(f"{guarded.ws}?source={source}", proxy=None, **bearer(text))
            assert refusal.value.response.status_code == 401, name
            async with hearing(guarded.ws, source, wait=False) as ear:
                await ear.say(token=text)
                code, reason = await ear.closed()
                assert (code, bool(reason)) == (4401, True), name
                assert ear.messages == []
            for path in (f"/sse?source={source}", f"/events?source={source}", "/events/x", "/metrics"):
                answer = await curl(guarded.url + path, "-H", f"Authorization: Bearer {text}")
                assert answer.status == 401, (name, path)
                assert "www-authenticate" in answer.headers
                assert "error" in answer.json
        # Bytes that are not even text.
        for header in (b"Authorization: Bearer \xff\xfe", b"Authorization: \xff", b"Authorization: Bearer"):
            request = b"GET /events?source=repo:o/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header
            assert (await raw(guarded, request + b"\r\n\r\n"))[9:12] == b"401", header
        answer = await curl(f"{guarded.url}/events?source={source}&access_token=%ff%fe")
        assert answer.status == 401


async def test_without_a_token_nothing_is_heard_and_the_time_is_limited(guarded, publish, source):
    async with undisturbed(guarded, publish, **bearer(token())):
        for path in (f"/sse?source={source}", f"/events?source={source}", "/events/x", "/metrics"):
            assert (await curl(guarded.url + path)).status == 401, path
        began = time.monotonic()
        async with hearing(guarded.ws, source, wait=False) as ear:
            code, reason = await ear.closed()
            assert (code, bool(reason)) == (4401, True)
            assert 0.6 < time.monotonic() - began < 3
            assert ear.messages == []
        for first in ('{"subscribe":"repo:o/x"}', "x", b"\x00\x01", '{"token":""}', '{"token":"\\ud800"}'):
            async with hearing(guarded.ws, source, wait=False) as ear:
                await ear.socket.send(first)
                assert (await ear.closed())[0] == 4401
                assert ear.messages == []


async def test_a_token_for_other_sources_is_of_no_use(guarded, publish, source):
    other = token(read=["repo:other/*", f"{source}x", "rep"])
    (place,) = await publish(source)
    async with undisturbed(guarded, publish, **bearer(token())):
        async with hearing(guarded.ws, source, wait=False, **bearer(other)) as ear:
            assert (await ear.closed())[0] == 4403
            assert not ear.messages
        async with hearing(guarded.ws, "repo:other/x", **bearer(other)) as ear:
            await ear.say(subscribe=source)
            assert (await ear.closed())[0] == 4403
        header = ("-H", f"Authorization: Bearer {other}")
        for path in ("/sse", "/events"):
            assert (await curl(f"{guarded.url}{path}?source={source}", *header)).status == 403
            assert (
                await curl(f"{guarded.url}/sse?source=repo:other/x&source={source}", *header)
            ).status == 403
        # Not even that it exists.
        there = await curl(f"{guarded.url}/events/{place.id}?pos={place.pos}", *header)
        missing = await curl(f"{guarded.url}/events/{uuid4()}?pos={place.pos}", *header)
        assert (
            (there.status, set(there.headers))
            == (missing.status, set(missing.headers))
            == (404, set(missing.headers))
        )
    async with hearing(guarded.ws, wait=False, **bearer(token(read=[]))) as ear:
        await ear.say(subscribe=source)
        assert (await ear.closed())[0] == 4403


async def test_expiry_ends_what_is_open(guarded, publish, source):
    short = token(life=2)
    async with (
        undisturbed(guarded, publish, **bearer(token())),
        hearing(guarded.ws, source, **bearer(short)) as ear,
        streaming(guarded.url, source, options=("-H", f"Authorization: Bearer {short}")) as stream,
    ):
        began = time.monotonic()
        code, reason = await ear.closed(timeout=5)
        assert (code, bool(reason)) == (4401, True)
        await until(lambda: stream.ended, timeout=5)
        assert time.monotonic() - began < 3
        (place,) = await publish(source)
        assert place.id not in ear.ids() + stream.ids()


def test_keys_and_algorithms_cannot_be_mixed(tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    def access(**values: object) -> Access:
        return Access(ServeSettings.load(kafka_url="127.0.0.1:1", **values))

    private = {
        "RS256": rsa.generate_private_key(65_537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    for algorithm, key in private.items():
        pem = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        path = tmp_path / f"{algorithm}.pem"
        path.write_bytes(pem)
        checks = access(jwt_public_key=path)
        assert checks.grant(token(key, algorithm=algorithm)).may_read("repo:o/x")
        # The public key is no secret: whoever knows it must not be able to sign with it.
        body = token("x" * 32).split(".")[1]
        head = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}').decode()
        import hashlib
        import hmac

        signed = hmac.digest(pem, f"{head}.{body}".encode(), hashlib.sha256)
        forged = f"{head}.{body}.{jwt.utils.base64url_encode(signed).decode()}"
        others = [token(other, algorithm=name) for name, other in private.items() if name != algorithm]
        for bad in (forged, token(None, algorithm="none"), token(), *others):
            with pytest.raises(Denied):
                checks.grant(bad)
    for bad_settings in (
        {"jwt_secret": "short"},
        {"jwt_public_key": tmp_path / "nothing.pem"},
        {"jwt_public_key": __file__},
        {"jwt_secret": SECRET, "jwt_public_key": tmp_path / "RS256.pem"},
    ):
        with pytest.raises(ConfigError, match="jwt_"):
            access(**bad_settings)


# --- Pages, names and addresses


async def test_pages_of_strangers_may_not_connect(plain, guarded, publish, source):
    host = plain.url.partition("//")[2]
    async with undisturbed(plain, publish):
        for origin in (
            "https://evil.example",
            "null",
            f"http://{host}.evil.example",
            "http://127.0.0.1:1",
            "x",
            "",
        ):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(plain.ws, additional_headers={"Origin": origin}, proxy=None)
            assert refusal.value.response.status_code == 403, origin
            for path in ("/sse", "/events"):
                answer = await curl(f"{plain.url}{path}?source={source}", "-H", f"Origin: {origin or ';'}")
                assert answer.status == 403 or not origin
                assert "access-control-allow-origin" not in answer.headers
        async with hearing(plain.ws, source, additional_headers={"Origin": f"http://{host}"}):
            pass
    header = {"Origin": "https://friend.example", "Authorization": f"Bearer {token()}"}
    async with hearing(guarded.ws, source, additional_headers=header):
        pass
    arguments = [word for name, value in header.items() for word in ("-H", f"{name}: {value}")]
    answer = await curl(f"{guarded.url}/events?source={source}", *arguments)
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    preflight = ("-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET")
    answer = await curl(
        f"{guarded.url}/events?source={source}", *preflight, "-H", "Origin: https://friend.example"
    )
    assert answer.status in {200, 204}
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    answer = await curl(
        f"{guarded.url}/events?source={source}", *preflight, "-H", "Origin: https://evil.example"
    )
    assert answer.status == 403


async def test_a_page_that_gave_itself_our_address_may_not_connect(plain, guarded, source):
    """DNS rebinding: the browser believes that evil.example is at 127.0.0.1, and sends no foreign origin."""
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "",
    ):
        for path in (f"/events?source={source}", f"/sse?source={source}", "/", "/metrics"):
            answer = await curl(plain.url + path, "-H", f"Host: {host}" if host else "Host;")
            assert answer.status in {400, 403}, (host, path)
    port = plain.address[1]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:80", "localhost", "127.0.0.1"):
        assert (await curl(f"{plain.url}/events?source={source}", "-H", f"Host: {host}")).status == 200, host
    # With tokens a page of a stranger has none, and the server may have any name.
    header = ("-H", "Host: gateway.example", "-H", f"Authorization: Bearer {token()}")
    assert (await curl(f"{guarded.url}/events?source={source}", *header)).status == 200


async def test_it_listens_to_the_world_with_tokens_only(tmp_path):
    async def serve(listen: str) -> None:
        program = command(
            "serve", "--listen", listen, kafka_url="127.0.0.1:1", redis_url="redis://127.0.0.1:1"
        )
        process = await asyncio.create_subprocess_exec(
            *program, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode == 2, out
        assert b"listen" in out
        assert b"JWT_SECRET" in out

    addresses = ["0.0.0.0:0", "[::]:0", "gateway.example:80"]
    await asyncio.gather(*map(serve, addresses))
    for listen in addresses:
        assert Access(ServeSettings.load(kafka_url="127.0.0.1:1", listen=listen, jwt_secret=SECRET)).required


# --- Limits


async def test_no_more_sources_than_allowed(small, publish):
    sources = [new_source() for _ in range(4)]
    async with undisturbed(small, publish):
        async with hearing(small.ws, *sources[:3]) as ear:
            await ear.say(unsubscribe=sources[0])
            await ear.say(subscribe=sources[3])
            await ear.see("subscribed", sources[3])
            await ear.say(subscribe=sources[0])
            code, reason = await ear.closed()
            assert (code, bool(reason)) == (4429, True)
        async with hearing(small.ws, *sources, wait=False) as ear:
            assert (await ear.closed())[0] == 4429
        query = "&".join(f"source={source}" for source in sources)
        answer = await curl(f"{small.url}/sse?{query}")
        assert 400 <= answer.status < 500
        assert "3" in answer.json["error"]


async def test_no_more_connections_than_allowed(small, publish, source):
    async with undisturbed(small, publish), AsyncExitStack() as clients:
        ears = [await clients.enter_async_context(hearing(small.ws, source)) for _ in range(4)]
        async with streaming(small.url, source):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(small.ws, proxy=None)
            assert refusal.value.response.status_code in {429, 503}
            answer = await curl(f"{small.url}/sse?source={source}")
            assert answer.status in {429, 503}
            assert "retry-after" in answer.headers
            assert (await curl(f"{small.url}/events?source={source}")).status == 200
            ears[0].drop()
            await until(lambda: ears[0].ended)
            for _ in range(50):
                try:
                    await clients.enter_async_context(hearing(small.ws, source))
                    break
                except InvalidStatus:
                    await asyncio.sleep(0.05)
            else:
                pytest.fail("its place is not free after it left")


# --- Slow clients


def small_socket(server: Server) -> socket.socket:
    """Connected, with next to no room for what it does not read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(server.address)
    return made


@pytest.mark.parametrize("way", ["ws", "sse"])
async def test_who_does_not_read_is_closed_and_resumes_and_slows_nobody(plain, publish, source, way):
    """Ten of them, at 1 MiB each (the default) and the kernel's share."""
    request = UPGRADE if way == "ws" else b"GET /sse?source=repo:o/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    slow = [small_socket(plain) for _ in range(10)]
    began = plain.memory
    gone = (await metrics(plain))["dualstream_slow_clients_total"] + len(slow)
    async with undisturbed(plain, publish), hearing(plain.ws, source) as quick, AsyncExitStack() as sockets:
        cursor = quick.cursor
        for one in slow:
            sockets.callback(one.close)
            one.sendall(request.replace(b"repo:o/x", source.encode()))
        await until_clients(plain, 12)
        sent, longest = await flood(plain, publish, source, quick, gone)
        codes = await asyncio.gather(*(asyncio.to_thread(rest_of, one) for one in slow))
        assert longest < 5
        assert plain.memory - began < len(slow) * 3 * 2**20 + 40 * 2**20
        # Whoever reads again at once is told; the others were broken off.
        assert set(codes) <= {4408, None} if way == "ws" else set(codes) == {None}
        assert 4408 in codes or way == "sse"
        await until_clients(plain, 2)
        for known in (place_of(cursor), sent[-5000].offset):
            after = [place.id for place in sent if place.offset > known]
            assert (await pages(plain, source, at(cursor, known), len(after))) == after
        recent = sent[-9001:]  # 10,000 may be caught up
        async with hearing(plain.ws, source, since=at(cursor, recent[0].offset)) as back:
            assert back.ids() == ids(recent[1:])


async def flood(
    server: Server, publish: Published, source: str, quick: Socket, gone: float
) -> tuple[list[Place], float]:
    """Until so many slow clients were closed: what was published, and how long a quick one waited at most."""
    sent: list[Place] = []
    longest = 0.0
    async with asyncio.timeout(60):
        while (await metrics(server))["dualstream_slow_clients_total"] < gone:
            for _ in range(4):
                began = time.monotonic()
                sent += await publish(source, 500)
                await quick.hear(len(sent))
                longest = max(longest, time.monotonic() - began)
    assert sorted(quick.ids()) == sorted(ids(sent))
    return sent, longest


async def pages(server: Server, source: str, since: str, count: int) -> list[str]:
    """The ids of so many events after a cursor."""
    found: list[str] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            page = (await curl(f"{server.url}/events?source={source}&since={since}&limit=1000")).json
            found += [event["id"] for event in page["events"]]
            since = page["cursor"]
    return found[:count]


def rest_of(one: socket.socket) -> int | None:
    """The close code at the end of a stream; None when it was broken off."""
    one.settimeout(10)
    data = b""
    try:
        while piece := one.recv(2**20):
            data += piece
    except ConnectionError:
        return None
    frames = data.partition(b"\r\n\r\n")[2]
    code = None
    while len(frames) >= 2:
        size, start = frames[1], 2
        if size == 126:
            size, start = int.from_bytes(frames[2:4]), 4
        body = frames[start : start + size]
        if frames[0] == 0x88:
            code = int.from_bytes(body[:2])
        frames = frames[start + size :]
    return code


async def metrics(server: Server) -> dict[str, float]:
    text = (await curl(f"{server.url}/metrics")).body.decode()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


async def until_clients(server: Server, count: int) -> None:
    async def clients() -> float:
        return (await metrics(server))["dualstream_clients"]

    await until_so(clients, count)


async def test_the_past_does_not_fill_the_memory_for_who_does_not_read(plain, publish):
    """Eight sources, each with much to catch up with, for ten clients that never read a word of it."""
    sources = [new_source() for _ in range(8)]
    for source in sources:
        places = await publish(source, 4000)
    await until_status(f"{plain.url}/events/{places[-1].id}?pos={places[-1].pos}", 200)
    query = "&".join(f"source={source}" for source in sources).encode()
    request = UPGRADE.replace(b"source=repo:o/x", query + b"&since=earliest")
    began = plain.memory
    slow = [small_socket(plain) for _ in range(10)]
    try:
        async with undisturbed(plain, publish):
            for one in slow:
                one.sendall(request)
            most = 0
            for _ in range(20):
                await asyncio.sleep(0.1)
                most = max(most, plain.memory - began)
        # All of it would be 14 MB for each client: the limit, and one source's past, may wait.
        assert most < 60 * 2**20, f"{most / 2**20:.0f} MiB"
    finally:
        for one in slow:
            one.close()
