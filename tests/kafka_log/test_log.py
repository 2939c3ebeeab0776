"""Which log a topic is, how far it goes, whether it changes: asked of brokers, of which one may be gone."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.structs import BrokerMetadata

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.kafka_log import (
    LogEnds,
    LogIdentity,
    LogWatch,
    Records,
    TopicInfo,
    log_identity,
    open_consumer,
)
from dualstream_lab.kafka_log import consumer as consumer_module
from dualstream_lab.kafka_log import topic as topic_module

from .hostile import Writer, event, grow, make_anew, mute, scatter


@asynccontextmanager
async def beside(work):
    """A task for as long."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_growth_is_the_same_log_and_a_topic_made_anew_is_another(stack, four, settings):
    topic = four()
    changes = asyncio.Queue()
    async with open_consumer(settings(topic=topic)) as consumer:
        first = await consumer.identity()
        assert first == await log_identity(settings(topic=topic))
        watch = LogWatch(
            first, interval=0.1, ask=consumer.identity, on_change=lambda *change: changes.put_nowait(change)
        )
        async with beside(watch.run()), asyncio.timeout(30):
            await grow(stack.kafka_url, topic, 6)
            grown = replace(first, partitions=6)
            assert await changes.get() == (first, grown)
            assert grown.is_named(first.epoch)
            assert first.former_epochs() < grown.former_epochs(), "cursors of the format before stay valid"
            await make_anew(stack, topic, partitions=3)
            before, after = await changes.get()
            assert (before, after.partitions) == (grown, 3)
            assert after.epoch != first.epoch
            assert not after.is_named(first.epoch)
            assert watch.identity == after
            assert changes.empty()


async def test_what_was_fetched_leaves_no_cycle_for_the_collector(stack, four, settings):
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with open_consumer(settings(topic=topic)) as consumer, writer.producer() as producer:
        consumer.assign(dict.fromkeys(range(4), 0))
        gc.collect()
        gc.disable()
        try:
            async with asyncio.timeout(60):
                for number in range(50):
                    await writer.send(producer, event(number), partition=number % 4)
                    while sum(consumer.positions.values()) <= number:
                        await consumer.poll(Records)
            left = sum(type(one) is PartitionRecords for one in gc.get_objects())
        finally:
            gc.enable()
    assert left < 10, "aiokafka makes one a fetch"


async def test_a_broker_that_knows_of_fewer_partitions_changes_nothing():
    """As if brokers that are asked in turn knew of the growth one after the other."""
    six = LogIdentity(epoch="a", partitions=6, origin="")
    answers = iter([replace(six, partitions=9), six, replace(six, partitions=9)])
    changes = []

    async def ask():
        return next(answers)

    watch = LogWatch(six, interval=1, ask=ask, on_change=lambda *change: changes.append(change))
    assert [(await watch.look()).partitions for _ in range(3)] == [9, 9, 9]
    assert len(changes) == 1


async def test_a_topic_that_is_gone_and_a_kafka_that_is_silent_are_told_apart(stack, four, settings):
    where = settings(topic="nowhere", request_timeout=1)
    async with open_consumer(where) as consumer:
        with pytest.raises(ConfigError, match="'nowhere' does not exist"):
            await consumer.identity()
        await mute(stack.brokers[0])
        with pytest.raises(StreamUnavailable, match="Kafka does not say of nowhere which log it is"):
            await consumer.identity()


async def test_a_broker_that_is_away_is_the_trouble_of_its_partitions_alone(cluster, settings, monkeypatch):
    monkeypatch.setattr(consumer_module, "_ATTEND", 0.25)
    scattered = await scatter(cluster.kafka_url)
    where = settings(kafka_url=cluster.kafka_url, topic=scattered, request_timeout=2)
    writer = Writer(cluster.kafka_url, scattered)
    async with writer.producer() as producer, open_consumer(where) as consumer:
        for partition in range(3):
            await writer.send_batch(producer, [event(1)], partition)
        ends = LogEnds(where, consumer)
        async with beside(ends.run()), asyncio.timeout(90):
            assert await ends.ends(range(3)) == ({0: 1, 1: 1, 2: 1}, {})
            consumer.assign(dict.fromkeys(range(3), 0))
            while sum(consumer.positions.values()) < 3:
                await consumer.poll(Records)
            await mute(cluster.brokers[1])
            asked = asyncio.create_task(ends.ends([1]))
            await asyncio.sleep(0)
            assert await ends.ends([0, 2]) == ({0: 1, 2: 1}, {})
            assert not asked.done(), "they do not wait for it"
            known, refused = await asked
            assert (known, refused.keys()) == ({}, {1})
            bounds = await consumer.bounds(range(3))
            assert (bounds.begins, bounds.ends) == ({0: 0, 2: 0}, {0: 1, 2: 1})
            assert set(bounds.refused) == {1}
            while not consumer.troubles:
                await consumer.poll(Records)
            assert set(consumer.troubles) == {1}
            assert consumer.troubles[1].silent
            await writer.send_batch(producer, [event(2)], 2)
            while consumer.positions[2] < 2:
                await consumer.poll(Records)
            cluster.brokers[1].resume()
            while consumer.troubles:
                await consumer.poll(Records)
            assert await ends.ends(range(3)) == ({0: 1, 1: 1, 2: 2}, {})


async def test_while_every_broker_is_fenced_the_next_metadata_is_waited_for():
    """A fake: how long a broker is fenced, after it was away for long, is not to be chosen."""

    class Fenced:
        looks = 0
        cluster = property(lambda self: self)

        def brokers(self) -> list[BrokerMetadata]:
            return [BrokerMetadata(1, "127.0.0.1", 1, None)] if self.looks == 2 else []

        async def force_metadata_update(self) -> bool:
            self.looks += 1
            return True

        async def send(self, node: int, request: str) -> tuple[int, str]:
            return node, request

    assert await topic_module.ask_any(Fenced(), "whatever") == (1, "whatever")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, []),
        ({"cleanup.policy": "compact"}, ["cleanup.policy"]),
        ({"cleanup.policy": "compact", "retention.ms": "1", "retention.bytes": "1"}, ["cleanup.policy"]),
        ({"cleanup.policy": "compact,delete", "retention.ms": "59999"}, ["cleanup.policy", "retention.ms"]),
        ({"retention.ms": "59999"}, ["retention.ms"]),
        ({"retention.ms": "60000", "retention.bytes": "250"}, []),
        ({"retention.ms": "-1", "retention.bytes": "-1"}, []),
        ({"retention.bytes": "249"}, ["retention.bytes"]),
    ],
)
def test_settings_that_contradict_what_the_store_keeps_are_named(settings, named):
    log = LogIdentity(epoch="e", partitions=4, origin="o")
    info = TopicInfo(log=log, replicas=1, settings=settings)
    found = info.contradictions(retention_age=60, retention_bytes=1000)
    assert [sentence.replace("=", " ").split()[0] for sentence in found] == named
