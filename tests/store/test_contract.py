"""What every store owes: run against each kind of it."""

from __future__ import annotations

import asyncio

import pytest

from dualstream_lab.errors import StoreConflict, StoreError
from dualstream_lab.store import Hole, Place, Query, StoredEvent

from .factories import HOUR, NOW, SOURCES, event

SOURCE, OTHER, THIRD = SOURCES


def offsets(page, partition=0):
    return [row.offset for row in page.rows if row.partition == partition]


def spots(rows):
    return [(row.partition, row.offset) for row in rows]


async def page(store, *, after=(), limit=100, source=SOURCE):
    (found,) = await store.pages([Query(source, dict(after))], limit)
    return found


async def ids(store, *names):
    return [spots(await store.find(name)) for name in names]


async def test_a_new_store_holds_nothing(store):
    assert await store.epoch() is None
    assert await store.places() == {}
    assert await store.find("id") == []
    assert await store.at(0, 0) is None
    assert await store.feeders() == []
    assert await store.pages([], 10) == []
    found = await page(store)
    assert (found.places, found.first, found.rows, found.through, found.more) == ({}, {}, [], {}, False)
    assert (await store.recent(SOURCE, limit=3))[1] == []


async def test_begin_claims_it_for_one_log(store):
    await store.begin("e1", {0: 0, 1: 7})
    await store.begin("e1", {0: 0, 1: 7})
    assert await store.epoch() == "e1"
    assert await store.places() == {0: Place(0, 0), 1: Place(7, 7)}
    with pytest.raises(StoreError):
        await store.begin("e2", {0: 0, 1: 0, 2: 0})
    assert await store.places() == {0: Place(0, 0), 1: Place(7, 7)}


async def test_begin_takes_in_partitions_that_were_added(store):
    await store.begin("e", {0: 0})
    await store.apply(0, 0, 3, [event(0)])
    await store.begin("e", {0: 0, 1: 0})
    assert await store.places() == {0: Place(3, 0), 1: Place(0, 0)}
    assert await store.apply(1, 0, 1, [event(0, partition=1)]) == 1
    found = await page(store)
    assert (spots(found.rows), found.first) == ([(0, 0), (1, 0)], {0: 0, 1: 0})


async def test_begin_never_goes_back(store):
    await store.begin("e", {0: 5})
    await store.apply(0, 5, 8, [event(5)])
    await store.begin("e", {0: 3})
    assert await store.places() == {0: Place(8, 5)}
    await store.begin("e", {0: 8})
    assert await store.places() == {0: Place(8, 5)}


async def test_what_retention_took_between_kept_events_is_a_hole(store):
    await store.begin("e", {0: 5, 1: 0})
    await store.apply(0, 5, 8, [event(5, name="x"), event(6)])
    await store.begin("e", {0: 20, 1: 10})
    assert await store.places() == {0: Place(20, 20, 20, "retention"), 1: Place(10, 10)}
    assert offsets(await page(store)) == []
    assert await store.apply(0, 20, 22, [event(20, name="x"), event(21)]) == 1, "what is kept is known"
    assert offsets(await page(store)) == [21]


async def test_apply_inserts_and_moves_the_position(store):
    await store.begin("e", {0: 0, 1: 0})
    assert await store.apply(0, 0, 3, [event(0), event(2)]) == 2
    assert await store.apply(0, 3, 9, []) == 0
    found = await page(store)
    assert found.places == await store.places() == {0: Place(9, 0), 1: Place(0, 0)}
    assert (offsets(found), found.through, found.more) == ([0, 2], {0: 8, 1: -1}, False)
    assert [(row.id, row.type, row.ts) for row in found.rows] == [
        ("id-0-0", "push", NOW),
        ("id-0-2", "push", NOW),
    ]


@pytest.mark.parametrize("first", [0, 4, 6])
async def test_apply_to_another_position_conflicts_and_changes_nothing(store, first):
    await store.begin("e", {0: 0})
    await store.apply(0, 0, 5, [event(1)])
    with pytest.raises(StoreConflict):
        await store.apply(0, first, 9, [event(7, source=OTHER)], [Hole(8, 9, "compaction")])
    assert await store.places() == {0: Place(5, 0)}
    assert await store.at(0, 7) is None
    assert (await page(store, source=OTHER)).first == {}
    assert await store.apply(0, 5, 9, [event(7, source=OTHER)]) == 1
    found = await page(store, source=OTHER)
    assert (offsets(found), found.first) == ([7], {0: 7})


async def test_of_two_that_apply_at_once_one_wins(store):
    await store.begin("e", {0: 0})
    tries = [store.apply(0, 0, 5, [event(2, name=f"by-{who}")]) for who in range(4)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(result) for result in results if result != 1] == [StoreConflict] * 3
    assert len((await page(store)).rows) == 1


