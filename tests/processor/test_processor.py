"""From the log through handlers into the store, and what is not an event to the dead letters."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import msgspec
import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError

from dualstream_lab.errors import ConfigError, StoreError, StreamUnavailable
from dualstream_lab.event import encode_event
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.processor import Processor, processor
from dualstream_lab.store import SqliteStore
from tests.publisher.helpers import mute, read_log, until

from .helpers import (
    PARTITIONS,
    admin,
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


async def test_events_are_in_the_store_as_they_are_in_the_log(stack, topic, serving, store):
    made = events(500)
    before = time.time_ns()
    await write(stack.kafka_url, topic, made)
    async with running(serving(), store) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        stats = runner.stats()
    assert await stored(store) == by_source(made)
    assert await store.epoch() == (await log_identity(serving())).epoch
    for record in await read_log(stack.kafka_url, topic):
        kept = await store.at(record.partition, record.offset)
        assert kept.id == msgspec.json.decode(record.value)["id"]
        assert (kept.partition, kept.offset, kept.value) == (record.partition, record.offset, record.value)
        assert (kept.type, kept.source) == ("push", f"repo:{record.key.decode()}")
        assert kept.ts == record.timestamp * 10**6
    assert (stats.applied, stats.duplicates, stats.poison, stats.lag, stats.lost) == (500, 0, 0, 0, 0)
    assert (stats.partitions, stats.rebalances, stats.errors, stats.troubles) == (PARTITIONS, 1, 0, {})
    assert (stats.holes, stats.held) == (0, 0)
    assert before < stats.last_applied <= time.time_ns()


async def test_what_comes_later_is_applied_at_once(stack, topic, serving, store):
    async with running(serving(), store) as runner:
        await until(lambda: runner.stats().partitions == PARTITIONS)
        for turn in range(3):
            await write(stack.kafka_url, topic, events(100, start=100 * turn))
            await reached(store, await ends(stack.kafka_url, topic))
    assert await stored(store) == by_source(events(300))


async def test_the_group_learns_the_positions(stack, topic, serving, store):
    await write(stack.kafka_url, topic, events(100))
    goal = await ends(stack.kafka_url, topic)
    settings = serving()
    async with running(settings, store), admin(stack.kafka_url) as client, asyncio.timeout(60):
        while True:
            told = {}
            with suppress(GroupCoordinatorNotAvailableError):  # a fresh broker's is there only soon
                told = await client.list_consumer_group_offsets(settings.group)
            if {target.partition: meta.offset for target, meta in told.items()} == goal:
                break
            await asyncio.sleep(0.1)


async def test_an_id_is_applied_once(stack, topic, serving, store):
    made = events(100)
    await write(stack.kafka_url, topic, made + made[:30])
    async with running(serving(), store) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        assert (runner.stats().applied, runner.stats().duplicates) == (100, 30)
    assert await stored(store) == by_source(made)


GOOD = events(1)[0]
POISON = {
    "noise": (b"\x00\xff\xfe", "not an event"),
    "not UTF-8": (encode_event(GOOD).replace(b'"n"', b'"\xff"'), "not an event"),
    "another shape": (b'["push"]', "not an event"),
    "no id": (b'{"type":"push","source_type":"repo","source_id":"a/b"}', "missing required field `id`"),
    "no value": (None, "the record has no value"),
    "a pattern as its source": (
        b'{"id":"p","type":"push","source_type":"repo","source_id":"*"}', "source_id '*': only printable",
    ),
    "a reserved source": (
        b'{"id":"p","type":"push","source_type":"repo","source_id":"_resync"}', "must not begin with '_'",
    ),
    "an id with a space": (
        b'{"id":"a b","type":"push","source_type":"repo","source_id":"a/b"}', "id 'a b'",
    ),
    "half a character": (
        b'{"id":"p","type":"\\ud800","source_type":"repo","source_id":"a/b"}', "",
    ),
    "a time without a zone": (
        b'{"id":"p","type":"push","source_type":"repo","source_id":"a/b","occurred_at":"2026-01-01T00:00:00"}',
        "must be a datetime with a time zone",
    ),
}  # fmt: skip


async def test_poison_of_every_kind_goes_to_the_dead_letters_and_the_rest_goes_on(
    stack, topic, serving, store
):
    made = events(200)
    sent = {}
    async with producer(stack.kafka_url) as kafka:
        for kind, (value, _) in POISON.items():
            for key in (kind.encode(), None):
                receipt = await kafka.send_and_wait(
                    topic,
                    value if key or value is not None else b"",
                    key=key,
                    headers=[("kind", kind.encode())],
                )
                sent[receipt.partition, receipt.offset] = kind
    await write(stack.kafka_url, topic, made)
    settings = serving()
    async with running(settings, store) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        assert runner.stats().poison == len(sent)
    assert await stored(store) == by_source(made)
    letters = await read_log(stack.kafka_url, settings.dead_letters)
    for letter in letters:
        headers = dict(letter.headers)
        place = int(headers["dead_letter_partition"]), int(headers["dead_letter_offset"])
        kind = sent.pop(place)
        assert headers["kind"] == kind.encode()
        assert headers["dead_letter_topic"] == topic.encode()
        assert POISON[kind][1] in headers["dead_letter_reason"].decode() or letter.key is None
        assert letter.key in {kind.encode(), None}
        assert letter.value == POISON[kind][0] or letter.value == b""
    assert not sent


async def test_a_letter_that_is_too_large_is_left_without_its_value(stack, topic, serving, store):
    settings = serving()
    stack.create_topic(settings.dead_letters, settings={"max.message.bytes": "2000"})
    async with producer(stack.kafka_url) as kafka:
        await kafka.send_and_wait(topic, b"?" * 5000, key=b"k")
    async with running(settings, store):
        await reached(store, await ends(stack.kafka_url, topic))
    (letter,) = await read_log(stack.kafka_url, settings.dead_letters)
    assert letter.value == b"left out: larger than this topic takes"
    assert dict(letter.headers)["dead_letter_topic"] == topic.encode()


async def test_the_position_passes_transaction_markers(stack, topic, serving, store):
    made = events(20)
    async with producer(stack.kafka_url, transactional_id=topic) as kafka:
        for event in made:
            async with kafka.transaction():
                await kafka.send(topic, encode_event(event), key=event.source_id.encode())
    goal = await ends(stack.kafka_url, topic)
    assert sum(goal.values()) == 40
    async with running(serving(), store):
        await reached(store, goal)
    assert await stored(store) == by_source(made)


class Recorder:
    """A handler that knows what it saw, and refuses what it is told to."""

    def __init__(self, *, refuses=(), fails=0):
        self.seen = []
        self.refuses = set(refuses)
        self.fails = fails

    async def handle(self, events):
        self.seen.append([event.id for event in events])
        if self.fails:
            self.fails -= 1
            raise RuntimeError("not now")
        if refused := self.refuses & {event.id for event in events}:
            raise ValueError(f"cannot take {min(refused)}")


async def test_handlers_see_every_event_in_turn_before_the_store(stack, topic, serving, store):
    class Early:
        async def handle(self, events):
            assert not any([await store.find(event.id) for event in events])

    first, second = Recorder(), Recorder()
    made = events(300)
    await write(stack.kafka_url, topic, made)
    async with running(serving(), store, (Early(), first, second)) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        assert runner.stats().poison == 0
    assert first.seen == second.seen
    seen = [event_id for batch in first.seen for event_id in batch]
    assert sorted(seen) == [event.id for event in made]
    for source, ids in by_source(made).items():
        assert [i for i in seen if i in set(ids)] == ids, source


async def test_what_a_handler_refuses_is_a_dead_letter_and_goes_no_further(stack, topic, serving, store):
    first, second = Recorder(refuses={"n000003", "n000017"}), Recorder()
    made = events(40)
    await write(stack.kafka_url, topic, made)
    settings = serving()
    async with running(settings, store, (first, second)) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        assert (runner.stats().applied, runner.stats().poison) == (38, 2)
    assert first.seen.count(["n000003"]) == 3, "tried alone three times"
    assert not first.refuses & {event_id for batch in second.seen for event_id in batch}
    assert await stored(store) == by_source([event for event in made if event.id not in first.refuses])
    letters = await read_log(stack.kafka_url, settings.dead_letters)
    assert {msgspec.json.decode(letter.value)["id"] for letter in letters} == first.refuses
    for letter in letters:
        assert "Recorder refused it 3 times" in dict(letter.headers)["dead_letter_reason"].decode()
        assert letter.key.startswith(b"owner/r")


async def test_a_handler_that_fails_for_a_moment_loses_nothing(stack, topic, serving, store):
    handler = Recorder(fails=2)
    await write(stack.kafka_url, topic, events(40))
    async with running(serving(), store, [handler]) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        assert (runner.stats().applied, runner.stats().poison) == (40, 0)


async def test_retention_moves_the_floors(stack, topic, serving, store, monkeypatch):
    monkeypatch.setattr(processor, "_PRUNE", 0.1)
    made = events(600)
    await write(stack.kafka_url, topic, made)
    async with running(serving(retention_events=100), store):
        await reached(store, await ends(stack.kafka_url, topic))
        async with asyncio.timeout(20):
            while sum(map(len, (kept := await stored(store)).values())) != 100:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    for source, ids in kept.items():
        assert ids == by_source(made)[source][-len(ids) :]
        (first,) = await store.find(ids[0], source=source)
        assert 0 < (await store.places())[first.partition].floor <= first.offset


async def test_a_log_that_kafka_has_cut_goes_on_at_its_beginning(stack, topic, serving, store, caplog):
    from aiokafka import TopicPartition
    from aiokafka.admin.records_to_delete import RecordsToDelete

    made = events(400)
    await write(stack.kafka_url, topic, made[:200])
    async with running(serving(), store):
        await reached(store, await ends(stack.kafka_url, topic))
    position = (await positions_of(store))[0]
    await write(stack.kafka_url, topic, made[200:])
    async with admin(stack.kafka_url) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(position + 5)})
    async with running(serving(), store) as runner:
        await reached(store, await ends(stack.kafka_url, topic))
        assert (runner.stats().lost, runner.stats().applied) == (5, 195)
    assert f"partition 0: offsets {position} to {position + 4} went by Kafka's retention" in caplog.text
    place = (await store.places())[0]
    assert (place.floor, place.hole, place.reason) == (position + 5, position + 5, "retention")


async def test_a_position_beyond_the_end_is_refused_naming_both(stack, topic, serving, store):
    identity = await log_identity(serving())
    await store.begin(identity.epoch, dict.fromkeys(range(PARTITIONS), 0))
    await store.apply(2, 0, 1234, [])
    async with Processor(serving(), store) as runner, asyncio.timeout(30):
        with pytest.raises(StoreError, match=r"partition 2 of .* ends at 0 and the store is at 1234"):
            await runner.run()


async def test_a_topic_made_anew_is_another_log(stack, topic, serving, store):
    await write(stack.kafka_url, topic, events(10))
    async with running(serving(), store):
        await reached(store, await ends(stack.kafka_url, topic))
    async with admin(stack.kafka_url) as client:
        await client.delete_topics([topic])
    async with asyncio.timeout(20):
        while True:
            try:
                await log_identity(serving())
            except ConfigError:
                break
    stack.create_topic(topic)
    runner = Processor(serving(), store)
    with pytest.raises(StoreError, match=r"holds the log .* choose another --store"):
        await runner.start()


async def test_a_topic_that_is_not_there_is_refused(serving, store):
    with pytest.raises(ConfigError, match="'nowhere' does not exist"):
        await Processor(serving(topic="nowhere"), store).start()


async def test_a_kafka_that_does_not_answer_is_unavailable_within_its_time(stack, serving, store):
    await mute(stack.brokers[0])
    started = time.monotonic()
    with pytest.raises(StreamUnavailable, match=r"127\.0\.0\.1"):
        await Processor(serving(start_timeout=2), store).start()
    assert time.monotonic() - started < 20


async def test_it_is_not_usable_before_its_start(serving, store):
    with pytest.raises(StreamUnavailable, match="not started"):
        await Processor(serving(), store).run()


async def test_the_dead_letter_topic_is_like_the_main_one(stack, topic, serving, store):
    settings = serving()
    async with Processor(settings, store), admin(stack.kafka_url) as client:
        (described,) = await client.describe_topics([settings.dead_letters])
    assert len(described["partitions"]) == PARTITIONS
    async with Processor(settings, store):
        pass  # it is there already


async def test_a_reader_in_another_store_object_sees_what_is_applied(stack, topic, serving, store):
    reader = await SqliteStore.open(serving().store, read_only=True)
    async with running(serving(), store):
        await write(stack.kafka_url, topic, events(50))
        await reached(reader, await ends(stack.kafka_url, topic))
    assert await stored(reader) == by_source(events(50))
    await reader.close()
