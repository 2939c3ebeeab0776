"""History from the log: everything once, in order, from where it was asked; nobody else is disturbed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab import DualPublisher, Event
from dualstream_lab.errors import ConfigError, OutcomeUnknown, StreamUnavailable
from dualstream_lab.event import encode_event
from dualstream_lab.replay import (
    Player,
    Republish,
    Selection,
    Start,
    find_event,
    parse_positions,
    positions_text,
    read,
    replay,
)
from dualstream_lab.replay import reading as reading_module
from dualstream_lab.replay.reading import Merge
from tests.cli.test_cli import command, run
from tests.kafka_log.hostile import (
    COMPACTED,
    damaged,
    delete_records,
    grow,
    make_anew,
    stable_ends,
    write_compacted,
)
from tests.publisher.helpers import heard, ids_of, mute, read_log, until

T0 = int(time.time()) * 1000 - 3_600_000  # ms; not so long ago that retention removes it


def event(number: int, **fields) -> Event:
    what = {"type": "push", "source_type": "repo", "source_id": f"o/r{number % 7}", "data": {"n": number}}
    when = datetime.fromtimestamp((T0 + 1000 * number) / 1000, UTC)
    return Event(**({"id": f"e{number}", "occurred_at": when} | what | fields))


@asynccontextmanager
async def producer(stack):
    made = AIOKafkaProducer(bootstrap_servers=stack.kafka_url, acks="all")
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def fill(stack, topic, events, *, first=0):
    """Events into the log as records of one second after the other, in any partition that their key says."""
    async with producer(stack) as kafka:
        for number, item in enumerate(events, start=first):
            value, key = (
                (item, b"k") if isinstance(item, bytes) else (encode_event(item), item.source_id.encode())
            )
            await kafka.send(topic, value, key=key, timestamp_ms=T0 + 1000 * number)
        await kafka.flush()


def partitions_of(topic) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(6)]


def numbers(records) -> list[int]:
    return [json.loads(record.value)["data"]["n"] for record in records]


async def collected(settings, start, **how) -> list[int]:
    async with read(settings, start, **how) as log:
        return numbers([record async for chunk in log.chunks() for record in chunk])


# Order, without Kafka


class Stamped(NamedTuple):
    timestamp: int
    partition: int
    number: int


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=8), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_partitions_are_merged_by_time_and_each_keeps_its_order(stamps, random, ascending):
    logs = {
        partition: [
            Stamped(stamp, partition, number)
            for number, stamp in enumerate(sorted(column) if ascending else column)
        ]
        for partition, column in enumerate(stamps)
    }
    merge, unread, merged = Merge(logs), {p: list(log) for p, log in logs.items()}, []
    while merge.open or unread:
        taken = merge.take(random.randint(1, 5))
        merged += taken
        if taken:
            continue
        wanted = merge.wanted()
        assert wanted, "it is held up by a partition that it does not want to hear of"
        partition = random.choice(wanted)
        count = random.randint(0, 3)
        merge.add(partition, unread[partition][:count])
        del unread[partition][:count]
        if not unread[partition]:
            merge.close(partition)
            del unread[partition]
    while taken := merge.take(3):
        merged += taken
    for partition, log in logs.items():
        assert [record for record in merged if record.partition == partition] == log
    if ascending:
        assert [record.timestamp for record in merged] == sorted(record.timestamp for record in merged)


def test_a_partition_is_never_far_ahead_of_the_others():
    merge = Merge([0, 1])
    while 0 in merge.wanted():
        merge.add(0, [Stamped(0, 0, 0)])
    assert 1 in merge.wanted()
    assert merge.take(100) == []


# Where to begin


@given(st.dictionaries(st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1), min_size=1))
def test_positions_are_read_as_they_are_written(positions):
    assert parse_positions(positions_text(positions)) == positions


@pytest.mark.parametrize("text", ["", "0", "0:", "0:1,", "0:-1", "a:b", "0:1,0:2", "1:1:1"])
def test_other_positions_are_refused_with_what_is_allowed(text):
    with pytest.raises(ConfigError, match=r"allowed: partition:offset|named twice"):
        parse_positions(text)


async def test_from_an_offset_a_time_and_a_position(stack, settings, topic):
    await fill(stack, topic, map(event, range(70)))
    where = settings()
    everything = await collected(where, Start(offset=0))
    assert everything == list(range(70)), "in the order of time, across partitions"
    assert await collected(where, Start(timestamp=T0 + 40_000)) == list(range(40, 70))
    assert await collected(where, Start(timestamp=T0 + 39_001), until=T0 + 50_000) == list(range(40, 50))
    assert await collected(where, Start(timestamp=T0 + 10**9)) == []
    assert await collected(where, Start(timestamp=-5), until=T0) == []
    last = await collected(where, Start(offset=-2))
    async with read(where, Start(offset=0)) as log:
        ends = log.end
        assert len(last) == sum(min(2, end) for end in ends.values())
        (big,) = [partition for partition, end in ends.items() if end == max(ends.values())][:1]
    some = await collected(where, Start(positions={big: 3}))
    assert len(some) == ends[big] - 3
    assert await collected(where, Start(offset=10**9)) == []


async def test_positions_that_are_not_in_the_log_are_refused(stack, settings, topic):
    await fill(stack, topic, map(event, range(7)))
    for positions, told in (({0: 10**6}, "beyond the end"), ({17: 0}, "no partition 17")):
        with pytest.raises(ConfigError, match=told):
            await collected(settings(), Start(positions=positions))
    with pytest.raises(ConfigError, match="does not exist"):
        await collected(settings(topic="absent"), Start(offset=0))


async def test_a_source_is_read_wherever_its_records_are(stack, settings, topic):
    """Also from the partitions that another client's partitioner chose, or that have no key."""
    await fill(stack, topic, map(event, range(70)))
    async with producer(stack) as other:
        for number in (73, 80):
            item = event(number, source_id="o/r3")
            for partition, key in ((number % 6, b"o/r3"), ((number + 1) % 6, None)):
                await other.send_and_wait(
                    topic, encode_event(item), key=key, partition=partition, timestamp_ms=T0 + 1000 * number
                )
    found = [r async for r in replay(settings(), Start(offset=0), source_id="o/r3", follow=False)]
    assert numbers(found) == [*range(3, 70, 7), 73, 73, 80, 80]
    sink, _ = await play(settings(), Start(offset=0), Selection(source="repo:o/r3"))
    assert sink.numbers == numbers(found)
    last = found[-1]
    only = Start(positions={last.partition: last.offset})
    sink, player = await play(settings(), only, Selection(source="repo:o/r3"))
    assert sink.numbers == [80], "positions that are given choose partitions"
    assert player.reading.unnamed == [p for p in range(6) if p != last.partition]


