"""The topic changes under a running publisher: partitions are added, it is made anew, it is gone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from itertools import groupby

import msgspec
import pytest
from aiokafka.partitioner import murmur2

from dualstream_lab import DualPublisher, Event
from dualstream_lab.errors import PublishError
from dualstream_lab.event import decode_notification, resync_channel
from dualstream_lab.kafka_log import topic_info
from dualstream_lab.publisher import Durable, Rejected, Unknown

from .helpers import Ledger, events, heard, ids_of, mute, read_log, until
from .kafka_admin import add_partitions, admin, alter_topic, make_anew

SOURCES = 20


def partition_of(event: Event, partitions: int) -> int:
    return (murmur2(event.source_id.encode()) & 0x7FFFFFFF) % partitions


async def test_partitions_that_are_added_under_load_are_used_and_no_source_loses_its_order(
    stack, settings, topic
):
    ledger, sent = Ledger(), 0
    async with DualPublisher(settings(refresh_interval=0.2)) as publisher:
        routes = publisher._encoder._routes
        for partitions in (6, 9, 12, 12):
            if partitions != routes.partitions:
                await add_partitions(stack.kafka_url, topic, partitions)
            async with asyncio.timeout(20):
                while routes.partitions != partitions:
                    await ledger.publish(publisher, events(50, start=sent))
                    sent += 50
            await asyncio.gather(
                *(ledger.publish(publisher, events(50, start=sent + 50 * n)) for n in range(20))
            )
            sent += 1000
        assert publisher.stats().producers == 1
    assert ledger.of(Durable) == set(ledger.outcomes)
    log = await read_log(stack.kafka_url, topic, partitions=12)
    assert len(log) == len(set(ids_of(log))) == sent
    assert {record.partition for record in log} > set(range(6)), "the new ones are used"
    for source, numbers in by_source(log).items():
        # Each in order, and what was published later is not in a partition of before.
        event = Event(type="t", source_type="repo", source_id=source)
        stays = [partition for partition, _ in groupby(partition_of(event, n) for n in (6, 9, 12))]
        assert [partition for partition, _ in groupby(p for _, p in sorted(numbers))] == stays


def by_source(log: list) -> dict[str, list[tuple[int, int]]]:
    """Number and partition of each event; in each partition the numbers rise."""
    numbers = defaultdict(list)
    for record in log:
        numbers[record.key.decode()].append((number_of(record), record.partition))
    for found in numbers.values():
        assert found == sorted(found, key=lambda each: (each[1], each[0]))
    return numbers


def number_of(record: object) -> int:
    return msgspec.json.decode(record.value)["data"]["n"]


class Held:
    """A publisher that hears of its topic's new partitions when the test says so."""

    def __init__(self, publisher: DualPublisher) -> None:
        self.sender = publisher._accumulator.sender
        self.routes = publisher._encoder._routes
        self.told = asyncio.Event()
        self.sends: list[tuple[int, int]] = []
        """Partition, and how many batches were unanswered then."""
        self._send = self.sender._writer.send
        self.sender._writer.send = self.send
        self.sender.topic_info = self.topic_info

    async def topic_info(self) -> object:
        await self.told.wait()
        return self.info

    def send(self, partition: int, batch: object) -> object:
        self.sends.append((partition, len(self.sender.in_flight())))
        return self._send(partition, batch)


@pytest.fixture
async def held(stack, settings, topic):
    """It knows of six partitions, and there are twelve."""

    async def make(publisher: DualPublisher) -> Held:
        made = Held(publisher)
        await add_partitions(stack.kafka_url, topic, 12)
        made.info = await topic_info(settings())
        assert made.info.partitions == 12
        return made

    return make


async def test_events_of_after_a_growth_wait_until_all_of_before_are_acknowledged(
    stack, settings, topic, held
):
    async with DualPublisher(settings(refresh_interval=0.1, delivery_timeout=60)) as publisher:
        await publisher.publish_batch(events(SOURCES))
        growth = await held(publisher)
        await mute(stack.brokers[0])
        before = [
            asyncio.create_task(publisher.publish_batch(events(SOURCES, start=100 * n))) for n in (1, 2)
        ]
        await until(lambda: publisher.stats().accepted == 3 * SOURCES)
        growth.told.set()
        await until(lambda: growth.routes.partitions == 12)
        after = asyncio.create_task(publisher.publish_batch(events(SOURCES, start=300)))
        await until(lambda: publisher.stats().accepted == 4 * SOURCES)
        await asyncio.sleep(0)
        old = {partition for partition, _ in growth.sends}
        assert max(old) < 6, "nothing goes to a new partition yet"
        growth.sends.clear()
        stack.brokers[0].resume()
        await asyncio.gather(*before, after)
        first_new = next(n for n, (partition, _) in enumerate(growth.sends) if partition >= 6)
        assert all(partition < 6 for partition, _ in growth.sends[:first_new])
        assert publisher.stats().durable == 4 * SOURCES
    log = await read_log(stack.kafka_url, topic, partitions=12)
    by_source(log)
    assert all(record.partition < 6 for record in log if number_of(record) < 300)
    assert {record.partition for record in log if number_of(record) >= 300} & set(range(6, 12))


