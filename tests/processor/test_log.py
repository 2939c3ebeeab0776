"""A log that changes under a processor, or cannot be read in part, and a store that is full."""

from __future__ import annotations

import asyncio
import threading
import time

import msgspec
import pytest

from dualstream_lab.errors import StoreError
from dualstream_lab.event import Event, encode_event
from dualstream_lab.kafka_log import consumer as consumer_module
from dualstream_lab.kafka_log import partition_of
from dualstream_lab.kafka_log import trouble as trouble_module
from dualstream_lab.processor import Processor, pipeline, processor
from tests.kafka_log.hostile import (
    COMPACTED,
    damaged,
    event,
    grow,
    make_anew,
    mute,
    scatter,
    write_compacted,
)
from tests.publisher.helpers import read_log

from .helpers import (
    PARTITIONS,
    by_source,
    ends,
    events,
    positions_of,
    producer,
    reached,
    running,
    stored,
    write,
)


async def becomes(condition, *, timeout=30):
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_partitions_that_are_added_are_read_from_their_beginning(stack, topic, serving, store):
    made = events(300)
    where = serving(refresh_interval=0.5)
    async with running(where, store) as runner:
        await write(stack.kafka_url, topic, made[:100])
        await reached(store, await ends(stack.kafka_url, topic))
        await grow(stack.kafka_url, topic, 9)
        grown = time.monotonic()
        await write(stack.kafka_url, topic, made[100:])
        goal = await ends(stack.kafka_url, topic, 9)
        assert any(goal[partition] for partition in (6, 7, 8)), "some are there"
        await reached(store, goal)
        assert time.monotonic() - grown < 10
        assert (runner.stats().partitions, runner.stats().applied) == (9, 300)
    assert {source: sorted(ids) for source, ids in (await stored(store)).items()} == by_source(made)


async def run_until_it_fails(runner, match):
    with pytest.raises(StoreError, match=match):
        async with asyncio.timeout(30):
            await runner.run()


REBUILD = r"dualstream serve --rebuild-store"


async def test_a_topic_made_anew_under_it_is_noticed_before_anything_of_it_is_applied(
    stack, topic, serving, store
):
    await write(stack.kafka_url, topic, events(30))
    async with Processor(serving(refresh_interval=0.2), store) as runner:
        running = asyncio.create_task(run_until_it_fails(runner, REBUILD))
        await reached(store, await ends(stack.kafka_url, topic))
        await make_anew(stack, topic)
        await write(stack.kafka_url, topic, events(600, start=1000))
        await running
        assert "another one" in runner.stats().troubles["store"]
    assert await stored(store) == by_source(events(30))
    (feeder,) = await store.feeders()
    # Its partitions' troubles may be there or not: the new topic was empty for a moment.
    assert feeder.partitions == []
    assert "another one" in feeder.troubles["store"]


async def test_a_topic_made_anew_while_it_slept_is_noticed_too(stack, topic, serving, store):
    """Its whole process stands still meanwhile; its positions are in the new topic as well."""

    class Sleeps:
        async def handle(self, events):
            if any(event.id == "n000007" for event in events):
                threading.Thread(target=asyncio.run, args=[self.meanwhile()]).start()
                while not self.over:
                    time.sleep(0.05)  # noqa: ASYNC251  (as if it were stopped)

        over = False

        async def meanwhile(self):
            await make_anew(stack, topic)
            await write(stack.kafka_url, topic, events(600, start=1000))
            self.over = True

    await write(stack.kafka_url, topic, events(30))
    async with Processor(serving(refresh_interval=0.1), store, [Sleeps()]) as runner:
        await run_until_it_fails(runner, REBUILD)
    assert not set(map(str, by_source(events(600, start=1000)))) & {
        event_id for ids in (await stored(store)).values() for event_id in ids
    }
    assert sum(map(len, (await stored(store)).values())) <= 30