async def test_an_id_is_found_wherever_it_is_and_history_goes_on_from_there(stack, settings, topic):
    await fill(stack, topic, map(event, range(70)))
    looked = []
    start = await find_event(settings(), "e40", watch=lambda *how_far: looked.append(how_far))
    assert await collected(settings(), start) == list(range(40, 70))
    with pytest.raises(ConfigError, match=r"none of the 70 records .* as one of repo:o/r3"):
        await find_event(settings(), "e4", source="repo:o/r3", watch=lambda *_: None)
    with pytest.raises(ConfigError, match="none of the 70 records"):
        await find_event(settings(), "absent", watch=lambda *how_far: looked.append(how_far))
    assert looked[-1] == (70, 70)


async def test_an_id_of_several_sources_is_asked_back_and_letters_may_be_spelled_by_number(
    stack, settings, topic
):
    spelled = encode_event(event(3, id="a/b", source_id="o/c")).replace(b"a/b", b"a\\/b")
    made = [event(1, id="a/b", source_id="o/a"), event(2, id="a/b", source_id="o/b")]
    await fill(stack, topic, made)
    async with producer(stack) as other:
        await other.send_and_wait(topic, spelled, key=b"o/c", timestamp_ms=T0 + 3000)

    def find(source=None):
        return find_event(settings(), "a/b", source=source, watch=lambda *_: None)

    with pytest.raises(ConfigError, match=r"3 sources have it \(repo:o/a, repo:o/b, repo:o/c\).*--source"):
        await find()
    for number, source in enumerate(("repo:o/a", "repo:o/b", "repo:o/c")):
        start = await find(source)
        rest = [r async for r in replay(settings(), start, follow=False)]
        assert numbers(rest) == [1, 2, 3][number:]
    with pytest.raises(ConfigError, match="none of the 3 records"):
        await find("repo:o/d")


