"""Kafka in trouble: every event ends durable, rejected or unknown, and the log agrees."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from dualstream_lab import DualPublisher
from dualstream_lab.errors import OutcomeUnknown, PublishRejected
from dualstream_lab.publisher import Durable, NotInLog, Rejected, StillOpen, Unknown

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


@pytest.fixture
async def single_copies(cluster, settings):
    """Makes settings for a topic of which every partition is on one of three brokers."""
    name = f"single-copy-{uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.kafka_url)
    await admin.start()
    await admin.create_topics([NewTopic(name, 6, 1, topic_configs={"min.insync.replicas": "1"})])
    await admin.close()
    where = {"kafka_url": cluster.kafka_url, "redis_url": cluster.redis_url, "topic": name}
    return lambda **values: settings(**where, request_timeout=1.5, **values)


@pytest.mark.timeout(240)
async def test_a_batch_of_a_dead_leader_poisons_its_producer_and_the_publisher_goes_on(
    cluster, single_copies
):
    """Its leader had it, and died: aiokafka gives it up, and nobody knows."""
    where = single_copies(delivery_timeout=4)
    async with DualPublisher(where) as publisher:
        await publisher.publish_batch(events(60))
        await mute(cluster.brokers[1])
        ledger = Ledger()
        await ledger.publish(publisher, events(60, start=60))
        assert ledger.of(Unknown)
        cluster.brokers[1].kill()
        await until(lambda: publisher.stats().producers > 1, timeout=60)
        await in_thread(cluster.brokers[1].start)
        async with asyncio.timeout(60):
            while True:
                with suppress(PublishRejected, OutcomeUnknown):
                    await publisher.publish_batch(events(60, start=200))
                    break
        await publisher.flush()
        log = ids_of(await read_log(cluster.kafka_url, where.topic))
        assert len(log) == len(set(log)), "no event is in the log twice"
        assert ledger.of(Durable) <= set(log)
        assert not ledger.of(Rejected) & set(log)
        answers = await publisher.resolve(ledger.of(Unknown))
        lost = [answer.reason for answer in answers.values() if isinstance(answer, StillOpen)]
        assert lost
        assert all("can only arrive late" in reason for reason in lost)


@pytest.mark.timeout(240)
async def test_without_a_leader_events_wait_and_no_producer_is_poisoned(cluster, single_copies):
    """Nothing of them ever left the process: with time enough they are durable, else not in the log."""
    where = single_copies(delivery_timeout=180)
    async with (
        DualPublisher(where) as patient,
        DualPublisher(single_copies(delivery_timeout=15)) as hasty,
    ):
        for publisher in (patient, hasty):
            await publisher.publish_batch(events(60))
        cluster.brokers[1].kill()
        batch = events(60, start=60)
        waiting = asyncio.create_task(patient.publish_batch(batch))
        ledger = Ledger()
        await ledger.publish(hasty, events(60, start=120))
        assert ledger.of(Durable), "the other partitions went on"
        assert ledger.of(Durable) < set(ledger.outcomes)
        async with asyncio.timeout(30):
            answers = await hasty.resolve(ledger.of(Unknown))
            while not all(isinstance(answer, NotInLog) for answer in answers.values()):
                answers = await hasty.resolve(ledger.of(Unknown), timeout=0.5)
        assert all("has no leader" in answer.reason for answer in answers.values())
        assert not waiting.done()
        await in_thread(cluster.brokers[1].start)
        await waiting
        assert (patient.stats().producers, hasty.stats().producers) == (1, 1)
        log = ids_of(await read_log(cluster.kafka_url, where.topic))
        assert sum(event.id in log for event in batch) == len(batch)
        assert len(log) == len(set(log))


@pytest.mark.timeout(240)
async def test_with_two_of_three_dead_every_event_is_accounted_for(cluster, settings):
    """READERS 9: nobody says NotEnoughReplicas then, and some of what was not acknowledged is in the log."""
    topic = f"quorum-{uuid4().hex[:8]}"
    cluster.create_topic(topic)
    where = settings(
        kafka_url=cluster.kafka_url, redis_url=cluster.redis_url, topic=topic, delivery_timeout=4,
        buffer_events=10_000, request_timeout=1.5,
    )  # fmt: skip
    async with DualPublisher(where) as publisher:
        async with load(publisher) as ledger:
            for broker in cluster.brokers[1:]:
                broker.kill()
            await until(lambda: ledger.of(Unknown) and ledger.of(Rejected), timeout=60)
            await asyncio.gather(*(in_thread(broker.start) for broker in cluster.brokers[1:]))
            await durable_again(publisher, timeout=90)
        assert await publisher.flush()
        await ledger.check(publisher, cluster.kafka_url, topic)
        assert_in_order(await read_log(cluster.kafka_url, topic))
