"""Kafka in trouble: every event ends durable, rejected or unknown, and the log agrees."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from dualstream_lab import DualPublisher
from dualstream_lab.publisher import Durable, Rejected, Unknown

from .helpers import Ledger, assert_in_order, events, ids_of, mute, read_log, until


@asynccontextmanager
async def load(publisher: DualPublisher, *, batch: int = 50, every: float = 0.02):
    """Batches at a steady pace until the block ends; yields the ledger. Ends when every call has ended."""
    ledger = Ledger()
    stop = asyncio.Event()
    calls: set[asyncio.Task[None]] = set()

    async def pace() -> None:
        start = 0
        while not stop.is_set():
            calls.add(asyncio.create_task(ledger.publish(publisher, events(batch, start=start))))
            start += batch
            await asyncio.wait([asyncio.ensure_future(stop.wait())], timeout=every)

    pacing = asyncio.create_task(pace())
    await until(lambda: len(ledger.outcomes) >= 10 * batch)
    yield ledger
    stop.set()
    await pacing
    await asyncio.gather(*calls)


async def in_thread(action) -> None:
    await asyncio.get_running_loop().run_in_executor(None, action)


async def durable_again(publisher: DualPublisher, *, timeout: float = 60) -> None:
    """Wait for acknowledgements that are newer than now."""
    before = publisher.stats().durable
    await until(lambda: publisher.stats().durable > before, timeout=timeout)


async def test_a_stop_for_longer_than_a_session_loses_nothing(stack, settings, topic):
    async with DualPublisher(settings()) as publisher:
        async with load(publisher) as ledger:
            await mute(stack.brokers[0])
            await asyncio.sleep(5)  # the broker's session is 4 s
            stack.brokers[0].resume()
            await durable_again(publisher)
        assert len(ledger.of(Durable)) == len(ledger.outcomes)
        log = await read_log(stack.kafka_url, topic)
        assert sorted(ids_of(log)) == sorted(ledger.outcomes)
        assert_in_order(log)


async def test_killed_with_a_long_deadline_all_are_durable_once_and_in_order(stack, settings, topic):
    async with DualPublisher(settings(delivery_timeout=90)) as publisher:
        async with load(publisher) as ledger:
            stack.brokers[0].kill()
            await in_thread(stack.brokers[0].start)
            await durable_again(publisher)
        assert len(ledger.of(Durable)) == len(ledger.outcomes)
        log = await read_log(stack.kafka_url, topic)
        assert sorted(ids_of(log)) == sorted(ledger.outcomes), "none missing, none twice"
        assert_in_order(log)
        assert publisher.stats().producers == 1


async def test_killed_past_the_deadline_every_event_is_accounted_for(stack, settings, topic):
    async with DualPublisher(settings(delivery_timeout=2, buffer_events=10_000)) as publisher:
        async with load(publisher) as ledger:
            stack.brokers[0].kill()
            await until(lambda: ledger.of(Unknown) and ledger.of(Rejected))
            await in_thread(stack.brokers[0].start)
            await durable_again(publisher)
        assert await publisher.flush()
        stats = publisher.stats()
        assert stats.accepted == stats.durable + stats.rejected + stats.unknown
        await ledger.check(publisher, stack.kafka_url, topic)
        assert_in_order(await read_log(stack.kafka_url, topic))
        await publisher.publish_batch(events(10))


@pytest.mark.timeout(240)
async def test_a_killed_leader_of_three_loses_nothing(cluster, settings):
    cluster.create_topic("failover")
    where = settings(
        kafka_url=cluster.kafka_url, redis_url=cluster.redis_url, topic="failover", delivery_timeout=60
    )
    async with DualPublisher(where) as publisher:
        async with load(publisher) as ledger:
            cluster.brokers[0].kill()
            # A third of the partitions has lost its leader: they are acknowledged again when all are.
            await in_thread(cluster.brokers[0].start)
            await durable_again(publisher)
        assert len(ledger.of(Durable)) == len(ledger.outcomes)
        log = await read_log(cluster.kafka_url, "failover")
        assert sorted(ids_of(log)) == sorted(ledger.outcomes), "none missing, none twice"
        assert_in_order(log)


@pytest.mark.timeout(240)
async def test_a_partition_without_a_leader_poisons_its_producer_and_the_publisher_goes_on(cluster, settings):
    """One copy a partition and one broker dead: aiokafka fails the batches of the partitions it led."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.kafka_url)
    await admin.start()
    await admin.create_topics([NewTopic("single-copy", 6, 1, topic_configs={"min.insync.replicas": "1"})])
    await admin.close()
    where = settings(
        kafka_url=cluster.kafka_url,
        redis_url=cluster.redis_url,
        topic="single-copy",
        request_timeout=1.5,
        delivery_timeout=4,
    )
    async with DualPublisher(where) as publisher:
        async with load(publisher, every=0.05) as ledger:
            cluster.brokers[1].kill()
            await until(lambda: publisher.stats().producers > 1, timeout=60)
            await in_thread(cluster.brokers[1].start)
            await durable_again(publisher)
        await publisher.flush()
        assert ledger.of(Unknown)
        log = ids_of(await read_log(cluster.kafka_url, "single-copy"))
        assert len(log) == len(set(log)), "no event is in the log twice"
        assert ledger.of(Durable) <= set(log)
        assert not ledger.of(Rejected) & set(log)
        async with asyncio.timeout(30):
            await publisher.publish_batch(events(60))
