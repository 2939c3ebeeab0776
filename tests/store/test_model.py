"""Any sequence of changes, and every question after each: the store says what the model says."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstream_lab.errors import StoreConflict
from dualstream_lab.store import Hole, Query, SqliteStore, writing

from .factories import HOUR, SOURCES, event
from .model import ModelStore

PARTITIONS = (0, 1, 5)
AFTER = ({}, {0: 0}, {0: 9, 1: 12}, {1: 3, 5: 40, 7: 0})
AGES = (5, 15, 25, 35)  # hours, and none of them near an age that is pruned

events = st.tuples(st.integers(0, 3), st.integers(0, 30), st.sampled_from(SOURCES), st.sampled_from(AGES))
applied = st.tuples(
    st.just("apply"), st.sampled_from(PARTITIONS), st.sampled_from((0, 0, 0, 0, 1, -1)),
    st.lists(events, max_size=12), st.integers(0, 2),
    st.sampled_from((None, None, None, None, "retention", "compaction")),
)  # fmt: skip
pruned = st.tuples(st.just("prune"), st.sampled_from((0, 10, 20, 1000)), st.integers(1, 40))
begun = st.tuples(st.just("begin"), st.dictionaries(st.sampled_from(PARTITIONS), st.integers(0, 25)))


async def same(stores, ask):
    """The answer, or how it was refused."""
    answers = []
    for store in stores:
        try:
            answers.append(await ask(store))
        except StoreConflict:
            answers.append("conflict")
    assert answers[0] == answers[1]
    return answers[0]


async def change(stores, step):
    if step[0] == "begin":
        return await same(stores, lambda store: store.begin("e", step[1]))
    if step[0] == "prune":
        return await same(stores, lambda store: store.prune(age=step[1] * HOUR, count=step[2]))
    _, partition, wrong, drawn, rest, reason = step
    first = max(0, (await stores[0].places())[partition].position + wrong)
    offset, batch, holes = first, [], []
    for gap, name, source, age in drawn:
        if reason and gap > 1:
            holes.append(Hole(offset, offset + gap, reason))
        offset += gap
        batch.append(event(offset, partition=partition, name=f"id{name}", source=source, hours=age))
        offset += 1
    return await same(stores, lambda store: store.apply(partition, first, offset + rest, batch, holes))


async def compare(stores):
    await same(stores, lambda store: store.epoch())
    await same(stores, lambda store: store.places())
    queries = [Query(source, after) for source in (*SOURCES, "repo:x/y") for after in AFTER]
    for limit in (1, 3, 50):
        await same(stores, lambda store, limit=limit: store.pages(queries, limit))
    for source, after in itertools.product(SOURCES, (None, *AFTER)):
        for limit, most in ((3, 2**62), (10, 1), (10, 60)):
            await same(
                stores,
                lambda store, s=source, a=after, n=limit, m=most: store.recent(
                    s, limit=n, after=a, max_bytes=m
                ),
            )
    for name, source in itertools.product(range(31), (None, SOURCES[0])):
        await same(stores, lambda store, n=name, s=source: store.find(f"id{n}", source=s))
    for partition, offset in itertools.product(PARTITIONS, range(40)):
        await same(stores, lambda store, p=partition, o=offset: store.at(p, o))


async def run(store, steps):
    for table in ("log", "partitions", "sources", "origins", "events"):
        store._threads["writing"]._connection._connection.execute(f"DELETE FROM {table}")
    store._threads["writing"]._connection._sources.clear()
    stores = (store, ModelStore())
    await change(stores, ("begin", {0: 0, 1: 7, 5: 0}))
    for step in steps:
        await change(stores, step)
    await compare(stores)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """So that a few events take as many statements and transactions as millions."""
    monkeypatch.setattr(writing, "_LARGEST", 4)
    monkeypatch.setattr(writing, "_SMALLEST", 4)
    monkeypatch.setattr(writing, "_PRUNED", 5)
    monkeypatch.setattr(writing, "_PRUNED_LEAST", 2)
    monkeypatch.setattr(writing, "_MAX_SOURCES", 2)


def test_it_says_what_the_model_says(tmp_path):
    with asyncio.Runner() as runner:
        store = runner.run(SqliteStore.open(tmp_path / "store.db"))

        @settings(max_examples=300, deadline=None)
        @given(st.lists(st.one_of(applied, applied, applied, pruned, begun), max_size=12))
        def compared(steps):
            runner.run(run(store, steps))

        compared()
        runner.run(store.close())
