"""Every reader of a log has the same opinion of it, whatever it holds: one suite for all of them.

A reader here is a function of (settings, ends): what it gives of each partition up to its end, as events and
as records that are none, and what it says it could not give.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field

import pytest

from dualstream_lab.cli.root import run
from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import DualStreamError, StreamUnavailable
from dualstream_lab.kafka_log import Records, open_consumer, read_range
from dualstream_lab.kafka_log import consumer as consumer_module
from dualstream_lab.kafka_log import trouble as trouble_module
from dualstream_lab.record import Decoder
from dualstream_lab.replay import Player, Selection, Start, read
from dualstream_lab.store import SqliteStore
from tests.processor.helpers import running
from tests.publisher.helpers import read_log

from .hostile import (
    COMPACTED,
    DAMAGES,
    PARTITIONS,
    Opinion,
    Writer,
    damaged,
    delete_records,
    event,
    grow,
    stable_ends,
    write_compacted,
    write_hostile,
)


@dataclass
class Answer:
    """What a reader gave: events by (source, id) with their value, no events by place, and its excuses."""

    events: dict[tuple[int, int], tuple[str, str, bytes]] = field(default_factory=dict)
    wrong: dict[tuple[int, int], str] = field(default_factory=dict)
    excuses: str = ""

    def add(self, partition, record, decoded):
        if isinstance(decoded, str):
            self.wrong[partition, record.offset] = decoded
        else:
            self.events[partition, record.offset] = (decoded.source, decoded.id, decoded.value)


async def by_consumer(settings, ends):
    answer, decode = Answer(), Decoder()
    async with open_consumer(settings) as consumer:
        consumer.assign(dict.fromkeys(ends, 0))
        async with asyncio.timeout(60):
            while any(
                consumer.positions[p] < end
                and not (p in consumer.troubles and consumer.troubles[p].tries >= 2)
                for p, end in ends.items()
            ):
                for part in await consumer.poll(Records, timeout=0.2):
                    for record in part.records:
                        answer.add(part.partition, record, decode(part.partition, record))
                    answer.excuses += "".join(f"hole {first} to {end}; " for first, end in part.holes)
        answer.excuses += "; ".join(f"partition {p}: {t.reason}" for p, t in consumer.troubles.items())
    return answer


async def by_range(settings, ends):
    answer, decode = Answer(), Decoder()
    for partition, end in ends.items():
        try:
            records = await read_range(settings, partition, 0, end, limit=10_000)
        except StreamUnavailable as error:
            answer.excuses += f"partition {partition}: {error}; "
            continue
        for record in records:
            answer.add(partition, record, decode(partition, record))
    return answer


async def by_replay(settings, ends):
    answer = Answer()

    class Sink:
        async def write(self, found):
            for item in found:
                answer.add(item.record.partition, item.record, item.stored)
            return len(found)

    def on_reject(reject):
        answer.wrong[reject.partition, reject.offset] = reject.reason

    async with read(settings, Start(offset=0)) as reading:
        try:
            await Player(reading, Selection(), Sink(), on_reject=on_reject).run()
        except DualStreamError as error:
            answer.excuses = str(error)
        answer.excuses += "; ".join(await reading.shortfall())
    return answer


async def by_processor(settings, ends, tmp_path):
    """The store has no values of its own opinion: those in it are compared, and the dead letters."""
    answer = Answer()
    where = ServeSettings.load(
        kafka_url=settings.kafka_url, topic=settings.topic, store=tmp_path / "store.db",
        group=settings.topic, retention_age=10 * 365 * 86_400,
    )  # fmt: skip
    store = await SqliteStore.open(where.store)
    async with running(where, store) as processor, asyncio.timeout(60):
        while True:
            places = await store.places()
            troubles = processor.stats().troubles
            if all(
                p in places and places[p].position >= _readable(troubles, p, end) for p, end in ends.items()
            ):
                break
            await asyncio.sleep(0.05)
        answer.excuses = str(troubles) + str([place.reason for place in places.values()])
        for partition, place in places.items():
            for offset in range(place.position):
                if (found := await store.at(partition, offset)) is not None:
                    answer.events[partition, offset] = (found.source, found.id, found.value)
    for letter in await read_log(settings.kafka_url, where.dead_letters, partitions=len(ends)):
        headers = {name: value.decode() for name, value in letter.headers}
        place = int(headers["dead_letter_partition"]), int(headers["dead_letter_offset"])
        answer.wrong[place] = headers["dead_letter_reason"]
    await store.close()
    return answer


def _readable(troubles, partition, end):
    """Where a partition's reading ends: a trouble is told before all that is in front of it is applied."""
    found = re.search(r"at offset (\d+)", troubles.get(f"partition {partition}", ""))
    return int(found[1]) if found else end