async def test_the_first_of_an_id_of_a_source_stays(store):
    await store.begin("e", {0: 0, 1: 0})
    assert await store.apply(0, 0, 3, [event(0, name="x"), event(1, name="x"), event(2)]) == 2
    assert (
        await store.apply(1, 0, 2, [event(0, partition=1, name="x", value=b"{}"), event(1, partition=1)]) == 1
    )
    (kept,) = await store.find("x")
    assert (kept.partition, kept.offset, kept.value) == (0, 0, b'{"n":0}')
    assert await store.at(1, 0) is None


async def test_two_sources_may_number_from_one_both(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 4, [event(o, name=str(o // 2), source=SOURCES[o % 2]) for o in range(4)])
    assert (
        await store.apply(1, 0, 2, [event(o, partition=1, name=str(o), source=THIRD) for o in range(2)]) == 2
    )
    assert [offsets(await page(store, source=source)) for source in (SOURCE, OTHER)] == [[0, 2], [1, 3]]
    assert await ids(store, "0", "1") == [[(0, 0), (0, 1), (1, 0)], [(0, 2), (0, 3), (1, 1)]]
    assert [e.source for e in await store.find("1", source=OTHER)] == [OTHER]
    assert await store.find("1", source="repo:no/where") == []
    assert len(await store.find("1", limit=2)) == 2


async def test_the_event_comes_back_as_it_was(store):
    await store.begin("e", {3: 0})
    whole = StoredEvent(3, 2**40, 'i"d', "type\u2028", THIRD, NOW, '{"ü":"\x00"}'.encode())
    bare = StoredEvent(3, 2**40 + 1, "bare", "type", THIRD, NOW, b"")
    await store.apply(3, 0, 2**40 + 2, [whole, bare])
    assert await store.find('i"d') == [whole]
    assert await store.find('i"d', source=THIRD) == [whole]
    assert await store.at(3, 2**40) == whole
    assert await store.at(3, 2**40 + 1) == bare
    assert (await store.recent(THIRD, limit=2))[1] == [whole, bare]


async def test_at_a_position_that_no_event_has_there_is_none(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 2, [event(1)])
    for partition, offset in ((0, 0), (1, 1), (7, 1), (0, 10**18), (0, -1), (-1, 1), (10**9, 1), (0, 10**30)):
        assert await store.at(partition, offset) is None, (partition, offset)


async def test_a_page_has_the_first_events_of_one_source_after_an_offset(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 11, [event(o, source=SOURCES[o % 2]) for o in range(10)])
    await store.apply(1, 0, 10, [event(o, partition=1, source=THIRD) for o in range(10)])
    found = await page(store, after={0: 2}, limit=2)
    assert (spots(found.rows), found.more, found.through) == ([(0, 4), (0, 6)], True, {0: 6, 1: 9})
    found = await page(store, after={0: 6, 1: 3}, limit=2)
    assert (spots(found.rows), found.more, found.through) == ([(0, 8)], False, {0: 10, 1: 9})
    found = await page(store, after={0: 8})
    assert (found.rows, found.first) == ([], {0: 0})


async def test_a_source_in_several_partitions_comes_in_the_order_of_time(store):
    """Ages in hours; the one of 7 stands behind a younger one of its partition, and waits for it."""
    await store.begin("e", dict.fromkeys(range(4), 0))
    for partition, ages in enumerate([(9, 5, 7, 1), (8, 3), (), (4,)]):
        batch = [event(o + 1, partition=partition, hours=age) for o, age in enumerate(ages)]
        await store.apply(partition, 0, 9, batch)
    order = [(0, 1), (1, 1), (0, 2), (0, 3), (3, 1), (1, 2), (0, 4)]
    found = await page(store)
    assert (spots(found.rows), found.more) == (order, False)
    assert (found.first, found.through) == ({0: 1, 1: 1, 3: 1}, dict.fromkeys(range(4), 8))
    found = await page(store, limit=3)
    assert (spots(found.rows), found.more) == (order[:3], True)
    assert found.through == {0: 2, 1: 1, 2: 8, 3: -1}, "where more is, no further than its last row"
    assert spots((await page(store, after=found.through)).rows) == order[3:]
    found = await page(store, limit=6)
    assert found.through == {0: 3, 1: 8, 2: 8, 3: 8}
    found, events = await store.recent(SOURCE, limit=3, after={0: 2, 1: 1})
    assert (spots(events), spots(found.rows), found.more) == (order[3:6], order[3:6], True)
    assert found.through == {0: 3, 1: 8, 2: 8, 3: 8}
    found, events = await store.recent(SOURCE, limit=2)
    assert (spots(events), found.through, found.more) == (order[5:], dict.fromkeys(range(4), 8), True)


async def test_a_page_of_recent_events_is_bounded_in_bytes(store):
    await store.begin("e", {0: 0})
    events = [event(offset) for offset in range(6)]
    await store.apply(0, 0, 6, events)
    size = len(events[0].value)
    assert all(len(one.value) == size for one in events)
    for most, shown in ((1, 1), (size, 1), (size + 1, 2), (3 * size, 3), (100 * size, 6)):
        found, old = await store.recent(SOURCE, limit=50, after={}, max_bytes=most)
        assert (old, found.more) == (events[:shown], shown < 6)
        assert found.through[0] == (shown - 1 if shown < 6 else 5)
        found, new = await store.recent(SOURCE, limit=50, max_bytes=most)
        assert (new, found.more) == (events[6 - shown :], shown < 6)


async def test_events_of_one_time_come_by_partition(store):
    await store.begin("e", dict.fromkeys(range(3), 0))
    for partition in (2, 0, 1):
        await store.apply(partition, 0, 2, [event(o, partition=partition) for o in range(2)])
    order = [(p, o) for p in range(3) for o in range(2)]
    assert spots((await page(store)).rows) == order
    assert spots((await store.recent(SOURCE, limit=10))[1]) == order
    assert spots((await store.recent(SOURCE, limit=3))[1]) == order[3:]


async def test_pages_come_in_the_order_of_their_queries(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 10, [event(o, source=SOURCES[o % 3]) for o in range(10)])
    asked = [
        (s, {p: a})
        for a in (-5, -1, 3, 10**15, 10**18)
        for s in (*SOURCES, "repo:no/where")
        for p in (1, 0, 9)
    ]
    found = await store.pages([Query(*each) for each in asked], 100)
    for (source, after), each in zip(asked, found, strict=True):
        known = [o for o in range(10) if source == SOURCES[o % 3] and o > after.get(0, -1)]
        assert offsets(each) == known
        assert each.places is found[0].places


async def test_recent_gives_the_newest_or_what_follows_a_cursor(store):
    await store.begin("e", {2: 0})
    await store.apply(2, 0, 9, [event(o, partition=2) for o in range(8)])
    found, events = await store.recent(SOURCE, limit=3)
    assert ([e.offset for e in events], offsets(found, 2)) == ([5, 6, 7],) * 2
    assert (found.more, found.through, found.places) == (True, {2: 8}, {2: Place(9, 0)})
    assert events[0] == event(5, partition=2)
    found, events = await store.recent(SOURCE, limit=3, after={2: 3})
    assert ([e.offset for e in events], found.more, found.through) == ([4, 5, 6], True, {2: 6})
    found, events = await store.recent(SOURCE, limit=3, after={2: 4})
    assert ([e.offset for e in events], found.more, found.through) == ([5, 6, 7], False, {2: 8})
    found, events = await store.recent(SOURCE, limit=8)
    assert (len(events), found.more) == (8, False)
    found, events = await store.recent(SOURCE, limit=8, after={})
    assert (len(events), found.more) == (8, False)


async def test_recent_of_a_source_without_events_speaks_of_every_partition(store):
    await store.begin("e", {0: 0, 1: 4})
    await store.apply(1, 4, 6, [])
    for after in (None, {1: 3}):
        found, events = await store.recent("repo:no/where", limit=3, after=after)
        assert (events, found.rows, found.first, found.more) == ([], [], {}, False)
        assert (found.places, found.through) == ({0: Place(0, 0), 1: Place(6, 4)}, {0: -1, 1: 5})


async def test_what_lies_before_a_hole_is_kept_and_not_shown(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(1, 0, 1, [event(0, partition=1)])
    holes = [Hole(3, 5, "compaction"), Hole(8, 12, "retention"), Hole(13, 14, "compaction")]
    await store.apply(0, 0, 20, [event(o) for o in (2, 6, 12, 15, 18)], holes)
    assert await store.places() == {0: Place(20, 14, 14, "compaction"), 1: Place(1, 0)}
    for after in ({}, {0: 1}, {0: 5}):
        found = await page(store, after=after)
        assert (spots(found.rows), found.first) == ([(0, 15), (0, 18), (1, 0)], {0: 2, 1: 0})
        assert spots((await store.recent(SOURCE, limit=9, after=after))[1]) == [(0, 15), (0, 18), (1, 0)]
    found = await page(store, limit=1, after={0: 1})
    assert (spots(found.rows), found.through) == ([(0, 15)], {0: 15, 1: -1})
    assert spots((await store.recent(SOURCE, limit=9))[1]) == [(0, 15), (0, 18), (1, 0)]
    assert (await store.at(0, 6), await ids(store, "id-0-6")) == (event(6), [[(0, 6)]])
    assert await store.apply(0, 20, 21, [event(20, name="id-0-2")]) == 0


async def test_a_page_goes_through_what_lies_below_the_floor(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 1, [event(0, hours=2)])
    await store.apply(1, 0, 9, [event(7, partition=1)], [Hole(0, 5, "compaction")])
    found = await page(store, limit=1)
    assert (spots(found.rows), found.through) == ([(0, 0)], {0: 0, 1: 4})
    found, _ = await store.recent(SOURCE, limit=1, after={1: 2})
    assert found.through == {0: 0, 1: 4}


async def test_a_hole_is_known_while_something_before_it_is_kept(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 3, [event(0, hours=90), event(2, hours=80)])
    await store.begin("e", {0: 10})
    await store.apply(0, 10, 12, [event(11, hours=10)])
    assert await store.prune(age=85 * HOUR, count=100) == 1
    assert await store.places() == {0: Place(12, 10, 10, "retention"), 1: Place(0, 0)}
    assert await store.prune(age=50 * HOUR, count=100) == 1
    assert await store.places() == {0: Place(12, 10), 1: Place(0, 0)}
    assert offsets(await page(store)) == [11]


async def test_a_hole_before_all_that_is_kept_is_known_until_more_is_removed(store):
    await store.begin("e", {0: 0})
    await store.apply(0, 0, 12, [event(10, hours=90), event(11)], [Hole(0, 10, "compaction")])
    assert await store.prune(age=100 * HOUR, count=100) == 0
    assert await store.places() == {0: Place(12, 10, 10, "compaction")}
    assert await store.prune(age=50 * HOUR, count=100) == 1
    assert await store.places() == {0: Place(12, 11)}


async def test_where_a_source_was_first_stays_known_when_the_event_is_gone(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 9, [event(3, hours=90), event(5, hours=90), event(8)])
    await store.apply(1, 0, 9, [event(6, partition=1, hours=90)])
    await store.prune(age=50 * HOUR, count=100)
    await store.apply(1, 9, 10, [event(9, partition=1)])
    assert (await page(store)).first == {0: 3, 1: 6}
    assert (await store.recent(SOURCE, limit=1))[0].first == {0: 3, 1: 6}


async def test_prune_by_age_takes_the_beginning_of_a_partition_and_moves_its_floor(store):
    await store.begin("e", {0: 0, 1: 0})
    ages = (100, 100, 10, 100, 10)  # the fourth is old, but behind one that is not
    await store.apply(0, 0, 9, [event(o * 2, hours=age) for o, age in enumerate(ages)])
    await store.apply(1, 0, 9, [event(3, partition=1)])
    assert await store.prune(age=50 * HOUR, count=100) == 2
    found = await page(store)
    assert (offsets(found), found.places) == ([4, 6, 8], {0: Place(9, 3), 1: Place(9, 0)})
    assert await store.find("id-0-0") == []
    assert await store.prune(age=50 * HOUR, count=100) == 0
    assert await store.prune(age=5 * HOUR, count=100) == 3
    found = await page(store)
    assert (offsets(found), found.places) == ([], {0: Place(9, 9), 1: Place(9, 0)})


async def test_prune_by_count_takes_the_oldest_of_all_partitions(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 6, [event(o, hours=60 - 10 * o) for o in range(6)])
    await store.apply(1, 0, 3, [event(o, partition=1, hours=35 - 20 * o) for o in range(2)])
    assert await store.prune(age=1000 * HOUR, count=4) == 4
    found = await page(store)
    assert (offsets(found), offsets(found, 1)) == ([3, 4, 5], [1])
    assert await store.prune(age=1000 * HOUR, count=4) == 0


async def test_an_id_is_free_again_when_its_event_is_gone(store):
    await store.begin("e", {0: 0})
    await store.apply(0, 0, 1, [event(0, name="x", hours=100)])
    await store.prune(age=50 * HOUR, count=10)
    assert await store.apply(0, 1, 2, [event(1, name="x")]) == 1
    assert await ids(store, "x") == [[(0, 1)]]


async def test_processors_say_that_they_live_and_what_troubles_them(store):
    await store.report("a", group="g", partitions={2, 0}, troubles={})
    await store.report("b", group="g2", partitions=[], troubles={"partition 1": 'no "codec"'})
    b, a = await store.feeders()
    assert (a.name, a.group, a.partitions, a.troubles) == ("a", "g", [0, 2], {})
    assert (b.name, b.group, b.partitions, b.troubles) == ("b", "g2", [], {"partition 1": 'no "codec"'})
    assert 0 <= b.seen <= a.seen < 60
    await store.report("a", group="g", partitions=[0], troubles={"kafka": "gone"})
    a, b = await store.feeders()
    assert (a.name, a.partitions, a.troubles, b.name) == ("a", [0], {"kafka": "gone"}, "b")


async def test_closing_twice_is_harmless(store):
    await store.close()
    await store.close()
