"""The writing half of the SQLite store: claim, apply, prune. Blocking; one thread at a time.

A step of SQLite lets go of Python's lock and has to win it back, which takes up to 5 ms where the event
loop's thread is busy. So events go in by the thousand in one statement.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from math import ceil
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec

from dualstream_lab.errors import StoreConflict, StoreError
from dualstream_lab.record import StoredEvent
from dualstream_lab.store.contract import Hole
from dualstream_lab.store.schema import FEEDERS_KEPT, OFFSET_BITS, REBUILD, connect, key_of, storing

_LARGEST: Final = 4096  # events of one statement; SQLite takes 32,766 values
_SMALLEST: Final = 128  # at the end of a batch, not more statements than one
_CACHE: Final = 64 * 2**20  # bytes: so that the index of ids is looked up in memory
_CHECKPOINT: Final = 4000  # pages of the write-ahead log after which it is copied into the file
_MAX_LOG: Final = 64 * 2**20
_PRAGMAS: Final = (
    "synchronous = NORMAL",  # a power cut may take the last transactions, whole: Kafka has them
    f"cache_size = -{_CACHE // 1024}",
    f"wal_autocheckpoint = {_CHECKPOINT}",
    f"journal_size_limit = {_MAX_LOG}",
)
_MAX_SOURCES: Final = 100_000  # numbers of sources kept in mind, in each of their partitions
_PRUNED: Final = 2000  # events removed in one transaction: others wait for it some 20 ms
_PRUNED_LEAST: Final = 50  # events of a partition looked at for that


_SOURCES_OF: Final = "json_each(:new) AS n JOIN sources AS s ON s.name = json_extract(n.value, '$[0]')"
_NEW_SOURCES: Final = (
    "INSERT OR IGNORE INTO sources (name) SELECT json_extract(value, '$[0]') FROM json_each(:new)"
)
_NEW_ORIGINS: Final = (
    "INSERT OR IGNORE INTO origins SELECT s.id, :partition, json_extract(n.value, '$[1]')"  # noqa: S608
    f" FROM {_SOURCES_OF}"
)
_NUMBERS: Final = f"SELECT json_group_object(s.name, s.id) FROM {_SOURCES_OF}"  # noqa: S608


@cache  # few sizes, so that their statements stay prepared
def _insert(count: int) -> str:
    return "INSERT OR IGNORE INTO events VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?)"] * count)  # noqa: S608


class Writer:
    """The one connection of a process that writes. Raises StoreError, and nothing is changed then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sources: dict[int, dict[str, int]] = {}  # by partition: those that have an origin there
        with storing(path):
            self._connection = connect(path, _PRAGMAS, read_only=False)

    def close(self) -> None:
        """Close the file of the store."""
        with storing(self._path):
            self._connection.close()

    def begin(self, epoch: str, first: Mapping[int, int]) -> None:
        """See :meth:`Store.begin`."""
        with self._transaction() as execute:
            held = execute("SELECT epoch FROM log").fetchone()
            if held is None:
                execute("INSERT INTO log VALUES (?)", (epoch,))
            elif held[0] != epoch:
                raise StoreError(
                    f"store {self._path} holds the log {held[0]}, and this is the log {epoch}: the topic was "
                    f"made anew, or is another one; {REBUILD}, or choose another --store"
                )
            for partition, offset in first.items():
                key_of(partition, offset)
                execute(
                    "INSERT INTO partitions (id, position, floor) VALUES (:p, :o, :o) ON CONFLICT (id) DO "
                    "UPDATE SET position = :o, floor = :o, hole = iif(events > 0, :o, 0), "
                    "reason = iif(events > 0, 'retention', NULL) WHERE position < :o",
                    {"p": partition, "o": offset},
                )

    def apply(
        self,
        partition: int,
        first: int,
        next_: int,
        events: Sequence[StoredEvent],
        holes: Sequence[Hole] = (),
    ) -> int:
        """See :meth:`Store.apply`."""
        key_of(partition, next_)
        with self._transaction() as execute:
            moved = execute(
                "UPDATE partitions SET position = ? WHERE id = ? AND position = ?", (next_, partition, first)
            )
            if not moved.rowcount:
                raise self._conflict(partition, first)
            if holes:
                _, end, reason = max(holes, key=itemgetter(1))
                change = "UPDATE partitions SET floor = ?, hole = ?, reason = ? WHERE id = ?"
                execute(change, (end, end, reason, partition))
            new = self._insert(partition, events)
            execute("UPDATE partitions SET events = events + ? WHERE id = ?", (new, partition))
        return new

    def _conflict(self, partition: int, first: int) -> StoreError:
        asked = "SELECT position FROM partitions WHERE id = ?"
        found = self._connection.execute(asked, (partition,)).fetchone()
        if found is None:
            return StoreError(f"store {self._path} does not know partition {partition}: begin() names all")
        return StoreConflict(
            f"partition {partition}: the store is at {found[0]}, not at {first}: another processor has "
            "applied what follows"
        )

    def _insert(self, partition: int, events: Sequence[StoredEvent]) -> int:
        base = key_of(partition, 0)
        numbers = self._numbers(partition, events)
        values: list[object] = []
        for event in events:
            key, source = base + event.offset, numbers[event.source]
            values += (key, event.id, source, event.type, event.ts, event.value)
        new = begin = 0
        left = len(events)
        while left:
            size = min(1 << left.bit_length() - 1, _LARGEST)  # the largest power of two that fits
            if size < min(left, _SMALLEST):
                size *= 2
                values += values[-6:] * (size - left)  # the last again and again, which is ignored
            new += self._connection.execute(_insert(size), values[begin : begin + 6 * size]).rowcount
            begin += 6 * size
            left = max(0, left - size)
        return new

    def _numbers(self, partition: int, events: Sequence[StoredEvent]) -> dict[str, int]:
        """The numbers of the events' sources, whose origins in the partition are stored."""
        if sum(map(len, self._sources.values())) >= _MAX_SOURCES:
            self._sources.clear()
        known = self._sources.setdefault(partition, {})
        # from the last on, so that the first of a source stays
        new = {event.source: event.offset for event in reversed(events) if event.source not in known}
        if new:
            given = {"new": msgspec.json.encode(list(new.items())).decode(), "partition": partition}
            execute = self._connection.execute
            execute(_NEW_SOURCES, given)
            execute(_NEW_ORIGINS, given)
            (found,) = execute(_NUMBERS, given).fetchone()
            known |= msgspec.json.decode(found, type=dict[str, int])
        return known

    def prune(self, *, before: int, count: int, size: int) -> int:
        """Remove one chunk of what is older than ``before`` (ns), or beyond ``count`` or ``size``.

        Returns how many events it had; 0: there is none.
        """
        with self._transaction() as execute:
            held: dict[int, int] = dict(execute("SELECT id, events FROM partitions WHERE events > 0"))
            total = sum(held.values())
            excess = max(total - count, self._beyond(size, total))
            removed = dict.fromkeys(held, 0)
            ends: dict[int, int] = {}
            share = max(_PRUNED_LEAST, 2 * _PRUNED // max(1, len(held)))
            # each partition from its lowest offset on; across them, the oldest first
            heads = [self._head(partition, share) for partition in held]
            for ts, key in islice(heapq.merge(*heads, key=itemgetter(0)), _PRUNED):
                if ts >= before and excess <= 0:
                    break
                partition = key >> OFFSET_BITS
                ends[partition] = key + 1
                removed[partition] += 1
                excess -= 1
                if removed[partition] == share:
                    break  # what follows in this partition was not read
            for partition, end in ends.items():
                given = {"id": partition, "base": key_of(partition, 0), "end": end, "n": removed[partition]}
                execute("DELETE FROM events WHERE key >= :base AND key < :end", given)
                execute(
                    "UPDATE partitions SET floor = max(floor, :end - :base), events = events - :n"
                    " WHERE id = :id",
                    given,
                )
                execute(
                    "UPDATE partitions SET hole = 0, reason = NULL WHERE id = :id AND hole > 0 AND NOT EXISTS"
                    " (SELECT 1 FROM events WHERE key >= :base AND key < :base + hole)",
                    given,
                )
        return sum(removed.values())

    def _beyond(self, size: int, events: int) -> int:
        """About how many of the events are beyond so many bytes of the file."""
        pragmas = ("page_count", "freelist_count", "page_size")
        pages, free, page = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas)
        used = (pages - free) * page  # what is free is used again
        return 0 if used <= size else ceil(events * (used - size) / used)

    def _head(self, partition: int, count: int) -> list[tuple[int, int]]:
        base = key_of(partition, 0)
        (rows,) = self._connection.execute(
            "SELECT json_group_array(json_array(ts, key)) FROM"
            " (SELECT ts, key FROM events WHERE key >= ? AND key < ? ORDER BY key LIMIT ?)",
            (base, base + (1 << OFFSET_BITS), count),
        ).fetchone()
        return msgspec.json.decode(rows, type=list[tuple[int, int]])

    def report(
        self, name: str, *, group: str, partitions: Collection[int], troubles: Mapping[str, str]
    ) -> None:
        """See :meth:`Store.report`."""
        now = time.time()
        lists = [msgspec.json.encode(one).decode() for one in (sorted(partitions), dict(troubles))]
        with self._transaction() as execute:
            execute("DELETE FROM feeders WHERE seen < ?", (now - FEEDERS_KEPT,))
            execute("INSERT OR REPLACE INTO feeders VALUES (?, ?, ?, ?, ?)", (name, now, group, *lists))

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """A transaction: all of it or nothing, and alone among all processes."""
        execute = self._connection.execute
        with storing(self._path):
            execute("BEGIN IMMEDIATE")
            try:
                yield execute
                execute("COMMIT")
            except BaseException:
                self._sources.clear()  # some may have been numbered in vain
                if self._connection.in_transaction:  # SQLite may have rolled back itself
                    execute("ROLLBACK")
                raise
