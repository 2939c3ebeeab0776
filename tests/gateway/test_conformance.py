"""What holds for any gateway and a Subscriber: the real one on brokers, and the one in memory, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import jwt
import pytest

from dualstream_lab import ConfigError, DualPublisher, Event, StreamGap, Subscriber
from dualstream_lab.config import ServeSettings, Settings
from dualstream_lab.subscriber import Received
from dualstream_lab.testing import MemoryGateway, MemoryPublisher
from tests.gateway.estate import estate
from tests.gateway.published import new_source
from tests.gateway.serving import SECRET

PAST = 20  # events that a connection of these gateways catches up; more are read in pages


class Served(NamedTuple):
    """A gateway, and who publishes to it."""

    url: str
    publisher: Any

    async def publish(self, source: str, count: int = 1) -> list[tuple[str, int, int]]:
        """Id, partition and offset of each event."""
        kind, _, name = source.partition(":")
        batch = [Event(type="push", source_type=kind, source_id=name, data=n) for n in range(count)]
        receipts = await self.publisher.publish_batch(batch)
        return [(one.event_id, one.partition, one.offset) for one in receipts]

    async def get(self, path: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.json()


@pytest.fixture(scope="module")
def real(stack):
    """Processor and gateway in a process of their own."""
    with estate(stack, "conformance", catch_up_events=PAST) as delivery:
        server = delivery.start("processor", "gateway")
        yield server.url, {name: delivery.where[name] for name in ("kafka_url", "redis_url", "topic")}


@asynccontextmanager
async def in_memory(**settings: object) -> AsyncIterator[Served]:
    async with MemoryGateway(settings=ServeSettings.load(catch_up_events=PAST, **settings)) as gateway:
        yield Served(gateway.url, gateway.publisher)


@pytest.fixture(params=["kafka", "memory"])
async def served(request):
    if request.param == "memory":
        async with in_memory() as made:
            yield made
        return
    url, where = request.getfixturevalue("real")
    async with DualPublisher(Settings.load(**where)) as publisher:
        yield Served(url, publisher)


async def received(subscriber: Subscriber, count: int) -> list[Received]:
    async with asyncio.timeout(30):
        return [await anext(subscriber) for _ in range(count)]


def places(events: list[Received]) -> list[tuple[str, int | None, int | None]]:
    return [(one.id, one.partition, one.offset) for one in events]


@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_what_is_published_arrives_whole_and_in_order(served, transport):
    source, other = new_source(), new_source()
    async with Subscriber(served.url, source=source, transport=transport) as subscriber:
        await subscriber.wait_live()
        await served.publish(other, 2)
        sent = await served.publish(source, 5) + await served.publish(source, 5)
        events = await received(subscriber, 10)
    assert places(events) == sent
    assert [one.data for one in events] == [*range(5), *range(5)]
    assert not any(one.old or one.late for one in events)


async def test_the_past_comes_first_and_then_what_is_live(served):
    source = new_source()
    past = await served.publish(source, 5)
    async with Subscriber(served.url, source=source, since="earliest") as subscriber:
        await subscriber.wait_live()
        live = await served.publish(source, 3)
        events = await received(subscriber, 8)
    assert places(events) == past + live
    assert [one.old for one in events] == [True] * 5 + [False] * 3
    assert subscriber.stats.gaps == 0


async def test_the_latest_is_nothing_of_the_past(served):
    source = new_source()
    await served.publish(source, 3)
    async with Subscriber(served.url, source=source) as subscriber:
        await subscriber.wait_live()
        sent = await served.publish(source)
        assert places(await received(subscriber, 1)) == sent


@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_whoever_comes_again_goes_on_at_its_cursors(served, transport):
    sources = [new_source(), new_source()]
    options = {"sources": sources, "transport": transport}
    first = [place for source in sources for place in await served.publish(source, 3)]
    async with Subscriber(served.url, since="earliest", **options) as subscriber:
        assert sorted(places(await received(subscriber, 6))) == sorted(first)
        await subscriber.wait_live()
        live = [place for source in sources for place in await served.publish(source, 1)]
        assert sorted(places(await received(subscriber, 2))) == sorted(live)
    missed = [place for source in sources for place in await served.publish(source, 4)]
    async with Subscriber(served.url, since=subscriber.cursors, **options) as subscriber:
        again: list[tuple[str, int | None, int | None]] = []
        while not {*missed} <= {*again}:
            again += places(await received(subscriber, 1))
    assert len(again) == len({*again})
    assert {*again} <= {*missed, *live}, "at least once: the last few may come again"


async def test_a_long_past_is_read_in_pages(served):
    source = new_source()
    past = await served.publish(source, 5 * PAST)
    async with Subscriber(served.url, source=source, since="earliest") as subscriber:
        events = await received(subscriber, 5 * PAST)
        assert [one.id for one in events] == [event_id for event_id, *_ in past]
    status, page = await served.get(f"/events?source={source}&limit=3")
    assert status == 200
    assert [event["id"] for event in page["events"]] == [event_id for event_id, *_ in past[-3:]]
    status, page = await served.get(f"/events?source={source}&since=earliest&limit=7")
    assert ([event["data"] for event in page["events"]], page["more"]) == ([*range(7)], True)


async def test_an_event_that_was_published_twice_comes_once(served):
    source = new_source()
    kind, _, name = source.partition(":")
    event = Event(type="push", source_type=kind, source_id=name)
    async with Subscriber(served.url, source=source) as subscriber:
        await subscriber.wait_live()
        for each in (event, event):
            await served.publisher.publish(each)
        (last,) = await served.publish(source)
        assert [one.id for one in await received(subscriber, 2)] == [event.id, last[0]]


async def test_a_cursor_of_another_log_is_a_gap(served):
    source = new_source()
    async with in_memory() as other, Subscriber(other.url, source=source) as subscriber:
        await subscriber.wait_live()
        await other.publish(source, 2)
        await received(subscriber, 2)
        cursors = subscriber.cursors
    async with Subscriber(served.url, source=source, since=cursors) as subscriber:
        with pytest.raises(StreamGap) as caught:
            await received(subscriber, 1)
        assert caught.value.gap.reason == "epoch_changed"
        await subscriber.wait_live()
        sent = await served.publish(source)
        assert places(await received(subscriber, 1)) == sent


async def test_it_is_ready(served):
    status, said = await served.get("/readyz")
    assert (status, said) == (
        200,
        {"ready": True, "redis": "up", "kafka": "up", "store": "up", "processor": "up"},
    )


async def test_a_publishers_past_is_the_memorys_and_a_lost_answer_tells_no_more_than_the_log_has():
    async with MemoryPublisher(partitions=3) as publisher:
        served = Served("", publisher)
        past = await served.publish("repo:a", 2)
        async with MemoryGateway(publisher) as gateway:
            publisher.fail_next("unknown", in_log=True)
            publisher.fail_next("unknown")
            for _ in range(2):
                with pytest.raises(Exception, match="may be in the log"):
                    await served.publish("repo:a")
            last = await served.publish("repo:a")
            async with Subscriber(gateway.url, source="repo:a", since="earliest") as subscriber:
                events = await received(subscriber, 4)
        assert [one.id for one in events] == [event.id for event in publisher.events]
        assert (places(events)[:2], places(events)[3:]) == (past, last)
        assert publisher.followers == []


async def test_who_is_disconnected_by_the_memory_comes_again_and_misses_nothing():
    async with MemoryGateway() as gateway:
        served = Served(gateway.url, gateway.publisher)
        async with Subscriber(gateway.url, source="repo:a") as subscriber:
            await subscriber.wait_live()
            await gateway.disconnect()
            sent = await served.publish("repo:a", 3)
            assert places(await received(subscriber, 3)) == sent
            assert subscriber.stats.drops == 1


async def test_the_memory_asks_for_tokens_where_its_settings_do():
    claims = {"exp": 2_000_000_000, "read": ["repo:a"], "write": []}
    token = jwt.encode(claims, SECRET, "HS256")
    async with in_memory(jwt_secret=SECRET) as served:
        async with Subscriber(served.url, source="repo:a", token=token) as subscriber:
            await subscriber.wait_live()
            sent = await served.publish("repo:a")
            assert places(await received(subscriber, 1)) == sent
        with pytest.raises(ConfigError):
            async with aclosing(aiter(Subscriber(served.url, source="repo:b", token=token))) as refused:
                await anext(refused)
