"""What only a store in a file has: files that cannot be used, several processes, a busy event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from dualstream_lab.errors import StoreError
from dualstream_lab.store import Place, Query, SqliteStore, move_away, schema, writing
from dualstream_lab.store.schema import FEEDERS_KEPT, REBUILD

from .factories import SOURCES, event


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


BEFORE = """
CREATE TABLE log (epoch TEXT NOT NULL);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, position INTEGER NOT NULL, floor INTEGER NOT NULL,
    events INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE events (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source INTEGER NOT NULL, type TEXT NOT NULL,
    ts INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE INDEX events_of_source ON events (source);
PRAGMA application_id = 0x6475616C;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
INSERT INTO log VALUES ('e');
INSERT INTO partitions VALUES (0, 7, 3, 0);
"""


async def test_a_store_of_the_version_before_is_refused_and_makes_room_for_a_new_one(tmp_path):
    """It took ids for unique over all sources, so that events may be missing."""
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(BEFORE)
    connection.close()
    for read_only in (True, False):
        assert f"1 of the schema, and this program knows 2: {REBUILD}" in await refused(
            path, read_only=read_only
        )
    moved = move_away(path)
    assert moved == tmp_path / "store.db.before-1"
    with sqlite3.connect(moved) as connection:
        assert connection.execute("SELECT position, floor FROM partitions").fetchall() == [(7, 3)]
    connection.close()
    await (await filled(path)).close()


async def test_another_log_is_refused_with_the_command_that_helps(tmp_path):
    store = await filled(tmp_path / "store.db")
    with pytest.raises(StoreError, match=f"holds the log e, and this is the log f: .* {REBUILD}"):
        await store.begin("f", {0: 0})
    await store.close()


async def test_what_is_moved_away_is_whole_and_never_replaces_another(tmp_path):
    path = tmp_path / "store.db"
    for number in (1, 2):
        with subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE
        ) as writer:
            said = [int(writer.stdout.readline()) for _ in range(3)]
            writer.send_signal(signal.SIGKILL)
        assert path.with_name("store.db-wal").stat().st_size > 0
        moved = move_away(path)
        assert moved == tmp_path / f"store.db.before-{number}"
        assert not list(tmp_path.glob("store.db-*"))
        kept = await SqliteStore.open(moved)
        (page,) = await kept.pages([Query(SOURCES[0], {})], 10**6)
        assert len(page.rows) == page.places[0].position >= said[-1]
        await kept.close()


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_store_in_use_is_not_moved(tmp_path, read_only):
    path = tmp_path / "store.db"
    await (await filled(path)).close()
    store = await SqliteStore.open(path, read_only=read_only)
    with pytest.raises(StoreError, match="is open elsewhere: end every process that serves from it"):
        move_away(path)
    assert path.exists()
    assert (await store.places())[0].position == 100
    await store.close()


async def test_only_a_store_is_moved_away(tmp_path):
    path = tmp_path / "store.db"
    with pytest.raises(StoreError, match="does not exist"):
        move_away(path)
    with pytest.raises(StoreError, match="does not exist"):
        move_away(tmp_path)
    with sqlite3.connect(tmp_path / "theirs") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    for content in (b"", b"words\n" * 2000, (tmp_path / "theirs").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"is no store of recent events|is not a SQLite database"):
            move_away(path)
        assert path.read_bytes() == content


async def test_a_store_that_cannot_be_moved_goes_on_as_before(tmp_path, monkeypatch):
    path = tmp_path / "store.db"
    await (await filled(path)).close()
    with monkeypatch.context() as patch:  # a fake: who runs the tests may write everywhere

        def fake_rename(self, target):
            raise PermissionError(errno.EACCES, "Permission denied")

        patch.setattr(type(path), "rename", fake_rename)
        with pytest.raises(StoreError, match=r"cannot be moved to .*before-1: Permission denied"):
            move_away(path)
    store = await SqliteStore.open(path)
    assert store._threads["writing"]._connection._connection.execute("PRAGMA journal_mode").fetchone() == (
        "wal",
    )
    assert await store.apply(0, 100, 101, [event(100)]) == 1
    await store.close()


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
    writer = store._threads["writing"]._connection._connection
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


async def test_a_new_source_of_an_apply_that_failed_is_new_again(tmp_path, monkeypatch):
    """Its number, and that it was in the partition, are not remembered from what was rolled back."""
    store = await filled(tmp_path / "store.db")
    writer = store._threads["writing"]._connection
    insert = writer._insert

    def fake_insert(partition, events):
        insert(partition, events)
        raise sqlite3.OperationalError("fake")

    monkeypatch.setattr(writer, "_insert", fake_insert)
    new = [event(100, source=SOURCES[1])]
    with pytest.raises(StoreError):
        await store.apply(0, 100, 101, new)
    monkeypatch.undo()
    assert await store.apply(0, 100, 101, new) == 1
    (page,) = await store.pages([Query(SOURCES[1], {})], 10)
    assert (page.first, [row.offset for row in page.rows]) == ({0: 100}, [100])
    await store.close()


async def test_two_processors_of_one_store_know_the_same_sources(tmp_path):
    first, second = [await SqliteStore.open(tmp_path / "store.db") for _ in range(2)]
    await first.begin("e", {0: 0, 1: 0})
    await second.apply(1, 0, 1, [event(0, partition=1)])
    for at in range(0, 40, 4):
        await first.apply(0, at, at + 2, [event(o, source=SOURCES[o // 2 % 3]) for o in (at, at + 1)])
        await second.apply(
            0, at + 2, at + 4, [event(o, source=SOURCES[o // 2 % 3]) for o in (at + 2, at + 3)]
        )
    pages = await first.pages([Query(source, {}) for source in SOURCES], 100)
    assert [page.first for page in pages] == [{0: 0, 1: 0}, {0: 2}, {0: 4}]
    for number, page in enumerate(pages):
        assert [row.offset for row in page.rows if row.partition == 0] == [
            o for o in range(40) if o // 2 % 3 == number
        ]
    await first.close()
    await second.close()


REPORT = """
import asyncio, sys
from pathlib import Path
from dualstream_lab.store import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await store.report(sys.argv[2], group="g", partitions=[int(sys.argv[3])], troubles={"kafka": sys.argv[2]})
    await store.close()

asyncio.run(main())
"""


async def test_processors_of_other_processes_are_seen_for_an_hour(tmp_path, monkeypatch):
    path = tmp_path / "store.db"
    await (await filled(path)).close()
    for name, partition in (("a", "0"), ("b", "1")):
        subprocess.run(  # noqa: ASYNC221
            [sys.executable, "-c", REPORT, str(path), name, partition], check=True
        )
    reader = await SqliteStore.open(path, read_only=True)
    assert [(f.name, f.partitions, f.troubles) for f in await reader.feeders()] == [
        ("b", [1], {"kafka": "b"}),
        ("a", [0], {"kafka": "a"}),
    ]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + FEEDERS_KEPT + 60)  # a fake clock
    assert await reader.feeders() == [], "also when nobody reports any more"
    store = await SqliteStore.open(path)
    await store.report("c", group="g", partitions=[], troubles={})
    names = store._threads["writing"]._connection._connection.execute("SELECT name FROM feeders").fetchall()
    assert names == [("c",)]
    await store.close()
    await reader.close()


WRITE = """
import asyncio, sys
from pathlib import Path
from dualstream_lab.store import SqliteStore
from tests.store.factories import event

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
from tests.store.factories import event

def killing(statement):
    if statement.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    store._threads["writing"]._connection._connection.set_trace_callback(killing)
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


async def test_what_is_beyond_the_bytes_goes_the_oldest_first_and_the_file_grows_no_more(tmp_path):
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    await store.begin("e", dict.fromkeys(range(2), 0))
    most = 2 * 2**20
    for round_ in range(8):
        for partition in range(2):
            first = round_ * 500
            new = [
                event(o, partition=partition, hours=10_000 - o, value=b"x" * 2000)
                for o in range(first, first + 500)
            ]
            await store.apply(partition, first, first + 500, new)
        await store.prune(age=10**9, count=10**6, size=most)
    (page,) = await store.pages([Query(SOURCES[0], {})], 10_000)
    kept = [row.offset for row in page.rows if row.partition == 0]
    assert kept == list(range(4000 - len(kept), 4000))
    assert 300 < len(kept) < 500
    assert page.places[0].floor == kept[0]
    await store.close()
    assert path.stat().st_size < most + 1000 * 2500, (
        "of 16 MB: what is kept, and one round that was to be pruned"
    )
