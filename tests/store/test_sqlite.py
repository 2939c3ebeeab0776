"""What only a store in a file has: files that cannot be used, several processes, a busy event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter

import pytest

from dualstream_lab.errors import StoreError
from dualstream_lab.store import Place, Query, SqliteStore, schema, writing

from .making import SOURCES, event


async def refused(path, *, read_only=False):
    with pytest.raises(StoreError) as caught:
        await SqliteStore.open(path, read_only=read_only)
    assert str(path) in str(caught.value)
    return str(caught.value)


async def filled(path, count=100):
    store = await SqliteStore.open(path)
    await store.begin("e", {0: 0})
    await store.apply(0, 0, count, [event(offset) for offset in range(count)])
    return store


async def test_noise_is_refused(tmp_path):
    path = tmp_path / "noise.db"
    path.write_bytes(os.urandom(50_000))
    assert "is not a SQLite database, or is damaged: move it away" in await refused(path)


async def test_a_damaged_store_is_refused_when_the_damage_is_met(tmp_path):
    path = tmp_path / "store.db"
    await (await filled(path, 5000)).close()
    with path.open("r+b") as file:
        file.seek(schema._PAGE)
        file.write(os.urandom(path.stat().st_size - schema._PAGE))
    store = await SqliteStore.open(path)
    with pytest.raises(StoreError, match="is damaged: `dualstream serve --rebuild-store` moves it away"):
        await store.recent(SOURCES[0], limit=1000)
    with pytest.raises(StoreError, match="is damaged"):
        await store.apply(0, 5000, 5001, [event(5000)])
    await store.close()


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    assert "is the database of another program: choose another --store" in await refused(path)
    assert path.read_bytes() == before


async def test_another_version_is_refused(tmp_path):
    path = tmp_path / "store.db"
    await (await filled(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "has version 99 of the schema, and this program knows 2" in await refused(path)


async def test_a_directory_that_is_not_there_is_refused(tmp_path):
    assert "cannot be opened: check that its directory exists" in await refused(tmp_path / "no/where.db")


async def test_a_directory_in_place_of_the_file_is_refused(tmp_path):
    assert "cannot be opened" in await refused(tmp_path)


async def test_reading_what_is_not_there_is_refused_and_makes_nothing(tmp_path):
    path = tmp_path / "store.db"
    assert "does not exist: start a processor on it first" in await refused(path, read_only=True)
    assert not path.exists()
    path.touch()
    assert "is empty: start a processor on it first" in await refused(path, read_only=True)


async def test_a_full_disk_is_said_so_and_the_store_goes_on_when_there_is_room(tmp_path):
    store = await filled(tmp_path / "store.db")
    writer = store._writing._connection._connection
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    big = [event(100, source=SOURCES[1], value=b"x" * 10**6)]
    with pytest.raises(StoreError, match="has no room left: free some of the disk"):
        await store.apply(0, 100, 101, big)
    assert await store.places() == {0: Place(100, 0)}
    writer.execute("PRAGMA max_page_count = 100000")
    assert await store.apply(0, 100, 101, big) == 1
    assert (await store.recent(SOURCES[1], limit=1))[1] == big
    await store.close()


async def test_pruning_in_pieces_takes_the_oldest_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_PRUNED", 6)
    monkeypatch.setattr(writing, "_PRUNED_LEAST", 2)
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.begin("e", dict.fromkeys(range(3), 0))
    for partition in range(3):
        old = [event(o, partition=partition, hours=1000 - 300 * partition - o) for o in range(30)]
        await store.apply(partition, 0, 30, old)
    assert await store.prune(age=10**9, count=55) == 35
    (page,) = await store.pages([Query(SOURCES[0], {})], 100)
    assert Counter(row.partition for row in page.rows) == {1: 25, 2: 30}
    assert [page.places[partition].floor for partition in range(3)] == [30, 5, 0]
    await store.close()


async def test_a_reader_cannot_write(tmp_path):
    await (await filled(tmp_path / "store.db")).close()
    reader = await SqliteStore.open(tmp_path / "store.db", read_only=True)
    with pytest.raises(StoreError, match="was opened read_only"):
        await reader.apply(0, 100, 101, [])
    await reader.close()


async def test_a_closed_store_says_so(tmp_path):
    store = await filled(tmp_path / "store.db")
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.places()
    with pytest.raises(StoreError, match="is closed"):
        await store.apply(0, 100, 101, [])


async def test_an_event_out_of_range_is_refused(tmp_path):
    store = await filled(tmp_path / "store.db")
    with pytest.raises(StoreError, match="out of the store's range"):
        await store.apply(0, 100, 1 << 60, [])
    with pytest.raises(StoreError, match="does not know partition 4"):
        await store.apply(4, 0, 1, [])
    await store.close()


async def test_many_may_make_one_file_at_once(tmp_path):
    stores = await asyncio.gather(*(SqliteStore.open(tmp_path / "store.db") for _ in range(8)))
    await asyncio.gather(*(store.begin("e", {0: 0}) for store in stores))
    await asyncio.gather(*(store.close() for store in stores))


WRITE = """
import asyncio, sys
from pathlib import Path
from dualstream_lab.store import SqliteStore
from tests.store.making import event

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await store.begin("e", {0: 0})
    at = (await store.places())[0].position
    while True:
        await store.apply(0, at, at + 100, [event(offset) for offset in range(at, at + 100)])
        at += 100
        print(at, flush=True)

