"""The reader of a run's topic, on real brokers: all of all partitions, or it says what is missing."""

from __future__ import annotations

import asyncio
import re

import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.event import decode_event
from dualstream_lab.kafka_log import topic_info
from dualstream_lab.kafka_log import trouble as trouble_module
from dualstream_lab.load.log_reader import LogReader, open_log_reader
from dualstream_lab.tasks import beside, end_tasks
from tests.kafka_log.hostile import Writer, damaged, event, grow, make_anew


class Taken:
    """The ids that were read, by partition."""

    def __init__(self) -> None:
        self.ids: dict[int, list[str]] = {}

    def __call__(self, part, now) -> None:
        ids = [decode_event(record.value).id for record in part.records]
        self.ids.setdefault(part.partition, []).extend(ids)


async def while_reading(reader: LogReader, work) -> None:
    reading = asyncio.create_task(reader.run())
    try:
        await beside([reading], work)
    finally:
        await end_tasks([reading])


@pytest.mark.parametrize("running", [True, False])
async def test_partitions_that_are_added_are_read_from_their_beginning(running, settings, stack, topic):
    """Also those that were added a moment before the end, which no look at the topic has seen."""
    taken, writer = Taken(), Writer(stack.kafka_url, topic)
    async with (
        open_log_reader(settings(refresh_interval=0.2), taken) as reader,
        writer.producer(metadata_max_age_ms=100) as producer,
    ):

        async def work() -> None:
            await writer.send(producer, event(1), partition=0)
            await grow(stack.kafka_url, topic, 7)
            await producer.client.force_metadata_update()
            await writer.send(producer, event(2), partition=6)
            while running and 6 not in taken.ids:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        await (while_reading(reader, work()) if running else work())
        await grow(stack.kafka_url, topic, 8)
        await producer.client.force_metadata_update()
        await writer.send(producer, event(3), partition=7)
        assert await reader.finish(20) == []
    assert taken.ids == {0: ["e1"], 6: ["e2"], 7: ["e3"]}


async def test_what_was_there_before_and_what_was_aborted_is_not_read(settings, stack, topic):
    taken, writer = Taken(), Writer(stack.kafka_url, topic)
    async with writer.producer() as producer:
        await writer.send(producer, event(0), partition=0)
        async with open_log_reader(settings(), taken) as reader:
            await writer.transaction([event(1), event(2)], commit=False)
            await writer.transaction([event(3)], commit=True)
            await writer.send(producer, event(4), partition=0)
            assert await reader.finish(20) == []
    assert taken.ids == {0: ["e3", "e4"]}


async def test_an_event_behind_an_open_transaction_is_waited_for_and_then_said(settings, stack, topic):
    taken, writer = Taken(), Writer(stack.kafka_url, topic)
    async with (
        open_log_reader(settings(), taken) as reader,
        writer.producer(transactional_id=topic) as transactional,
        writer.producer() as producer,
    ):
        await transactional.begin_transaction()
        await writer.send(transactional, event(1), partition=0)
        await writer.send(producer, event(2), partition=0)
        await writer.send(producer, event(3), partition=1)
        (held,) = await reader.finish(1)
        assert held == "an open transaction holds back 2 messages of partition 0"
        assert taken.ids == {1: ["e3"]}
        ending = asyncio.create_task(reader.finish(20))
        await asyncio.sleep(0.2)
        assert not ending.done()
        await transactional.abort_transaction()
        assert await ending == []
    assert taken.ids == {0: ["e2"], 1: ["e3"]}


async def test_a_partition_that_cannot_be_read_stops_no_other_and_is_said(
    settings, stack, topic, monkeypatch
):
    monkeypatch.setattr(trouble_module, "_PAUSES", (0.1, 0.2))
    taken, writer = Taken(), Writer(stack.kafka_url, topic)
    async with open_log_reader(settings(), taken) as reader, writer.producer() as producer:
        for number in range(4):
            await writer.send(producer, event(number), partition=number % 2)
        async with asyncio.timeout(40):  # it is not tried without end
            with damaged(stack, topic, 0, 1, "checksum"):
                (said,) = await reader.finish(120)
        assert re.match("partition 0 cannot be read at offset 1: .*wrong CRC", said)
        assert taken.ids == {0: ["e0"], 1: ["e1", "e3"]}


async def test_while_it_is_paused_it_reads_nothing_and_then_all(settings, stack, topic):
    taken, writer = Taken(), Writer(stack.kafka_url, topic)
    async with open_log_reader(settings(), taken) as reader, writer.producer() as producer:
        for first in (0, 10):
            reader.pause()
            await asyncio.sleep(0.3)  # a fetch that is under way ends
            for number in range(first, first + 3):
                await writer.send(producer, event(number), partition=number % 2)
            fetcher = reader._consumer._consumer._fetcher
            await asyncio.sleep(0.3)
            assert not fetcher._records
            assert await reader.finish(20) == []
    assert taken.ids == {0: ["e0", "e2", "e10", "e12"], 1: ["e1", "e11"]}


async def test_a_topic_that_is_made_anew_is_another_one(settings, stack, topic):
    taken, writer = Taken(), Writer(stack.kafka_url, topic)
    before = (await topic_info(settings())).log.epoch
    async with open_log_reader(settings(refresh_interval=0.1), taken) as reader:
        async with writer.producer() as producer:
            await writer.send(producer, event(1), partition=0)

        async def work() -> None:
            while 0 not in taken.ids:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await make_anew(stack, topic)
            async with writer.producer() as producer:
                for number in (2, 3, 4):
                    await writer.send(producer, event(number), partition=0)
            await asyncio.sleep(0.5)

        await while_reading(reader, work())
        assert (await topic_info(settings())).log.epoch != before
        assert await reader.finish(20) == [f"topic {topic} was made anew meanwhile"]
    assert taken.ids[0][0] == "e1"


async def test_a_topic_that_is_not_there_is_said_at_once(settings):
    with pytest.raises(ConfigError, match="does not exist"):
        async with open_log_reader(settings(topic="nowhere-at-all"), Taken()):
            pass