async def test_a_batch_that_cannot_be_decoded_is_the_trouble_of_its_partition_alone(
    stack, topic, serving, store, monkeypatch
):
    monkeypatch.setattr(trouble_module, "_PAUSES", (0.1, 0.2))
    monkeypatch.setattr(processor, "_REPORT", 0.1)
    made = events(200)
    await write(stack.kafka_url, topic, made[:100])
    (bad,) = await write(stack.kafka_url, topic, [made[100]])
    await write(stack.kafka_url, topic, made[101:])
    goal = await ends(stack.kafka_url, topic)
    settings = serving()
    async with running(settings, store) as runner:
        with damaged(stack, topic, bad.partition, bad.offset, "checksum"):
            await reached(store, goal | {bad.partition: bad.offset})
            await becomes(lambda: runner.stats().errors > 2)
            async with asyncio.timeout(30):
                while not (feeder := (await store.feeders())[0]).troubles:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # it reports now and then
            assert (feeder.group, feeder.partitions) == (settings.group, list(range(PARTITIONS)))
            ((what, reason),) = feeder.troubles.items()
            assert what == f"partition {bad.partition}"
            assert f"cannot be read at offset {bad.offset}: " in reason
            assert "wrong CRC" in reason
            assert runner.stats().troubles == feeder.troubles
        await reached(store, goal)
        await becomes(lambda: not runner.stats().troubles)
    assert await stored(store) == by_source(made)


async def test_a_store_that_is_full_is_waited_for_and_letters_are_written_once(
    stack, topic, serving, store, caplog
):
    """SQLite itself says that there is no room: its file may not grow."""

    def limit(pages):
        return store._threads["writing"].ask(
            lambda writer: writer._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        )

    settings = serving()
    made = events(3000)
    async with running(settings, store) as runner:
        await limit(1)  # as many as it has
        async with producer(stack.kafka_url) as kafka:
            await kafka.send_and_wait(topic, b"no event", key=b"k")
        await write(stack.kafka_url, topic, made)
        await becomes(lambda: "store" in runner.stats().troubles)
        assert "has no room left" in runner.stats().troubles["store"]
        await asyncio.sleep(3)
        assert runner.stats().applied < 3000
        await limit(10**9)
        await reached(store, await ends(stack.kafka_url, topic))
        await becomes(lambda: not runner.stats().troubles)
        assert (runner.stats().applied, runner.stats().poison) == (3000, 1)
    assert await stored(store) == by_source(made)
    assert len(await read_log(stack.kafka_url, settings.dead_letters)) == 1
    assert caplog.text.count("the processor waits for store") == 1, "said once"


async def test_a_kafka_that_is_silent_is_said_and_waited_for(stack, topic, serving, store, monkeypatch):
    monkeypatch.setattr(consumer_module, "_ATTEND", 0.2)
    async with running(serving(request_timeout=0.5, refresh_interval=60), store) as runner:
        await write(stack.kafka_url, topic, events(100))
        await reached(store, await ends(stack.kafka_url, topic))
        assert not runner.stats().troubles
        await mute(stack.brokers[0])
        await becomes(lambda: set(runner.stats().troubles) == {"kafka"})
        stack.brokers[0].resume()
        await becomes(lambda: not runner.stats().troubles)
        await write(stack.kafka_url, topic, events(100, start=100))
        await reached(store, await ends(stack.kafka_url, topic))


async def test_an_open_transaction_is_counted_and_holds_no_other_partition(stack, topic, serving, store):
    async with (
        running(serving(), store) as runner,
        producer(stack.kafka_url, transactional_id=topic) as kafka,
    ):
        await kafka.begin_transaction()
        await kafka.send_and_wait(topic, encode_event(event(1, "o/tx")), key=b"o/tx", partition=0)
        async with producer(stack.kafka_url) as other:
            for partition in (0, 1):
                await other.send_and_wait(
                    topic,
                    encode_event(event(2, f"o/{partition}")),
                    key=b"o/%d" % partition,
                    partition=partition,
                )
        await becomes(lambda: runner.stats().held == 2)
        goal = dict.fromkeys(range(PARTITIONS), 0) | {1: 1}
        await reached(store, goal)
        assert not await store.find("e1")
        assert not await store.find("e2", source="repo:o/0")
        await kafka.abort_transaction()
        await becomes(lambda: runner.stats().held == 0)
        await reached(store, await ends(stack.kafka_url, topic))
    assert not await store.find("e1"), "it did not happen"
    assert await store.find("e2", source="repo:o/0")