async def by_tail(settings, ends, capfd):
    """As its user has it: lines without their places, which are found by what they say."""
    answer = Answer()
    arguments = ["tail", "*", "--pattern", "--from-kafka", "--no-follow", "--offset", "0"]
    capfd.readouterr()
    code = await asyncio.to_thread(
        run, [*arguments, "--kafka", settings.kafka_url, "--topic", settings.topic]
    )
    out, err = capfd.readouterr()
    for number, line in enumerate(out.splitlines()):
        item = json.loads(line)
        answer.events[-1, number] = (f"{item['source_type']}:{item['source_id']}", item["id"], line.encode())
    for partition, offset, reason in re.findall(r"^partition (\d+) offset (\d+): (.*)$", err, re.MULTILINE):
        answer.wrong[int(partition), int(offset)] = reason
    answer.excuses = err if code == 3 else "".join(re.findall("^.* are gone: .*$", err, re.MULTILINE))
    assert code == (3 if "error:" in err else 1 if err else 0)
    return answer


READERS = {
    "consumer": by_consumer,
    "read_range": by_range,
    "replay": by_replay,
    "processor": by_processor,
    "tail": by_tail,
}


@pytest.fixture(params=READERS)
def reader(request, settings, tmp_path, monkeypatch):
    """Asks one of them; all are to agree with what was written."""
    monkeypatch.setattr(trouble_module, "_PAUSES", (0.1, 0.2))
    monkeypatch.setattr(consumer_module, "_ATTEND", 0.1)
    more = {"processor": [tmp_path], "tail": [request.getfixturevalue("capfd")]}.get(request.param, [])

    async def ask(topic, ends):
        return await READERS[request.param](settings(topic=topic), ends, *more)

    ask.name = request.param
    return ask


def agrees(answer, opinions, *, values=True):
    """It gives each event once, as it was written, and no other; what is none is known, with the reason."""
    events = [opinion for opinion in opinions if not opinion.reason]
    expected = {(o.partition, o.offset): (o.source, o.id, o.value) for o in events}
    if any(partition == -1 for partition, _ in answer.events):  # tail does not say where
        assert sorted(answer.events.values()) == sorted(expected.values())
    else:
        assert answer.events == expected
    wrong = {(o.partition, o.offset): o.reason for o in opinions if o.reason}
    assert answer.wrong.keys() == wrong.keys()
    for place, reason in wrong.items():
        assert reason in answer.wrong[place]


async def test_all_codecs_partitioners_transactions_and_records_that_are_no_events(stack, four, reader):
    topic = four()
    writer = await write_hostile(stack.kafka_url, topic)
    answer = await reader(topic, await stable_ends(stack.kafka_url, topic))
    agrees(answer, writer.sorted())
    assert answer.excuses.replace("{}", "").replace("[None, None, None, None]", "") == ""


