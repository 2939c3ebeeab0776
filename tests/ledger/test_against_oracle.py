"""The arrays say of every event what dicts and loops say, whatever happened."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstream_lab.recording import DROPS, Ending, Outcome

from .builder import RunBuilder, marked, told
from .oracle import oracle_ledger

SEQS = st.integers(0, 11)
TIMES = st.integers(0, 60).map(lambda tick: tick * 20)  # some are within half a second of an end, some not
WRITERS = ("w0", "w1")


@st.composite
def runs(draw) -> dict:
    """What a run may leave behind, more or less likely."""
    events = draw(st.lists(SEQS, unique=True, max_size=10))
    writers = draw(st.integers(1, 2))
    published = [
        (
            seq, draw(TIMES), draw(st.integers(0, 6)) * 20, draw(st.sampled_from([1, 1, 1, 1, 0, 2, 3, 4])),
            draw(st.integers(0, 2)), WRITERS[draw(st.integers(0, writers - 1))],
        )
        for seq in events
    ]  # fmt: skip
    caught_up = draw(st.sampled_from([True, True, True, False, None]))
    grown = st.integers(0, 1) if draw(st.booleans()) else st.just(0)  # sources may be in two partitions
    records = [] if caught_up is None else draw(st.lists(st.tuples(SEQS, TIMES, grown), max_size=12))
    offsets = draw(st.permutations(range(len(records))))
    again = draw(st.lists(st.integers(0, 11), max_size=2))
    who = st.tuples(st.sampled_from(WRITERS), st.integers(0, 1))
    sources = st.just({-1}) | st.sets(st.integers(0, 2), min_size=1)
    return {
        "caught_up": caught_up,
        "published": published,
        "records": list(zip(records, offsets, strict=True)),
        "again": [place for place in again if place < len(records)],
        "delivered": draw(st.lists(st.tuples(who, SEQS, TIMES), max_size=20)),
        "caught": draw(st.lists(st.tuples(who, SEQS, TIMES), max_size=4)),
        "dropped": draw(st.dictionaries(SEQS, st.sampled_from(DROPS), max_size=4)),
        "windows": draw(st.dictionaries(who, st.tuples(sources, edges()), max_size=4)),
    }


@st.composite
def edges(draw):
    """Windows of one subscriber: [(begin, end or None, why)]."""
    ticks = sorted(draw(st.lists(st.integers(0, 120), min_size=1, max_size=6, unique=True)))
    found = []
    for first in range(0, len(ticks), 2):
        if first + 1 == len(ticks):
            found.append((ticks[first] * 10, None, Ending.OPEN))
        else:
            why = draw(st.sampled_from([Ending.LOST, Ending.LEFT]))
            why = draw(st.sampled_from([why, Ending.CLOSED])) if first + 2 == len(ticks) else why
            found.append((ticks[first] * 10, ticks[first + 1] * 10, why))
    return found


def made(path: Path, run: dict) -> RunBuilder:
    builder = RunBuilder(path, caught_up=run["caught_up"])
    sources = {}
    for seq, at, wait, outcome, source, writer in run["published"]:
        sources[seq] = source
        builder.sent(seq, at, acked=at + wait, outcome=Outcome(outcome), source=source, writer=writer)
    rows = [(*record, offset) for record, offset in run["records"]]
    for seq, at, grown, offset in [*rows, *(rows[place] for place in run["again"])]:
        builder.read(seq, at + 0.1, partition=sources.get(seq, 0) % 2 + 2 * grown, offset=offset)
    for (writer, who), seq, at in sorted(run["delivered"], key=lambda row: row[2]):
        builder.delivered(seq, at + 0.2, who=who, writer=writer)
    for (writer, who), seq, at in run["caught"]:
        builder.caught(seq, at + 0.3, who=who, writer=writer)
    for seq, why in run["dropped"].items():
        builder.given_up(seq, 50, why)
    for (writer, who), (sources, windows) in run["windows"].items():
        for begin, end, why in windows:
            builder.listened(begin, end, why, who=who, sources=sources, writer=writer)
    return builder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@settings(max_examples=100, deadline=None)
@given(runs())
def test_the_arrays_say_what_loops_say(place, run) -> None:
    shutil.rmtree(place, ignore_errors=True)
    builder = made(place, run)
    ledger = builder.ledger()
    slow = oracle_ledger(builder)
    assert told(ledger) == {seq: name for seq, (name, _) in slow.items()}
    assert marked(ledger) == {seq: marks for seq, (_, marks) in slow.items() if marks}
    # conservation, and what is counted
    assert sum(entry.count for entry in ledger.entries) == ledger.events == len(slow)
    counted = Counter(name for name, _ in slow.values())
    names = {f"{e.name}{e.cause and f': {e.cause}'}": e.count for e in ledger.entries}
    assert names == dict(counted)
    for entry in ledger.marks:
        assert entry.count == sum(entry.name in marks for _, marks in slow.values())
    for name in {name.partition(":")[0] for name in counted}:
        assert len(list(ledger.ids(name))) == ledger.count(name)
