"""What every store owes: run against each kind of it."""

from __future__ import annotations

import asyncio

import pytest

from dualstream_lab.errors import StoreConflict, StoreError
from dualstream_lab.store import Query, StoredEvent

from .making import HOUR, NOW, SOURCES, event

SOURCE = SOURCES[0]


def offsets(page):
    return [row.offset for row in page.rows]


async def page(store, *, after=-1, limit=100, source=SOURCE, partition=0):
    (found,) = await store.pages([Query(source, partition, after)], limit)
    return found


async def test_a_new_store_holds_nothing(store):
    assert await store.epoch() is None
    assert await store.positions() == {}
    assert await store.get("id") is None
    assert await store.pages([], 10) == []
    found = await page(store)
    assert (found.position, found.floor, found.rows, found.more) == (0, 0, [], False)
    assert (await store.recent(SOURCE, limit=3))[1] == []


async def test_begin_claims_it_for_one_log(store):
    await store.begin("e1", {0: 0, 1: 7})
    await store.begin("e1", {0: 0, 1: 7})
    assert await store.epoch() == "e1"
    assert await store.positions() == {0: 0, 1: 7}
    with pytest.raises(StoreError):
        await store.begin("e2", {0: 0, 1: 0, 2: 0})
    assert await store.positions() == {0: 0, 1: 7}


async def test_begin_moves_a_partition_up_to_where_its_log_begins_and_never_back(store):
    await store.begin("e", {0: 5})
    await store.apply(0, 5, 8, [event(5)])
    await store.begin("e", {0: 3})
    assert (await page(store)).position == 8
    await store.begin("e", {0: 20})
    found = await page(store)
    assert (found.position, found.floor, offsets(found)) == (20, 20, [5])


async def test_apply_inserts_and_moves_the_position(store):
    await store.begin("e", {0: 0, 1: 0})
    assert await store.apply(0, 0, 3, [event(0), event(2)]) == 2
    assert await store.apply(0, 3, 9, []) == 0
    assert await store.positions() == {0: 9, 1: 0}
    found = await page(store)
    assert (offsets(found), found.position, found.floor, found.more) == ([0, 2], 9, 0, False)
    assert [(row.id, row.type, row.ts) for row in found.rows] == [
        ("id-0-0", "push", NOW),
        ("id-0-2", "push", NOW),
    ]


@pytest.mark.parametrize("first", [0, 4, 6])
async def test_apply_to_another_position_conflicts_and_changes_nothing(store, first):
    await store.begin("e", {0: 0})
    await store.apply(0, 0, 5, [event(1)])
    with pytest.raises(StoreConflict):
        await store.apply(0, first, 9, [event(7, source=SOURCES[1])])
    assert await store.positions() == {0: 5}
    assert await store.get("id-0-7") is None
    assert await store.apply(0, 5, 9, [event(7, source=SOURCES[1])]) == 1
    assert (await page(store, source=SOURCES[1])).rows


async def test_of_two_that_apply_at_once_one_wins(store):
    await store.begin("e", {0: 0})
    tries = [store.apply(0, 0, 5, [event(2, name=f"by-{who}")]) for who in range(4)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(result) for result in results if result != 1] == [StoreConflict] * 3
    assert len((await page(store)).rows) == 1


async def test_the_first_of_an_id_stays(store):
    await store.begin("e", {0: 0, 1: 0})
    assert await store.apply(0, 0, 3, [event(0, name="x"), event(1, name="x"), event(2)]) == 2
    assert (
        await store.apply(1, 0, 2, [event(0, partition=1, name="x", value=b"{}"), event(1, partition=1)]) == 1
    )
    kept = await store.get("x")
    assert (kept.partition, kept.offset, kept.value) == (0, 0, b'{"n":0}')


async def test_get_gives_the_event_as_it_was(store):
    await store.begin("e", {3: 0})
    whole = StoredEvent(3, 2**40, 'i"d', "type\u2028", SOURCES[2], NOW, '{"ü":"\x00"}'.encode())
    await store.apply(3, 0, 2**40 + 1, [whole])
    assert await store.get('i"d') == whole
    assert (await store.recent(SOURCES[2], limit=1))[1] == [whole]


