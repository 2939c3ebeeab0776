"""Processors killed, fenced, joined and left, and Kafka gone for a while: every event is there once."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.processor import Processor
from dualstream_lab.store import SqliteStore
from tests.publisher.helpers import until

from .helpers import PARTITIONS, by_source, ends, events, positions_of, reached, running, stored, write

RUN = """
import asyncio, sys
from dualstream_lab.config import ServeSettings
from dualstream_lab.kafka_log import group
from dualstream_lab.processor import Processor, pipeline
from dualstream_lab.store import SqliteStore

pipeline._MAX_RECORDS = 50
group._SESSION = 3.0

class Slow:
    async def handle(self, events):
        await asyncio.sleep(0.005)

async def main():
    settings = ServeSettings.load()
    store = await SqliteStore.open(settings.store)
    async with Processor(settings, store, [Slow()]) as processor:
        task = asyncio.create_task(processor.run())
        while True:
            await asyncio.sleep(0.01)
            print(processor.stats().applied, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def in_a_process(settings):
    """A slow processor in a process of its own; gives a function that waits until it has applied so many."""
    values = settings.model_dump(include={"kafka_url", "topic", "group", "store"})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, stdout=asyncio.subprocess.PIPE,
        env={f"DUALSTREAM_{name.upper()}": str(value) for name, value in values.items()},
    )  # fmt: skip

    async def applied(count):
        async with asyncio.timeout(60):
            while int(await process.stdout.readline()) < count:
                pass

    try:
        yield applied
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_killed_in_mid_stream_and_started_again_each_event_is_there_once(stack, topic, serving):
    made = events(5000)
    await write(stack.kafka_url, topic, made)
    goal = await ends(stack.kafka_url, topic)
    settings = serving()
    async with in_a_process(settings) as applied:
        await applied(500)
    store = await SqliteStore.open(settings.store)
    half = await stored(store)
    kept = sum(map(len, half.values()))
    assert 500 <= kept < 5000, "it was killed in mid-stream"
    assert sum((await positions_of(store)).values()) == kept, "the positions are those of the rows"
    async with running(settings, store) as runner:
        await reached(store, goal)
        assert (runner.stats().applied, runner.stats().duplicates) == (5000 - kept, 0)
    assert await stored(store) == by_source(made)
    await store.close()


async def test_a_reader_sees_what_another_process_applies(stack, topic, serving):
    settings = serving()
    await write(stack.kafka_url, topic, events(500))
    async with in_a_process(settings) as applied:
        await applied(100)
        reader = await SqliteStore.open(settings.store, read_only=True)
        assert sum(map(len, (await stored(reader)).values())) >= 100
        await reached(reader, await ends(stack.kafka_url, topic))
        assert await stored(reader) == by_source(events(500))
    assert await stored(reader) == by_source(events(500)), "also when it is killed"
    await reader.close()


async def test_two_of_a_group_share_the_partitions_and_one_takes_over(stack, topic, serving, store):
    made = events(3000)
    other = await SqliteStore.open(serving().store)
    async with running(serving(), store) as first:
        await write(stack.kafka_url, topic, made[:1000])
        async with running(serving(), other) as second:
            await until(lambda: first.stats().partitions == second.stats().partitions == PARTITIONS // 2)
            await write(stack.kafka_url, topic, made[1000:2000])
            await reached(store, await ends(stack.kafka_url, topic))
            assert second.stats().applied > 0
        await until(lambda: first.stats().partitions == PARTITIONS)
        await write(stack.kafka_url, topic, made[2000:])
        await reached(store, await ends(stack.kafka_url, topic))
        assert first.stats().rebalances == 3
        total = first.stats().applied + second.stats().applied
        assert (total, first.stats().duplicates + second.stats().duplicates) == (3000, 0)
    assert await stored(store) == by_source(made)
    await other.close()


async def test_a_zombie_is_refused_by_the_store_and_goes_on_where_that_is(stack, topic, serving, store):
    """Two groups on one store: each believes that every partition is its own."""
    made = events(40_000)
    other = await SqliteStore.open(serving().store)
    sent = 0
    async with (
        running(serving(), store) as first,
        running(serving(group="group-zombie"), other) as second,
    ):
        while sent < 4000 or (sent < 40_000 and not first.stats().conflicts + second.stats().conflicts):
            await write(stack.kafka_url, topic, made[sent : sent + 200])
            sent += 200
        await reached(store, await ends(stack.kafka_url, topic))
        assert first.stats().conflicts + second.stats().conflicts > 0
        total = first.stats().applied + second.stats().applied
        assert (total, first.stats().duplicates + second.stats().duplicates) == (sent, 0)
    assert await stored(store) == by_source(made[:sent])
    await other.close()


async def test_kafka_killed_and_started_again_it_goes_on_by_itself(stack, topic, serving, store):
    made = events(1500)
    where = serving(request_timeout=1, start_timeout=2)
    loop = asyncio.get_running_loop()
    other = await SqliteStore.open(where.store.with_name("other.db"))
    async with running(where, store) as runner:
        async with running(serving(request_timeout=1, group=f"{where.group}-2"), other):
            await write(stack.kafka_url, topic, made[:500])
            await reached(store, await ends(stack.kafka_url, topic))
            await reached(other, await ends(stack.kafka_url, topic))
            stack.brokers[0].kill()
            started = loop.time()
        assert loop.time() - started < 30, "ending one while Kafka is dead is bounded"
        with pytest.raises(StreamUnavailable, match=r"127\.0\.0\.1"):
            await Processor(where, other).start()
        await loop.run_in_executor(None, stack.brokers[0].start)
        await write(stack.kafka_url, topic, made[500:])
        await reached(store, await ends(stack.kafka_url, topic))
        assert runner.stats().applied == 1500
    assert await stored(store) == by_source(made)
    await other.close()


async def test_poison_waits_for_kafka_and_nothing_passes_it(stack, topic, serving, store):
    """The dead-letter topic's broker is frozen when the letter is due: the position stays before it."""
    frozen = asyncio.Event()

    class Refuses:
        async def handle(self, events):
            if any(event.id == "n000003" for event in events):
                if not frozen.is_set():
                    stack.brokers[0].pause()
                    frozen.set()
                raise ValueError("never")

    made = events(20)
    await write(stack.kafka_url, topic, made)
    goal = await ends(stack.kafka_url, topic)
    async with running(serving(request_timeout=0.5), store, [Refuses()]) as runner:
        await asyncio.wait_for(frozen.wait(), 60)
        await asyncio.sleep(2)
        assert await positions_of(store) != goal
        assert runner.stats().poison == 0
        stack.brokers[0].resume()
        await reached(store, goal)
        assert (runner.stats().poison, runner.stats().applied) == (1, 19)


async def test_a_consumer_whose_fetcher_dies_is_replaced(stack, topic, serving, store):
    """aiokafka never says so: such a consumer is silent for ever."""
    async with running(serving(), store) as runner:
        await until(lambda: runner.stats().partitions == PARTITIONS)
        runner._pipeline.consumer._consumer._fetcher._fetch_task.cancel()
        await write(stack.kafka_url, topic, events(50))
        await reached(store, await ends(stack.kafka_url, topic))


async def test_two_runs_of_one_processor(stack, topic, serving, store):
    async with Processor(serving(), store) as runner:
        for turn in range(2):
            task = asyncio.create_task(runner.run())
            await write(stack.kafka_url, topic, events(100, start=100 * turn))
            await reached(store, await ends(stack.kafka_url, topic))
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
    assert await stored(store) == by_source(events(200))