async def test_our_own_ids_say_where_to_look(settings, monkeypatch):
    from dualstream_lab.replay import history

    asked = []

    def noted(settings, start, **how):
        asked.append(start)
        return read(settings, start, **how)

    monkeypatch.setattr(history, "read", noted)
    async with DualPublisher(settings()) as publisher:
        receipts = await publisher.publish_batch([event(n) for n in range(50)])
        ours = await publisher.publish(Event(type="push", source_type="repo", source_id="a", data=1))
    start = await find_event(settings(), ours.event_id, watch=lambda *_: None)
    assert start.positions == {ours.partition: ours.offset}
    assert [start.offset for start in asked] == [None], "it was found at the first look, from its own time on"
    await find_event(settings(), next(iter(receipts)).event_id, watch=lambda *_: None)
    assert asked[1].offset == 0


# The log's own matters


async def test_the_end_is_reached_behind_markers_of_transactions(stack, settings, topic):
    kafka = AIOKafkaProducer(bootstrap_servers=stack.kafka_url, transactional_id=topic)
    await kafka.start()
    async with kafka.transaction():
        await kafka.send_and_wait(topic, encode_event(event(1)), key=b"o/r1", timestamp_ms=T0)
    await kafka.stop()
    await stable_ends(stack.kafka_url, topic, 6)
    async with read(settings(), Start(offset=0)) as log:
        records = [record async for chunk in log.chunks() for record in chunk]
        assert numbers(records) == [1]
        assert log.at == log.end
        assert log.total == log.read == 2


async def test_what_retention_removed_is_said(stack, settings, topic, monkeypatch):
    await fill(stack, topic, [event(n, source_id="o/r") for n in range(70)])
    (partition,) = {record.partition for record in await read_log(stack.kafka_url, topic)}
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
    await admin.start()
    target = TopicPartition(topic, partition)

    async def remove(before):
        await admin.delete_records({target: RecordsToDelete(before_offset=before)})

    try:
        await remove(30)
        async with read(settings(), Start(positions={partition: 10})) as log:
            assert log.removed == 20
            records = [record async for chunk in log.chunks() for record in chunk]
            assert numbers(records) == list(range(30, 70))
            assert await log.shortfall() == ["20 records from there on are gone: retention removed them"]
        # While it is read, what is next is removed: that is said, not jumped over.
        async with read(settings(), Start(offset=0), follow=True) as log:
            chunks = log.chunks()
            assert await anext(chunks)
            await remove(60)
            log._consumer.assign({partition: 35})
            with pytest.raises(StreamUnavailable, match="removed"):
                async for _ in chunks:
                    pass
    finally:
        await admin.close()


async def test_the_offsets_of_a_group_are_left_alone(stack, settings, topic):
    await fill(stack, topic, map(event, range(70)))
    targets = partitions_of(topic)
    # It has no members now, so that Kafka would take a commit from anybody.
    member = AIOKafkaConsumer(bootstrap_servers=stack.kafka_url, group_id="live", enable_auto_commit=False)
    member.assign(targets)
    await member.start()
    await member.commit({target: OffsetAndMetadata(1, "mine") for target in targets})
    await member.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
    await admin.start()
    try:
        before = await admin.list_consumer_group_offsets("live")
        groups = await admin.list_consumer_groups()
        assert await collected(settings(), Start(offset=0)) == list(range(70))
        await find_event(settings(), "e60", watch=lambda *_: None)
        assert await admin.list_consumer_group_offsets("live") == before
        assert {before[target].offset for target in targets} == {1}
        assert await admin.list_consumer_groups() == groups, "and it has no group of its own"
    finally:
        await admin.close()