asyncio.run(main())
"""


async def test_what_a_killed_writer_said_it_applied_is_there_and_whole(tmp_path):
    path = tmp_path / "store.db"
    reader = said = None
    for _ in range(3):
        with subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE
        ) as writer:
            said = [int(writer.stdout.readline()) for _ in range(5)]
            reader = reader or await SqliteStore.open(path, read_only=True)
            assert (await reader.places())[0].position >= said[-1]
            writer.send_signal(signal.SIGKILL)
        position = (await reader.places())[0].position
        (page,) = await reader.pages([Query(SOURCES[0], {})], 10**6)
        assert position >= said[-1]
        assert [row.offset for row in page.rows] == list(range(page.places[0].position))
    await reader.close()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from dualstream_lab.store import SqliteStore
from tests.store.making import event

def killing(statement):
    if statement.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    store._writing._connection._connection.set_trace_callback(killing)
    await store.apply(0, 100, 200, [event(offset) for offset in range(100, 200)])

asyncio.run(main())
"""


@pytest.mark.parametrize("before", ["BEGIN", "INSERT", "UPDATE partitions", "COMMIT"])
async def test_killed_within_a_transaction_neither_events_nor_position_are_there(tmp_path, before):
    path = tmp_path / "store.db"
    await (await filled(path)).close()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), before], check=False)  # noqa: ASYNC221
    assert killed.returncode == -signal.SIGKILL
    store = await SqliteStore.open(path)
    (page,) = await store.pages([Query(SOURCES[0], {})], 1000)
    assert (page.places[0].position, len(page.rows)) == (100, 100)
    assert await store.apply(0, 100, 200, [event(offset) for offset in range(100, 200)]) == 100
    await store.close()


async def test_a_reader_sees_one_moment_while_others_write(tmp_path):
    """Every page's rows reach up to its position, whatever is applied and pruned meanwhile."""
    store = await filled(tmp_path / "store.db")
    reader = await SqliteStore.open(tmp_path / "store.db", read_only=True)
    done = False

    async def write():
        nonlocal done
        for at in range(100, 3100, 10):
            await store.apply(0, at, at + 10, [event(offset) for offset in range(at, at + 10)])
            if at % 100 == 0:
                await store.prune(age=10**9, count=50)
        done = True

    writing = asyncio.create_task(write())
    looks = 0
    while not done:
        (page,) = await reader.pages([Query(SOURCES[0], {})], 10**6)
        assert [row.offset for row in page.rows] == list(range(page.places[0].floor, page.places[0].position))
        looks += 1
    await writing
    assert looks > 10
    await reader.close()
    await store.close()


async def test_a_busy_thread_does_not_hold_up_reading_a_thousand_events(tmp_path):
    """A row at a time it would take 1,000 turns of the interpreter's lock, of 5 ms each."""
    store = await filled(tmp_path / "store.db", 1000)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            sum(range(1000))

    busy = threading.Thread(target=spin)
    busy.start()
    try:
        async with asyncio.timeout(10):
            for _ in range(4):
                _, events = await store.recent(SOURCES[0], limit=1000)
            pages = await store.pages([Query(SOURCES[0], {})], 1000)
            await store.prune(age=10**9, count=10)
    finally:
        stop.set()
        busy.join()
    assert len(events) == len(pages[0].rows) == 1000
    await store.close()
