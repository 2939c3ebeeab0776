"""Cursors of several partitions: written and read, compared, and resumed from at any moment."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import EventError
from dualstream_lab.gateway.feed import Feed
from dualstream_lab.gateway.handover import Join
from dualstream_lab.gateway.past import Positions, later
from dualstream_lab.gateway.since import Refused, known_by, parse_since
from dualstream_lab.store import Page, Place, Row

EPOCH = "0123456789ab"
partitions = st.integers(0, 7)
offsets = st.dictionaries(partitions, st.integers(-1, 10**18 - 1), min_size=1, max_size=8)
some = st.dictionaries(partitions, st.integers(-1, 12), max_size=8)


@given(offsets)
def test_what_is_written_is_read(places):
    cursor = Cursor.of(EPOCH, places)
    assert Cursor.parse(str(cursor)) == cursor
    assert cursor.by_partition == places
    assert list(cursor.offsets) == sorted(places.items())
    assert known_by(parse_since(str(cursor))) == places


@given(offsets, st.randoms(use_true_random=False))
def test_the_order_of_its_partitions_means_nothing(places, random):
    pairs = [f"{partition}:{offset}" for partition, offset in places.items()]
    random.shuffle(pairs)
    assert Cursor.parse(f"{EPOCH}:{'~'.join(pairs)}") == Cursor.of(EPOCH, places)


@given(offsets, partitions)
def test_a_partition_is_named_once(places, partition):
    text = f"{Cursor.of(EPOCH, places | {partition: 5})}~{partition}:7"
    with pytest.raises(EventError, match="twice"):
        Cursor.parse(text)
    with pytest.raises(Refused, match="twice"):
        parse_since(text)


@given(st.text(alphabet="0123456789ab:~-", max_size=40))
def test_whatever_is_read_is_read_alike_when_it_is_written_again(text):
    try:
        cursor = Cursor.parse(text)
    except EventError:
        return
    assert Cursor.parse(str(cursor)) == cursor


@given(some, some, some)
def test_the_later_place_is_the_same_whoever_is_asked_first(one, two, three):
    def known(places: Positions) -> dict[int, int]:
        return {partition: offset for partition, offset in places.items() if offset >= 0}

    assert known(later(one, two)) == known(later(two, one))
    assert known(later(later(one, two), three)) == known(later(one, later(two, three)))
    merged = Cursor.of(EPOCH, one).merged(Cursor.of(EPOCH, two)).by_partition
    assert known(merged) == known(later(one, two))


# --- resuming

events = st.lists(st.tuples(partitions, st.booleans()), min_size=1, max_size=30)


def log_of(made: list[tuple[int, bool]]) -> tuple[list[Row], dict[int, int]]:
    """The source's events in order of time, and where the partitions end; the others are somebody else's."""
    rows, ends = [], dict.fromkeys(range(8), 0)
    for time, (partition, ours) in enumerate(made):
        if ours:
            rows.append(Row(partition, ends[partition], f"e{time}", "push", time))
        ends[partition] += 1
    return rows, ends


def page_of(rows: list[Row], ends: dict[int, int], after: Positions) -> Page:
    """As the store gives it."""
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(row.partition, row.offset)
    wanted = [row for row in rows if row.offset > after.get(row.partition, -1)]
    places = {partition: Place(position=end, floor=0) for partition, end in ends.items()}
    through = {partition: end - 1 for partition, end in ends.items()}
    return Page(places=places, first=first, rows=wanted, through=through, more=False)


def told(rows: list[Row], ends: dict[int, int], since: str) -> list[tuple[str, str]]:
    """What a client that comes with this cursor is told: ids, each with the cursor that came with it."""
    feed = Feed("repo:o/x", (0,), EPOCH, b"")
    join = Join(known_by(parse_since(since)))
    page = page_of(rows, ends, join.after)
    feed.learn(page)
    named = {*feed.partitions, *join.after}
    join.fenced({partition: end for partition, end in ends.items() if partition in named})
    frames = feed.stored(join.read(page, feed.homes), join.known, old=True)
    last = feed.cursor_at(join.after, join.fence)
    said = [msgspec.json.decode(frame.body) for frame in frames]
    return [*((message["id"], message["cursor"]) for message in said), ("", last)]


@given(events, st.data())
def test_whoever_is_cut_off_anywhere_resumes_with_the_rest(made, data):
    rows, ends = log_of(made)
    first = told(rows, ends, "earliest")
    assert [name for name, _ in first[:-1]] == [row.id for row in rows]
    cut = data.draw(st.integers(0, len(first) - 1))
    rest = told(rows, ends, first[cut][1])
    assert [name for name, _ in rest[:-1]] == [name for name, _ in first[cut + 1 : -1]]
    assert told(rows, ends, rest[-1][1]) == [("", rest[-1][1])], "who knows all is told nothing"


@given(events, events, st.data())
def test_what_comes_later_in_partitions_that_no_cursor_names_is_told(made, more, data):
    rows, ends = log_of(made)
    everything, longer = log_of(made + more)
    cursor = data.draw(st.sampled_from([cursor for _, cursor in told(rows, ends, "earliest")]))
    known = Cursor.parse(cursor).by_partition
    wanted = [row.id for row in everything if row.offset > known.get(row.partition, -1)]
    assert [name for name, _ in told(everything, longer, cursor)[:-1]] == wanted