async def test_a_kafka_that_gives_nothing_more_ends_the_reading(stack, settings, topic, monkeypatch):
    monkeypatch.setattr(reading_module, "_STALL", 2.5)
    await fill(stack, topic, [event(n, data={"n": n, "x": "x" * 500_000}) for n in range(40)])
    async with read(settings(), Start(offset=0)) as log:
        chunks = log.chunks(1)
        await anext(chunks)
        await mute(stack.brokers[0])
        with pytest.raises(StreamUnavailable, match=r"nothing for 2\.5 s"):
            async for _ in chunks:
                pass
        stack.brokers[0].resume()
    async with read(settings(request_timeout=2), Start(), follow=True) as log:
        await mute(stack.brokers[0])
        with pytest.raises(StreamUnavailable, match="is gone"):
            await anext(log.chunks())
        stack.brokers[0].resume()


async def test_partitions_that_are_added_are_followed_and_a_topic_made_anew_ends_it(stack, settings, topic):
    await fill(stack, topic, map(event, range(10)))
    found = []

    async def follow():
        async with read(settings(refresh_interval=0.2), Start(offset=0), follow=True) as log:
            async for chunk in log.chunks():
                found.extend(numbers(chunk))

    following = asyncio.create_task(follow())
    await until(lambda: len(found) == 10)
    await grow(stack.kafka_url, topic, 9)
    async with producer(stack) as kafka:
        for partition in range(5, 9):
            await kafka.send_and_wait(topic, encode_event(event(partition + 10)), partition=partition)
    await until(lambda: len(found) == 14)
    assert sorted(found[10:]) == [15, 16, 17, 18]
    await make_anew(stack, topic)
    async with asyncio.timeout(20):
        with pytest.raises(StreamUnavailable, match=r"made anew|does not exist"):
            await following


async def test_a_topic_that_was_made_anew_meanwhile_is_no_whole_answer(stack, settings, topic):
    await fill(stack, topic, map(event, range(10)))
    async with read(settings(), Start(offset=0)) as log:
        assert len([record async for chunk in log.chunks() for record in chunk]) == 10
        assert await log.shortfall() == []
        await make_anew(stack, topic)
        assert await log.shortfall() == ["the topic was made anew meanwhile: what was given may be of both"]


async def test_a_partition_that_cannot_be_decoded_is_left_for_later_and_the_others_are_given(
    stack, settings, topic
):
    await fill(stack, topic, map(event, range(70)))
    whole = await read_log(stack.kafka_url, topic)
    bad = max(whole, key=lambda record: record.offset)
    others = [
        number
        for number, p in zip(numbers(whole), [r.partition for r in whole], strict=True)
        if p != bad.partition
    ]
    found = []

    async def keep(log):
        async for chunk in log.chunks():
            found.extend(numbers(chunk))
            log.done(chunk)

    with damaged(stack, topic, bad.partition, bad.offset, "checksum"):
        async with read(settings(), Start(offset=0)) as log:
            with pytest.raises(
                StreamUnavailable, match=f"partition {bad.partition} cannot be read at offset"
            ):
                await keep(log)
            positions = log.end | {bad.partition: log.failed[bad.partition].offset}
            assert log.at == positions
        assert set(others) <= set(found)
    rest = await collected(settings(), Start(positions=positions))
    assert sorted(found + rest) == list(range(70))


# Playing


class Kept:
    """A sink that keeps what it got."""

    def __init__(self, *, stop_at=None) -> None:
        self.numbers = []
        self.times = []
        self.stop_at = stop_at

    async def write(self, found):
        self.numbers += numbers([item.record for item in found])
        self.times.append(asyncio.get_running_loop().time())
        if self.stop_at is not None and len(self.numbers) >= self.stop_at:
            self.player.stop()
        return len(found)


EVERYTHING = Selection()