async def test_a_transaction_that_hangs_and_those_behind_it(stack, four, reader):
    """What is behind its beginning is not given, of its partition alone; aborted, it did not happen."""
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer(transactional_id=topic) as hanging, writer.producer() as producer:
        await writer.send(producer, event(1), partition=0)
        await hanging.begin_transaction()
        await writer.send(hanging, event(2), partition=0)
        del writer.opinions[-1]
        await writer.send(producer, event(3), partition=1)
        seen = writer.sorted()
        await writer.send(producer, event(4), partition=0)
        agrees(await reader(topic, {0: 1, 1: 1, 2: 0, 3: 0}), seen)
        await hanging.abort_transaction()
    ends = await stable_ends(stack.kafka_url, topic)
    assert ends == {0: 4, 1: 1, 2: 0, 3: 0}
    if reader.name != "processor":  # its store has a position by now
        agrees(await reader(topic, ends), writer.sorted())


async def test_partitions_that_were_added(stack, four, reader):
    topic = four(partitions=2)
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer:
        for number in range(4):
            await writer.send(producer, event(number, f"o/{number}"))
    await grow(stack.kafka_url, topic, 5)
    async with writer.producer() as producer:
        for number in range(4, 12):
            await writer.send(producer, event(number, f"o/{number % 4}"))
    assert {opinion.partition for opinion in writer.opinions} > {0, 1}
    agrees(await reader(topic, await stable_ends(stack.kafka_url, topic, 5)), writer.sorted())


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_batch_that_cannot_be_decoded(stack, four, reader, kind):
    """All of the other partitions, and what is before it; and it is said, with the reason."""
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer:
        for partition in range(PARTITIONS):
            for first in (0, 3, 6):
                items = [event(100 * partition + first + number) for number in range(3)]
                await writer.send_batch(producer, items, partition)
    with damaged(stack, topic, 2, 3, kind):
        answer = await reader(topic, dict.fromkeys(range(PARTITIONS), 9))
    good = 5 if kind == "record" else 3
    if reader.name == "read_range":
        good = 0  # all that was asked for, or nothing
    agrees(answer, [o for o in writer.sorted() if o.partition != 2 or o.offset < good])
    assert "partition 2" in answer.excuses
    assert DAMAGES[kind][1] in answer.excuses


async def test_a_log_of_which_compaction_took_most(stack, four, reader):
    topic = four(partitions=1, **COMPACTED)
    writer, end = await write_compacted(stack.kafka_url, topic)
    answer = await reader(topic, {0: end})
    assert re.search(r"hole \d+ to|was compacted|compaction", answer.excuses)
    written = {(o.source, o.id, o.value) for o in writer.opinions}
    assert set(answer.events.values()) <= written
    if reader.name != "read_range":  # all that was asked for, or nothing
        assert writer.opinions[-1].value in {value for _, _, value in answer.events.values()}


async def test_a_log_whose_beginning_was_deleted(stack, four, reader):
    """All that is kept is given; whoever asked for what is gone is told."""
    topic = four()
    writer = Writer(stack.kafka_url, topic)
    async with writer.producer() as producer:
        for number in range(8):
            await writer.send(producer, event(number), partition=number % 2)
    await delete_records(stack.kafka_url, topic, {0: 2})
    kept = [o for o in writer.sorted() if o.partition == 1 or o.offset >= 2]
    answer = await reader(topic, {0: 4, 1: 4, 2: 0, 3: 0})
    if reader.name in {"consumer", "read_range"}:  # these were told to begin at 0
        kept = [o for o in kept if o.partition == 1]
        assert "the log does not have it" in answer.excuses
    agrees(answer, kept)


def test_the_suite_itself_catches_a_reader_that_is_wrong():
    """One more, one less, another's value: each is seen."""
    opinion = Opinion(0, 0, "repo:o/r", "e1", value=b"1")
    good = Answer(events={(0, 0): ("repo:o/r", "e1", b"1")})
    agrees(good, [opinion])
    for events in ({}, {(0, 0): ("repo:o/r", "e1", b"2")}, good.events | {(0, 1): ("repo:o/r", "e2", b"2")}):
        with pytest.raises(AssertionError):
            agrees(Answer(events=events), [opinion])
    with pytest.raises(AssertionError):
        agrees(Answer(wrong={(0, 0): "noise"}), [opinion])