async def test_a_page_has_the_first_events_of_one_source_after_an_offset(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 10, [event(o, source=SOURCES[o % 2]) for o in range(10)])
    await store.apply(1, 0, 10, [event(o, partition=1) for o in range(10)])
    found = await page(store, after=2, limit=2)
    assert (offsets(found), found.more) == ([4, 6], True)
    found = await page(store, after=6, limit=2)
    assert (offsets(found), found.more) == ([8], False)
    assert offsets(await page(store, after=8)) == []


async def test_pages_come_in_the_order_of_their_queries(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 10, [event(o, source=SOURCES[o % 3]) for o in range(10)])
    asked = [
        (s, p, a) for a in (-1, 3, 10**15, 10**18) for s in (*SOURCES, "repo:no/where") for p in (1, 0, 9)
    ]
    found = await store.pages([Query(*each) for each in asked], 100)
    for (source, partition, after), each in zip(asked, found, strict=True):
        known = [o for o in range(10) if partition == 0 and source == SOURCES[o % 3] and o > after]
        assert offsets(each) == known
        assert each.position == {0: 10, 1: 0}.get(partition, 0)


async def test_recent_gives_the_newest_or_what_follows_a_cursor(store):
    await store.begin("e", {2: 0})
    await store.apply(2, 0, 9, [event(o, partition=2) for o in range(8)])
    found, events = await store.recent(SOURCE, limit=3)
    assert ([e.offset for e in events], offsets(found), found.more, found.position) == ([5, 6, 7],) * 2 + (
        True,
        9,
    )
    assert events[0] == event(5, partition=2)
    found, events = await store.recent(SOURCE, limit=3, after=3)
    assert ([e.offset for e in events], found.more) == ([4, 5, 6], True)
    found, events = await store.recent(SOURCE, limit=3, after=4)
    assert ([e.offset for e in events], found.more) == ([5, 6, 7], False)
    found, events = await store.recent(SOURCE, limit=8)
    assert (len(events), found.more) == (8, False)


async def test_recent_of_a_source_without_events_speaks_of_its_partition(store):
    await store.begin("e", {0: 0, 1: 4})
    await store.apply(1, 4, 6, [])
    found, events = await store.recent("repo:no/where", limit=3, partition=1)
    assert (events, found.position, found.floor, found.more) == ([], 6, 4, False)
    found, events = await store.recent("repo:no/where", limit=3)
    assert (events, found.position) == ([], 0)


async def test_prune_by_age_takes_the_beginning_of_a_partition_and_moves_its_floor(store):
    await store.begin("e", {0: 0, 1: 0})
    ages = (100, 100, 10, 100, 10)  # the fourth is old, but behind one that is not
    await store.apply(0, 0, 9, [event(o * 2, hours=age) for o, age in enumerate(ages)])
    await store.apply(1, 0, 9, [event(3, partition=1)])
    assert await store.prune(age=50 * HOUR, count=100) == 2
    found = await page(store)
    assert (offsets(found), found.floor, found.position) == ([4, 6, 8], 3, 9)
    assert (await page(store, partition=1)).floor == 0
    assert await store.get("id-0-0") is None
    assert await store.prune(age=50 * HOUR, count=100) == 0
    assert await store.prune(age=5 * HOUR, count=100) == 3
    found = await page(store)
    assert (offsets(found), found.floor, found.position) == ([], 9, 9)


async def test_prune_by_count_takes_the_oldest_of_all_partitions(store):
    await store.begin("e", {0: 0, 1: 0})
    await store.apply(0, 0, 6, [event(o, hours=60 - 10 * o) for o in range(6)])
    await store.apply(1, 0, 3, [event(o, partition=1, hours=35 - 20 * o) for o in range(2)])
    assert await store.prune(age=1000 * HOUR, count=4) == 4
    assert offsets(await page(store)) == [3, 4, 5]
    assert offsets(await page(store, partition=1)) == [1]
    assert await store.prune(age=1000 * HOUR, count=4) == 0


async def test_an_id_is_free_again_when_its_event_is_gone(store):
    await store.begin("e", {0: 0})
    await store.apply(0, 0, 1, [event(0, name="x", hours=100)])
    await store.prune(age=50 * HOUR, count=10)
    assert await store.apply(0, 1, 2, [event(1, name="x")]) == 1
    assert (await store.get("x")).offset == 1


async def test_closing_twice_is_harmless(store):
    await store.close()
    await store.close()