async def play(settings, start, selection=EVERYTHING, *, sink=None, on_reject=print, follow=False, **how):
    sink = sink or Kept()
    async with read(settings, start, follow=follow) as log:
        player = Player(log, selection, sink, on_reject=on_reject, **how)
        sink.player = player
        await player.run()
    return sink, player


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), set(range(28))),
        (Selection(source="repo:o/r3"), {3, 10, 17, 24}),
        (Selection(source="user:o/r3"), set()),
        (Selection(pattern="repo:o/r[34]"), {3, 4, 10, 11, 17, 18, 24, 25}),
        (Selection(types=("issues.*",)), {0, 2, 4}),
        (Selection(types=("issues.opened", "nothing")), {0, 2}),
        (Selection(pattern="*:o/r2", types=("issues.*", "push")), {2, 9, 16, 23}),
    ],
)
async def test_only_what_was_chosen_is_played(stack, settings, topic, selection, expected):
    kinds = {0: "issues.opened", 2: "issues.opened", 4: "issues.closed"}
    await fill(stack, topic, [event(n, type=kinds.get(n, "push")) for n in range(28)])
    sink, player = await play(settings(), Start(offset=0), selection)
    assert set(sink.numbers) == expected
    assert player.written == len(sink.numbers) == len(expected)


async def test_a_stop_and_going_on_from_there_give_everything_once(stack, settings, topic):
    await fill(stack, topic, map(event, range(300)))
    first, player = await play(settings(), Start(offset=0), sink=Kept(stop_at=100), rate=2_000)
    assert player.stopped
    assert 100 <= len(first.numbers) < 300
    rest, _ = await play(settings(), Start(positions=player.reading.at))
    assert sorted(first.numbers + rest.numbers) == list(range(300))


async def test_a_limit_is_exact_and_the_rest_is_not_lost(stack, settings, topic):
    await fill(stack, topic, map(event, range(60)))
    selection = Selection(pattern="repo:o/r[12]")
    first, player = await play(settings(), Start(offset=0), selection, limit=5)
    assert first.numbers == [1, 2, 8, 9, 15]
    assert player.at_limit
    rest, _ = await play(settings(), Start(positions=player.reading.at), selection)
    assert sorted(first.numbers + rest.numbers) == [n for n in range(60) if n % 7 in {1, 2}]


async def test_a_rate_is_kept(stack, settings, topic):
    await fill(stack, topic, map(event, range(100)))
    sink, _ = await play(settings(), Start(offset=0), rate=100)
    assert len(sink.numbers) == 100
    seconds = sink.times[-1] - sink.times[0]
    assert 0.9 < seconds < 5, seconds
    assert len(sink.times) >= 20, "it is spread, not sent at once"


async def test_what_follows_is_played_as_it_comes(stack, settings, topic):
    await fill(stack, topic, map(event, range(10)))
    sink = Kept(stop_at=20)
    playing = asyncio.create_task(play(settings(), Start(offset=0), sink=sink, follow=True))
    await until(lambda: len(sink.numbers) == 10)
    await fill(stack, topic, map(event, range(10, 20)), first=10)
    async with asyncio.timeout(20):
        await playing
    assert sorted(sink.numbers) == list(range(20))


async def test_a_record_that_is_no_event_is_left_out_with_the_reason(stack, settings, topic):
    await fill(stack, topic, [event(0), b"no event", event(2)])
    refused = []
    sink, _ = await play(settings(), Start(offset=0), on_reject=refused.append)
    assert sink.numbers == [0, 2]
    (one,) = refused
    assert one.raw == b"no event"
    assert "malformed" in one.reason


class Ending:
    """A publisher whose Kafka goes away."""

    def __init__(self) -> None:
        self.calls = 0

    async def publish_batch(self, events):
        self.calls += 1
        if self.calls == 2:
            raise OutcomeUnknown("gone")


async def test_after_a_failed_publish_it_goes_on_with_what_may_be_missing(stack, settings, topic):
    await fill(stack, topic, map(event, range(20)))
    sink = Republish(Ending(), settings(buffer_events=10_000), on_reject=print)
    async with read(settings(), Start(offset=0)) as log:
        player = Player(log, Selection(), sink, on_reject=print, rate=200)  # ten at a time
        with pytest.raises(OutcomeUnknown):
            await player.run()
    rest = await collected(settings(), Start(positions=log.at))
    assert len(rest) == 20 - player.written
    assert player.written == 10


async def test_a_batch_is_never_more_than_the_publisher_can_hold(stack, settings, topic):
    await fill(stack, topic, [event(n, data={"n": n, "x": "x" * 500}) for n in range(50)])
    stack.create_topic(f"{topic}-again")
    small = settings(topic=f"{topic}-again", buffer_bytes=2_048, buffer_events=20)
    async with DualPublisher(small) as publisher:
        _, player = await play(settings(), Start(offset=0), sink=Republish(publisher, small, on_reject=print))
    assert player.written == 50


