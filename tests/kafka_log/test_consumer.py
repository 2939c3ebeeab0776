"""The adapter of aiokafka's consumer: what is in the log, each partition by itself, and nothing skipped."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka.errors import CorruptRecordException

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import Records, open_consumer, read_range
from dualstream_lab.kafka_log import consumer as consumer_module
from dualstream_lab.kafka_log import trouble as trouble_module
from dualstream_lab.record import Decoder

from .hostile import (
    COMPACTED,
    DAMAGES,
    PARTITIONS,
    Writer,
    damaged,
    delete_records,
    event,
    grow,
    stable_ends,
    write_compacted,
    write_hostile,
)


@pytest.fixture
def quick(monkeypatch):
    """What is in trouble is tried again soon."""
    monkeypatch.setattr(trouble_module, "_PAUSES", (0.1, 0.2))
    monkeypatch.setattr(consumer_module, "_ATTEND", 0.1)


async def poll(consumer, **how):
    return await consumer.poll(Records, timeout=0.2, **how)


async def read_to(consumer, ends):
    """Everything up to the ends, as (partition, record), and the holes."""
    found, holes = [], []
    async with asyncio.timeout(60):
        while any(consumer.positions[p] < end for p, end in ends.items()):
            for part in await poll(consumer):
                found += [(part.partition, record) for record in part.records]
                holes += [(part.partition, *hole) for hole in part.holes]
    return found, holes


def check(opinions, found):
    """What was read is what was written: the same records, the same opinion of each."""
    decode = Decoder()
    read = sorted(found, key=lambda pair: (pair[0], pair[1].offset))
    assert [(p, record.offset) for p, record in read] == [(o.partition, o.offset) for o in opinions]
    for (partition, record), opinion in zip(read, opinions, strict=True):
        decoded = decode(partition, record)
        if isinstance(decoded, str):
            assert opinion.reason
            assert opinion.reason in decoded
        else:
            assert (decoded.source, decoded.id) == (opinion.source, opinion.id)


def offsets(found, partition):
    return [record.offset for p, record in found if p == partition]


async def test_all_codecs_are_read_what_was_aborted_is_not_and_no_hole_is_seen(stack, four, settings):
    topic = four()
    writer = await write_hostile(stack.kafka_url, topic)
    ends = await stable_ends(stack.kafka_url, topic)
    async with open_consumer(settings(topic=topic)) as consumer:
        consumer.assign(dict.fromkeys(range(PARTITIONS), 0))
        found, holes = await read_to(consumer, ends)
        assert consumer.positions == ends == await consumer.ends(ends), "also past the markers"
        assert (holes, consumer.errors, dict(consumer.troubles), consumer.held()) == ([], 0, {}, {})
    check(writer.sorted(), found)


async def test_an_open_transaction_holds_its_partition_back_and_no_other(stack, four, settings):
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with (
        open_consumer(settings(topic=topic)) as consumer,
        writer.producer(transactional_id=topic, transaction_timeout_ms=60_000) as open_one,
        writer.producer() as producer,
    ):
        consumer.assign(dict.fromkeys(range(PARTITIONS), 0))
        await writer.send(producer, event(1), partition=0)
        await open_one.begin_transaction()
        await writer.send(open_one, event(2), partition=0)
        for number in range(3, 6):
            await writer.send(producer, event(number), partition=0)
            await writer.send(producer, event(number), partition=1)
        found, _ = await read_to(consumer, {0: 1, 1: 3})
        assert (await consumer.ends([0]))[0] == 1
        assert not await poll(consumer)
        assert consumer.held() == {0: 4}
        await open_one.commit_transaction()
        more, holes = await read_to(consumer, {0: 6})
        assert holes == []
    check(writer.sorted(), found + more)


async def reads(consumer, condition, *, timeout=20):
    """Poll until then; what came."""
    found = []
    async with asyncio.timeout(timeout):
        while not condition():
            for part in await poll(consumer):
                found += [(part.partition, record) for record in part.records]
    return found


@pytest.mark.parametrize("kind", DAMAGES)
async def test_what_cannot_be_decoded_stops_its_partition_alone(stack, four, settings, quick, caplog, kind):
    """The others are read, no position moves over it, it is tried again, and it goes on by itself."""
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer:
        for partition in (0, 1):
            for first in (1, 4, 7):
                items = [event(number) for number in range(first, first + 3)]
                await writer.send_batch(producer, items, partition)
    good = 5 if kind == "record" else 3
    async with open_consumer(settings(topic=topic)) as consumer:
        with damaged(stack, topic, 0, 3, kind):
            consumer.assign(dict.fromkeys(range(PARTITIONS), 0))
            found = await reads(consumer, lambda: consumer.errors >= 3)
            assert offsets(found, 1) == list(range(9))
            assert offsets(found, 0) == list(range(good))
            assert consumer.positions == {0: good, 1: 9, 2: 0, 3: 0}
            (trouble,) = consumer.troubles.values()
            assert (trouble.offset, trouble.removed, trouble.silent) == (good, False, False)
            assert DAMAGES[kind][1] in trouble.reason
            assert sum("cannot be read at offset" in record.message for record in caplog.records) == 1
            with pytest.raises(StreamUnavailable, match=f"partition 0 cannot be read at {good}: .*"):
                await read_range(settings(topic=topic), 0, 0, 9, limit=100)
        found += await reads(consumer, lambda: consumer.positions[0] == 9)
        assert not consumer.troubles
    check(writer.sorted(), found)


async def test_a_partition_in_trouble_and_a_paused_one_stay_so_while_partitions_are_added(
    stack, four, settings, quick
):
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer, open_consumer(settings(topic=topic)) as consumer:
        for partition in range(3):
            await writer.send_batch(producer, [event(1)], partition)
        with damaged(stack, topic, 0, 0, "checksum"):
            consumer.assign({0: 0, 1: 0, 2: 0})
            consumer.pause(2)
            await reads(consumer, lambda: consumer.errors and consumer.positions[1] == 1)
            await grow(stack.kafka_url, topic, 6)
            async with writer.producer() as fresh:
                await writer.send_batch(fresh, [event(2)], 5)
            consumer.add({5: 0})
            errors = consumer.errors
            found = await reads(consumer, lambda: consumer.errors > errors and consumer.positions[5] == 1)
            assert {partition for partition, _ in found} == {5}
            assert consumer.positions == {0: 0, 1: 1, 2: 0, 5: 1}
        await reads(consumer, lambda: consumer.positions[0] == 1)
        assert consumer.positions[2] == 0


async def test_what_the_log_has_not_any_more_or_not_yet_is_said_and_not_skipped(stack, four, settings, quick):
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer, open_consumer(settings(topic=topic)) as consumer:
        for partition in (0, 1):
            await writer.send_batch(producer, [event(n) for n in range(10)], partition)
        await delete_records(stack.kafka_url, topic, {0: 5})
        consumer.assign({0: 0, 1: 12})
        await reads(consumer, lambda: len(consumer.troubles) == 2)
        assert all(trouble.removed for trouble in consumer.troubles.values())
        assert consumer.positions == {0: 0, 1: 12}
        assert await consumer.begins([0, 1]) == {0: 5, 1: 0}
        with pytest.raises(StreamUnavailable, match="the log does not have it"):
            await read_range(settings(topic=topic), 0, 2, 10, limit=100)
        assert [r.offset for r in await read_range(settings(topic=topic), 0, 5, 8, limit=100)] == [5, 6, 7]
        await writer.send_batch(producer, [event(n) for n in range(4)], 1)
        assert offsets(await reads(consumer, lambda: consumer.positions[1] == 14), 1) == [12, 13]
        assert set(consumer.troubles) == {0}


async def test_it_recovers_where_nothing_follows(stack, four, settings, quick):
    """What is tried again and answered with nothing is no trouble any more."""
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer, open_consumer(settings(topic=topic)) as consumer:
        consumer.assign({0: 3})
        await reads(consumer, lambda: consumer.troubles)
        await writer.send_batch(producer, [event(n) for n in range(3)], 0)
        assert await reads(consumer, lambda: not consumer.troubles) == []


async def test_what_was_fetched_for_another_position_does_not_count(stack, four, settings):
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer, open_consumer(settings(topic=topic)) as consumer:
        await writer.send_batch(producer, [event(n) for n in range(3)], 0)
        for beyond in ({0: 7}, {1: 7}):
            consumer.assign(beyond)
            async with asyncio.timeout(20):
                while not consumer._consumer._fetcher._records:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            consumer.assign({0: 0})
            assert offsets(await reads(consumer, lambda: consumer.positions[0] == 3), 0) == [0, 1, 2]
            assert (consumer.errors, dict(consumer.troubles)) == (0, {})


async def test_a_compacted_topic_has_holes(stack, four, settings):
    topic = four(**COMPACTED)
    _, end = await write_compacted(stack.kafka_url, topic)
    async with open_consumer(settings(topic=topic)) as consumer:
        consumer.assign({0: 0})
        found, holes = await read_to(consumer, {0: end})
    missing = {offset for _, first, end in holes for offset in range(first, end)}
    assert len(missing) > 10
    assert sorted([*missing, *offsets(found, 0)]) == list(range(end))
    with pytest.raises(StreamUnavailable, match="was compacted"):
        await read_range(settings(topic=topic), 0, 0, end, limit=1000)


async def test_a_consumer_that_has_died_says_so(stack, four, settings):
    async with open_consumer(settings(topic=four())) as consumer:
        consumer.assign({0: 0})
        consumer._consumer._fetcher._fetch_task.cancel()
        with pytest.raises(StreamUnavailable, match="has died"):
            await reads(consumer, lambda: False)


def test_pauses_stay_bounded_however_often_it_is_tried():
    troubles = trouble_module.Troubles("events")
    for _ in range(3000):
        troubles.fail(3, 7, CorruptRecordException("no"))
    assert troubles.now[3].retry_at - time.monotonic() <= 30
