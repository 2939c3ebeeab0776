"""The reading half of the SQLite store. Blocking; one thread at a time.

Every question is one statement, so that its answer is of one snapshot, and every answer is one row: each
row costs the thread Python's lock, and where the event loop's thread is busy that is up to 5 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from dualstream_lab.store.contract import Page, Row, StoredEvent
from dualstream_lab.store.schema import OFFSET_BITS, connect, storing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dualstream_lab.store.contract import Query

__all__ = ["Reader"]

_CACHE: Final = 16 * 2**20  # bytes
_OFFSET: Final = (1 << OFFSET_BITS) - 1
_EMPTY: Final = Page(position=0, floor=0, rows=[], more=False)

_PAGES: Final = f"""
SELECT json_group_array(json_array(p.position, p.floor, json((
    SELECT json_group_array(json_array(key & {_OFFSET}, id, type, ts)) FROM (
        SELECT key, id, type, ts FROM events
        WHERE source = s.id AND key > (p.id << {OFFSET_BITS}) + json_extract(q.value, '$[2]')
            AND key < (p.id << {OFFSET_BITS}) + p.position
        ORDER BY key LIMIT :limit
    )
))))
FROM json_each(:queries) AS q
LEFT JOIN partitions AS p ON p.id = json_extract(q.value, '$[1]')
LEFT JOIN sources AS s ON s.name = json_extract(q.value, '$[0]')
"""  # noqa: S608  (numbers of ours)

_RECENT: Final = f"""
SELECT position, floor, partition,
    json_group_array(json_array(key & {_OFFSET}, id, type, ts, length(value))) FILTER (WHERE key IS NOT NULL),
    group_concat(value, '')
FROM (
    SELECT p.position, p.floor, p.id AS partition, e.key, e.id, e.type, e.ts, e.value
    FROM partitions AS p
    LEFT JOIN sources AS s ON s.name = :source
    LEFT JOIN events AS e ON e.source = s.id
        AND e.key > (p.id << {OFFSET_BITS}) + :after AND e.key < (p.id << {OFFSET_BITS}) + p.position
    WHERE p.id = coalesce(:partition, (
        SELECT max(key) >> {OFFSET_BITS} FROM events
        WHERE source = (SELECT id FROM sources WHERE name = :source)
    ))
    ORDER BY e.key {{order}} LIMIT :limit
)
"""  # noqa: S608  (numbers of ours)
_NEWEST, _FOLLOWING = _RECENT.format(order="DESC"), _RECENT.format(order="ASC")

_GET: Final = (
    "SELECT e.key, e.id, e.type, s.name, e.ts, e.value FROM events AS e JOIN sources AS s ON s.id = e.source"
    " WHERE e.id = ?"
)

_pages = msgspec.json.Decoder(list[tuple[int | None, int | None, list[tuple[int, str, str, int]]]])
_sized = msgspec.json.Decoder(list[tuple[int, str, str, int, int]])
_positions = msgspec.json.Decoder(list[tuple[int, int]])


class Reader:
    """The one connection of a process that reads. Raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storing(path):
            self._connection = connect(path, [f"cache_size = -{_CACHE // 1024}"], read_only=True)
        self._connection.text_factory = bytes

    def close(self) -> None:
        """Let go of the file."""
        with storing(self._path):
            self._connection.close()

    def epoch(self) -> str | None:
        """See :meth:`Store.epoch`."""
        with storing(self._path):
            found = self._connection.execute("SELECT epoch FROM log").fetchone()
        return None if found is None else found[0].decode()

    def positions(self) -> dict[int, int]:
        """See :meth:`Store.positions`."""
        with storing(self._path):
            (found,) = self._connection.execute(
                "SELECT json_group_array(json_array(id, position)) FROM partitions"
            ).fetchone()
        return dict(_positions.decode(found))

    def pages(self, queries: Sequence[Query], limit: int) -> list[Page]:
        """See :meth:`Store.pages`."""
        asked = msgspec.json.encode([(query.source, query.partition, query.after) for query in queries])
        with storing(self._path):
            (found,) = self._connection.execute(
                _PAGES, {"queries": asked.decode(), "limit": limit + 1}
            ).fetchone()
        return [
            _EMPTY
            if position is None or floor is None
            else Page(
                position=position,
                floor=floor,
                rows=[Row(*row) for row in rows[:limit]],
                more=len(rows) > limit,
            )
            for position, floor, rows in _pages.decode(found)
        ]

    def recent(
        self, source: str, *, limit: int, after: int | None, partition: int | None
    ) -> tuple[Page, list[StoredEvent]]:
        """See :meth:`Store.recent`."""
        given = {"source": source, "partition": partition, "limit": limit + 1}
        statement = _NEWEST if after is None else _FOLLOWING
        with storing(self._path):
            position, floor, where, found, values = self._connection.execute(
                statement, given | {"after": -1 if after is None else after}
            ).fetchone()
        if position is None:
            return _EMPTY, []
        events: list[StoredEvent] = []
        begin = 0
        for offset, event_id, kind, ts, size in _sized.decode(found):
            value = values[begin : begin + size]
            begin += size
            events.append(StoredEvent(where, offset, event_id, kind, source, ts, value))
        more = len(events) > limit
        events = events[:limit]
        if after is None:
            events.reverse()
        rows = [Row(event.offset, event.id, event.type, event.ts) for event in events]
        return Page(position=position, floor=floor, rows=rows, more=more), events

    def get(self, event_id: str) -> StoredEvent | None:
        """See :meth:`Store.get`."""
        with storing(self._path):
            found = self._connection.execute(_GET, (event_id,)).fetchone()
        if found is None:
            return None
        key, name, kind, source, ts, value = found
        return StoredEvent(
            key >> OFFSET_BITS, key & _OFFSET, name.decode(), kind.decode(), source.decode(), ts, value
        )