# The command


@pytest.fixture
def there(stack, topic):
    return ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "say where to begin"),
        (["--since", "5m", "--offset", "0"], 2, "say where to begin"),
        (["--since", "yesterday"], 2, "allowed: 10m (ago), 2025-06-01T12:00:00Z"),
        (["--since", "2025-06-01T12:00:00"], 2, "allowed: 10m (ago)"),
        (["--offset", "0", "--source", "a:b", "--pattern", "*"], 2, "exclude each other"),
        (["--offset", "0", "--output", "x", "--to-topic", "x"], 2, "exclude each other"),
        (["--offset", "0", "--follow", "--until", "5m"], 2, "exclude each other"),
        (["--offset", "0", "--announce"], 2, "needs --to-topic"),
        (["--offset", "0", "--source", "nocolon"], 2, "type:id"),
        (["--from", "0-1"], 2, "0:123,1:456"),
        (["--offset", "0", "--kafka", "127.0.0.1:1", "--to-topic", "events"], 2, "is the topic that is read"),
        (["--offset", "0", "--kafka", "127.0.0.1:1", "--to-topic", "a b"], 2, "topic"),
        (
            ["--offset", "0", "--kafka", "127.0.0.1:1", "--announce", "--to-topic", "x"],
            2,
            "no Redis is given",
        ),
        (["--offset", "0", "--kafka", "127.0.0.1:1"], 3, "Kafka at 127.0.0.1:1 could not be reached"),
    ],
)
def test_a_mistake_is_explained(tmp_path, monkeypatch, capfd, arguments, code, told):
    from dualstream_lab.cli.root import run as run_here

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("dualstream_lab.cli.root.logging.basicConfig", lambda **_: None)
    assert run_here(["--verbose", "replay", *arguments]) == code
    out, err = capfd.readouterr()
    assert told in " ".join(err.split())
    assert not out


@pytest.fixture
def filled(stack, topic):
    asyncio.run(fill(stack, topic, map(event, range(70))))


def test_into_a_pipe_from_a_time_and_an_id_as_they_are_in_the_log(stack, topic, there, filled):
    begin = f"{datetime.fromtimestamp(T0 / 1000 + 20, UTC):%Y-%m-%dT%H:%M:%SZ}"
    end = datetime.fromtimestamp(T0 / 1000 + 25, timezone(timedelta(hours=2))).isoformat()
    out, err = run("replay", "--since", begin, "--until", end, *there, code=0)
    assert out.splitlines() == [encode_event(event(n)).decode() for n in range(20, 25)]
    assert "5 events to stdout" in err
    out, err = run("replay", "--id", "e40", "--type", "push", "--limit", "3", *there, code=0)
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["e40", "e41", "e42"]
    positions = err.partition("go on with --from ")[2].split()[0]
    out, err = run("replay", "--from", positions, *there, code=0)
    assert [json.loads(line)["id"] for line in out.splitlines()] == [f"e{n}" for n in range(43, 70)]
    _, err = run("replay", "--id", "absent", *there, code=2)
    assert "none of the 70 records" in err