async def test_what_compaction_removed_is_a_hole_and_is_warned_of(stack, topic, serving, store, caplog):
    compacted = f"{topic}-compacted"
    stack.create_topic(compacted, partitions=1, settings=COMPACTED)
    _, end = await write_compacted(stack.kafka_url, compacted)
    async with running(serving(topic=compacted), store) as runner:
        await reached(store, {0: end})
        stats = runner.stats()
    assert stats.holes > 10
    assert stats.holes + stats.applied == end
    place = (await store.places())[0]
    assert (place.reason, place.floor) == ("compaction", place.hole)
    assert "cleanup.policy has 'compact'" in caplog.text


async def test_the_same_id_of_two_sources_is_two_events_and_anothers_key_is_a_dead_letter(
    stack, topic, serving, store
):
    one, two = (Event(id="1", type="t", source_type="repo", source_id=name, data=name) for name in ("a", "b"))
    settings = serving()
    async with producer(stack.kafka_url) as kafka:
        for item in (one, two):
            await kafka.send_and_wait(topic, encode_event(item), key=item.source_id.encode())
        forged = await kafka.send_and_wait(topic, encode_event(two), key=b"a")
        unkeyed = Event(id="2", type="t", source_type="repo", source_id="a")
        await kafka.send_and_wait(topic, encode_event(unkeyed))
    async with running(settings, store) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        assert (runner.stats().applied, runner.stats().duplicates, runner.stats().poison) == (3, 0, 1)
    found = await store.find("1")
    assert {(e.source, msgspec.json.decode(e.value)["data"]) for e in found} == {
        ("repo:a", "a"), ("repo:b", "b"),
    }  # fmt: skip
    (letter,) = await read_log(stack.kafka_url, settings.dead_letters)
    headers = dict(letter.headers)
    assert headers["dead_letter_offset"] == b"%d" % forged.offset
    assert b"key b'a' is not its source_id 'b'" in headers["dead_letter_reason"]


async def test_what_ends_is_reported_as_having_no_partitions(stack, topic, serving, store):
    async with running(serving(), store) as runner:
        await becomes(lambda: runner.stats().partitions == PARTITIONS)
    (feeder,) = await store.feeders()
    assert (feeder.partitions, feeder.troubles) == ([], {})
    assert await positions_of(store) == dict.fromkeys(range(PARTITIONS), 0)


async def test_a_broker_that_is_away_at_the_start_stops_its_partitions_alone(
    cluster, serving, store, monkeypatch
):
    monkeypatch.setattr(pipeline, "_UNREAD", 1.0)
    topic = await scatter(cluster.kafka_url)
    dead = await scatter(cluster.kafka_url)
    key = next(
        b"%d" % n for n in range(99) if partition_of(f":{n}", 3) == 1
    )  # of a letter to where nobody is
    async with producer(cluster.kafka_url) as kafka:
        for partition in range(3):
            item = event(partition)
            await kafka.send_and_wait(topic, b"no event", key=key, partition=partition)
            await kafka.send_and_wait(topic, encode_event(item), key=b"o/r", partition=partition)
    await mute(cluster.brokers[1])
    where = serving(
        kafka_url=cluster.kafka_url, topic=topic, dead_letter_topic=dead, request_timeout=1, start_timeout=30
    )
    async with running(where, store) as runner:
        await reached(store, {0: 2, 2: 2})
        assert set(runner.stats().troubles) == {"partition 1"}
        assert not await store.find("e1")
        cluster.brokers[1].resume()
        await reached(store, dict.fromkeys(range(3), 2))
        await becomes(lambda: not runner.stats().troubles)
        assert runner.stats().poison == 3