async def test_in_an_outage_calls_of_before_and_after_a_growth_end_by_their_deadlines(
    stack, settings, topic, held
):
    async with DualPublisher(settings(refresh_interval=0.1, delivery_timeout=2)) as publisher:
        await publisher.publish_batch(events(SOURCES))
        growth = await held(publisher)
        await mute(stack.brokers[0])
        ledger = Ledger()
        loop = asyncio.get_running_loop()

        async def timed(start: int) -> float:
            began = loop.time()
            await ledger.publish(publisher, events(SOURCES, start=start))
            return loop.time() - began

        before = asyncio.create_task(timed(100))
        await until(lambda: publisher.stats().accepted == 2 * SOURCES)
        growth.told.set()
        await until(lambda: growth.routes.partitions == 12)
        after = [asyncio.create_task(timed(100 * n)) for n in (2, 3)]
        assert max(await asyncio.gather(before, *after)) < 4
        assert len(ledger.of(Unknown)) >= SOURCES
        assert not ledger.of(Durable)
        stack.brokers[0].resume()
        await until(lambda: not publisher.stats().buffered_events)
        await ledger.publish(publisher, events(SOURCES, start=1000))
        stats = publisher.stats()
        assert stats.accepted == stats.durable + stats.rejected + stats.unknown
    log = ids_of(await read_log(stack.kafka_url, topic, partitions=12))
    assert len(log) == len(set(log))
    assert not ledger.of(Rejected) & set(log)
    assert ledger.of(Durable) <= set(log)


# --- made anew


async def test_a_topic_made_anew_is_noticed_and_announced(stack, settings, topic, caplog):
    async with (
        heard(stack.redis_url) as messages,
        DualPublisher(settings(refresh_interval=0.2)) as publisher,
    ):
        before = (await topic_info(settings())).log.epoch
        await publisher.publish_batch(events(60))
        await publisher.flush()
        queues = publisher._accumulator.sender._queues
        assert any(queue.next_offset > 0 for queue in queues)
        await make_anew(stack.kafka_url, topic)
        after = (await topic_info(settings())).log.epoch
        await until(lambda: any(channel == resync_channel() for channel, _ in messages))
        (announced,) = [json.loads(m) for channel, m in messages if channel == resync_channel()]
        assert announced == {
            "sources": [],
            "all": True,
            "publisher": publisher._encoder._routes.nonce,
            "log": after,
        }
        assert all(queue.next_offset == -1 for queue in queues)
        receipt = await publisher.publish_batch(events(60, start=100))
        assert min(receipt.offsets) == 0, "its offsets begin again"
        await publisher.flush()
        await until(lambda: len(messages) == 121)
        logs = [decode_notification(m).log for channel, m in messages if channel != resync_channel()]
        assert logs == [before] * 60 + [after] * 60
        assert before != after
        assert "was made anew" in caplog.text
        assert publisher.stats().producers == 1
    assert len(await read_log(stack.kafka_url, topic)) == 60


async def test_made_anew_with_fewer_partitions_what_waits_for_those_that_are_gone_is_rejected(
    stack, settings, topic
):
    ledger = Ledger()
    async with DualPublisher(settings(refresh_interval=0.2, request_timeout=1)) as publisher:
        routes = publisher._encoder._routes
        await publisher.publish_batch(events(60))
        await make_anew(stack.kafka_url, topic, partitions=2)
        async with asyncio.timeout(30):
            start = 100
            while routes.partitions != 2:
                await ledger.publish(publisher, events(60, start=start))
                start += 60
        await ledger.publish(publisher, events(60, start=start))
        assert publisher.stats().durable >= 120
        stats = publisher.stats()
        assert stats.accepted == stats.durable + stats.rejected + stats.unknown
        assert {type(outcome) for outcome in list(ledger.outcomes.values())[-60:]} == {Durable}
    log = ids_of(await read_log(stack.kafka_url, topic, partitions=2))
    assert len(log) == len(set(log))
    assert not ledger.of(Rejected) & set(log)


async def test_a_topic_that_is_deleted_is_only_away(stack, settings, topic):
    """Nothing is created in its place; when it is there again, so is the publisher."""
    ledger = Ledger()
    async with DualPublisher(
        settings(refresh_interval=0.2, delivery_timeout=1, request_timeout=1)
    ) as publisher:
        await publisher.publish_batch(events(60))
        async with admin(stack.kafka_url) as client:
            await client.delete_topics([topic])
        await ledger.publish(publisher, events(60))
        while ledger.of(Durable) == set(ledger.outcomes):
            await ledger.publish(publisher, events(60))
        stack.create_topic(topic)
        async with asyncio.timeout(30):
            while True:
                try:
                    await publisher.publish_batch(events(60))
                except PublishError:
                    continue
                break


# --- settings


async def test_a_compacted_topic_is_warned_of_once_by_parts_that_start_together(
    stack, settings, topic, caplog
):
    await alter_topic(stack.kafka_url, topic, cleanup_policy="compact")
    with caplog.at_level(logging.WARNING, "dualstream_lab"):
        async with DualPublisher(settings()) as publisher, DualPublisher(settings()):
            await publisher.publish_batch(events(10))
    assert caplog.text.count("cleanup.policy has 'compact'") == 1
    assert topic in caplog.text