async def test_to_another_topic_with_the_same_ids_and_redis_only_when_told(stack, topic, there, tmp_path):
    large = event(3, source_id="o/large", data={"n": 3, "x": "x" * 5_000})
    made = [event(0), b"no event", event(2, traceparent=f"00-{'a' * 32}-{'b' * 16}-01"), large]
    await fill(stack, topic, made)
    again = f"{topic}-again"
    stack.create_topic(again, partitions=3, settings={"max.message.bytes": "4000"})

    async def replayed(*arguments, code):
        call = ("replay", "--offset", "0", "--to-topic", again, *arguments, *there)
        return await asyncio.to_thread(run, *call, code=code, cwd=tmp_path)

    async with heard(stack.redis_url, "events:repo:*") as messages:
        _, err = await replayed(code=1)
        assert f"2 events to {again}, of 4 records read" in err
        assert "2 left out" in err
        assert f"next: dualstream replay --offset 0 --topic {again}" in err
        assert not messages, "nobody's doorbell rang"
        _, err = await replayed("--announce", "--limit", "1", code=0)
        await until(lambda: messages)
        assert "1 announced on Redis" in err
    log = await read_log(stack.kafka_url, again, partitions=3)
    assert sorted(ids_of(log)) == ["e0", "e0", "e2"]
    originals = {record.value: record for record in await read_log(stack.kafka_url, topic)}
    for record in log:
        assert originals[record.value].key == record.key
    assert b"traceparent" in log[-1].value or any(dict(r.headers).get("traceparent") for r in log)
    rejects = [json.loads(line) for line in (tmp_path / f"{again}.rejects.jsonl").read_text().splitlines()]
    assert {(bool(reject["pos"]), reject["raw"][:8]) for reject in rejects} == {
        (True, "no event"),
        (True, encode_event(large).decode()[:8]),
    }
    assert any("at most" in reject["reason"] for reject in rejects)
    _, err = await replayed("--to-topic", "absent", code=2)
    assert "--to-topic: topic 'absent' does not exist" in err
    assert "kafka-topics.sh --create" in err


def test_a_file_is_never_overwritten_and_going_on_adds_to_it(there, filled, tmp_path):
    file = tmp_path / "history.jsonl"
    _, err = run("replay", "--offset", "0", "--limit", "30", "--output", str(file), *there, code=0)
    positions = err.partition("go on with --from ")[2].split()[0]
    _, err = run("replay", "--offset", "0", "--output", str(file), *there, code=2)
    assert "exists already" in err
    _, err = run("replay", "--from", positions, "--output", str(file), *there, code=0)
    assert "next: dualstream publish" in err
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == [f"e{n}" for n in range(70)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_with_where_to_go_on(there, filled):
    _, err = run("replay", "--offset", "0", "--output", "/dev/full", *there, code=3)
    assert "/dev/full cannot be written: No space left" in err
    assert "go on with --from 0:0,1:0,2:0,3:0,4:0,5:0" in err


def test_what_is_not_whole_has_exit_code_1_and_the_reason(stack, topic, there):
    asyncio.run(fill(stack, topic, [event(n, source_id="o/r") for n in range(20)]))
    (partition,) = {record.partition for record in asyncio.run(read_log(stack.kafka_url, topic))}
    asyncio.run(delete_records(stack.kafka_url, topic, {partition: 5}))
    out, err = run("replay", "--from", f"{partition}:2", *there, code=1)
    assert len(out.splitlines()) == 15
    assert "not all of it was given: 3 records from there on are gone: retention removed them" in err
    assert "not named, and not read: partitions " in err
    out, err = run("replay", "--offset", "0", *there, code=0)
    assert len(out.splitlines()) == 15, "all that is kept"
    assert "not all" not in err

    begin = f"{datetime.fromtimestamp(T0 / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    out, err = run("replay", "--since", begin, *there, code=1)
    assert len(out.splitlines()) == 15
    assert f"partitions {partition} begin after what Kafka removed" in err
    late = f"{datetime.fromtimestamp(T0 / 1000 + 10, UTC):%Y-%m-%dT%H:%M:%SZ}"
    out, _ = run("replay", "--since", late, *there, code=0)
    assert len(out.splitlines()) in {9, 10}

    compacted = f"{topic}-compacted"
    stack.create_topic(compacted, partitions=1, settings=COMPACTED)
    asyncio.run(write_compacted(stack.kafka_url, compacted))
    out, err = run("replay", "--offset", "0", *there[:-1], compacted, code=1)
    assert "records in between are gone: compaction removed them" in err


def test_a_partition_that_cannot_be_read_has_exit_code_3_and_the_rest_is_had_later(
    stack, topic, there, filled, tmp_path
):
    bad = max(asyncio.run(read_log(stack.kafka_url, topic)), key=lambda record: record.offset)
    file = tmp_path / "history.jsonl"
    with damaged(stack, topic, bad.partition, bad.offset, "codec"):
        _, err = run("replay", "--offset", "0", "--output", str(file), *there, code=3)
    assert f"error: partition {bad.partition} cannot be read at offset " in err
    assert "Unknown compression codec" in err
    positions = err.partition("go on with --from ")[2].split()[0]
    assert len(file.read_text().splitlines()) > 30
    run("replay", "--from", positions, "--output", str(file), *there, code=0)
    assert sorted(json.loads(line)["data"]["n"] for line in file.read_text().splitlines()) == list(range(70))


async def test_what_an_open_transaction_holds_back_is_said(stack, topic, there):
    kafka = AIOKafkaProducer(bootstrap_servers=stack.kafka_url, transactional_id=topic)
    await kafka.start()
    try:
        await kafka.begin_transaction()
        await kafka.send_and_wait(topic, encode_event(event(1)), key=b"o/r1", partition=0)
        await fill(stack, topic, map(event, range(20)))
        out, err = await asyncio.to_thread(run, "replay", "--offset", "0", *there, code=0)
        given = len(out.splitlines())
        assert f"{21 - given} messages are behind an open transaction" in err
        await kafka.abort_transaction()
    finally:
        await kafka.stop()
    await stable_ends(stack.kafka_url, topic, 6)
    out, err = await asyncio.to_thread(run, "replay", "--offset", "0", *there, code=0)
    assert len(out.splitlines()) == 20
    assert "transaction" not in err


def test_an_event_in_many_lines_is_one(stack, topic, there):
    pretty = json.dumps({"n": 1, "text": "a\nb"}, indent=2).encode()
    value = encode_event(event(1)).replace(b'{"n":1}', pretty)
    asyncio.run(fill(stack, topic, [value.replace(b'"source_id":"o/r1"', b'"source_id":"k"')]))
    out, _ = run("replay", "--offset", "0", *there, code=0)
    (line,) = out.splitlines()
    assert json.loads(line)["data"] == {"n": 1, "text": "a\nb"}


def test_ctrl_c_says_where_to_go_on_and_nothing_is_missing_or_twice(there, filled, tmp_path):
    file = tmp_path / "history.jsonl"
    process = subprocess.Popen(
        command("replay", "--offset", "0", "--rate", "20", "--output", str(file), *there),
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
        while not (file.exists() and file.stat().st_size):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    positions = err.decode().partition("go on with --from ")[2].split()[0]
    assert len(file.read_text().splitlines()) < 70
    run("replay", "--from", positions, "--output", str(file), *there, code=0)
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == [f"e{n}" for n in range(70)]


def test_whoever_reads_may_leave_and_two_ctrl_c_end_a_blocked_write(stack, topic, there):
    asyncio.run(fill(stack, topic, [event(n, data={"n": n, "x": "x" * 1_000}) for n in range(400)]))
    process = subprocess.Popen(
        command("replay", "--offset", "0", *there), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()  # `… | head -1`
    assert process.wait(timeout=30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    process = subprocess.Popen(
        command("replay", "--offset", "0", *there), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)  # it writes, and nobody reads on
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 30
        while process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(1)  # two that come together are one
            process.send_signal(signal.SIGINT)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in {130, -signal.SIGINT}


def test_on_a_terminal_it_is_a_short_line_an_event_and_nothing_in_it_steers(stack, topic, there):
    hostile = event(1, type="push", data={"n": 1, "text": "\x9b31mred", "long": "x" * 500})
    asyncio.run(fill(stack, topic, [event(0), hostile]))
    leader, follower = pty.openpty()
    try:
        process = subprocess.run(
            command("replay", "--offset", "0", *there),
            stdout=follower, stderr=subprocess.PIPE, timeout=60, check=False,
            env=os.environ | {"COLUMNS": "100", "TERM": "dumb"},
        )  # fmt: skip
        shown = os.read(leader, 65_536).decode().splitlines()
    finally:
        os.close(leader)
        os.close(follower)
    assert process.returncode == 0, process.stderr
    assert len(shown) == 2
    assert "repo:o/r0  push  e0" in shown[0]
    assert all(len(line) <= 100 for line in shown)
    assert "\x9b" not in "".join(shown)
    assert b"--id ID --limit 1" in process.stderr


def test_help_teaches():
    out, _ = run("replay", "--help", code=0)
    assert "Example:  dualstream replay --since 10m" in out
    assert "Nobody's place in the log is moved" in out
