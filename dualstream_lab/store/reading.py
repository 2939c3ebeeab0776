"""The reading half of the SQLite store. Blocking; one thread at a time.

Every question is one statement, so that its answer is of one snapshot, and every answer is one row: each
row costs the thread Python's lock, and where the event loop's thread is busy that is up to 5 ms.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import msgspec

from dualstream_lab.record import StoredEvent
from dualstream_lab.store.contract import Feeder, Page, Place, Query, Removal, Row
from dualstream_lab.store.schema import FEEDERS_KEPT, OFFSET_BITS, connect, storing

_CACHE: Final = 16 * 2**20  # bytes
_OFFSET: Final = (1 << OFFSET_BITS) - 1

_PLACES: Final = "(SELECT json_group_array(json_array(id, position, floor, hole, reason)) FROM partitions)"
_ORIGINS: Final = (
    "sources AS s JOIN origins AS o ON o.source = s.id JOIN partitions AS p ON p.id = o.partition"
)
_STRETCH: Final = f"""
    source = s.id AND key < (p.id << {OFFSET_BITS}) + p.position AND key >= (p.id << {OFFSET_BITS})
        + max(p.floor, 1 + coalesce(json_extract({{query}}, '{{after}}."' || p.id || '"'), -1))
"""
"""The keys of a source in a partition that may be shown, after the query's offset."""
_EVENTS: Final = (
    "json_group_array(json_array({turn}, e.key, e.id, e.type, s.name, e.ts, length(e.value))),"
    " group_concat(e.value, '')"
)

_PAGES: Final = f"""
SELECT {_PLACES}, (
    SELECT json_group_array(json_array(q.key, p.id, o."offset", json((
        SELECT json_group_array(json_array(p.id, key & {_OFFSET}, id, type, ts)) FROM (
            SELECT key, id, type, ts FROM events
            WHERE {_STRETCH.format(query="q.value", after="$[1]")} ORDER BY key LIMIT :limit
        )
    )))) FROM json_each(:queries) AS q CROSS JOIN {_ORIGINS} WHERE s.name = json_extract(q.value, '$[0]')
)
"""  # noqa: S608  (numbers of ours)

# Each partition keeps its order: an event has its turn at the latest time of those before it there or, where
# the newest are asked for, at the earliest time of those behind it.
_RECENT: Final = f"""
SELECT {_PLACES}, (
    SELECT json_group_array(json_array(p.id, o."offset", (
        SELECT max(key) & {_OFFSET} FROM events WHERE {{stretch}}
    ))) FROM {_ORIGINS} WHERE s.name = :source
), {_EVENTS.format(turn="n.turn")}, max(n.count)
FROM (
    SELECT key, turn, count(*) OVER () AS count, sum(size) OVER (
        ORDER BY turn {{order}}, key {{order}} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS bytes_before
    FROM (
        SELECT e.key AS key, length(e.value) AS size,
            {{extreme}}(e.ts) OVER (PARTITION BY p.id ORDER BY e.key {{order}}) AS turn
        FROM {_ORIGINS} JOIN events AS e ON e.key IN (
            SELECT key FROM events WHERE {{stretch}} ORDER BY key {{order}} LIMIT :limit
        )
        WHERE s.name = :source ORDER BY turn {{order}}, e.key {{order}} LIMIT :limit
    )
) AS n JOIN events AS e ON e.key = n.key JOIN sources AS s ON s.id = e.source
WHERE coalesce(n.bytes_before, 0) < :max_bytes
"""  # noqa: S608
_STRETCH_OF_RECENT: Final = _STRETCH.format(query=":after", after="$")
_NEWEST: Final = _RECENT.format(stretch=_STRETCH_OF_RECENT, extreme="min", order="DESC")
_FOLLOWING: Final = _RECENT.format(stretch=_STRETCH_OF_RECENT, extreme="max", order="ASC")

_AT: Final = (
    f"SELECT {_EVENTS.format(turn=0)} FROM events AS e JOIN sources AS s ON s.id = e.source"  # noqa: S608
    f" WHERE e.key = (:partition << {OFFSET_BITS}) + :offset"
)
_FIND: Final = f"""
SELECT {_EVENTS.format(turn=0)} FROM (
    SELECT * FROM events WHERE id = :id
        AND (:source IS NULL OR source = (SELECT id FROM sources WHERE name = :source))
    LIMIT :limit
) AS e JOIN sources AS s ON s.id = e.source
"""  # noqa: S608
_FEEDERS: Final = """
SELECT json_group_array(json_object(
    'name', name, 'seen', max(0, :now - seen), 'partitions', json(partitions), 'group', consumer_group,
    'troubles', json(troubles)
)) FROM (SELECT * FROM feeders WHERE seen > :now - :kept ORDER BY seen DESC, name)
"""

_places = msgspec.json.Decoder(list[tuple[int, int, int, int, Removal | None]])
_stretches = msgspec.json.Decoder(list[tuple[int, int, int, msgspec.Raw]])
_rows = msgspec.json.Decoder(list[Row])
_origins = msgspec.json.Decoder(list[tuple[int, int, int | None]])
_events = msgspec.json.Decoder(list[tuple[int, int, str, str, str, int, int]])
_feeders = msgspec.json.Decoder(list[Feeder])
_time_of = attrgetter("ts")


class Reader:
    """The one connection of a process that reads. Raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storing(path):
            self._connection = connect(path, [f"cache_size = -{_CACHE // 1024}"], read_only=True)
        self._connection.text_factory = bytes

    def close(self) -> None:
        """Close the file of the store."""
        with storing(self._path):
            self._connection.close()

    def epoch(self) -> str | None:
        """See :meth:`Store.epoch`."""
        found = self._ask("SELECT max(epoch) FROM log")[0]
        return None if found is None else found.decode()

    def places(self) -> dict[int, Place]:
        """See :meth:`Store.places`."""
        return _places_in(self._ask(f"SELECT {_PLACES}")[0])

    def pages(self, queries: Sequence[Query], limit: int) -> list[Page]:
        """See :meth:`Store.pages`."""
        asked = msgspec.json.encode([(query.source, dict(query.after)) for query in queries])
        found, stretches = self._ask(_PAGES, queries=asked.decode(), limit=limit + 1)
        places = _places_in(found)
        through = {partition: place.position - 1 for partition, place in places.items()}
        firsts: list[dict[int, int]] = [{} for _ in queries]
        parts: list[list[list[Row]]] = [[] for _ in queries]  # a source's stretches, one a partition
        for number, partition, first, found_rows in _stretches.decode(stretches):
            firsts[number][partition] = first
            # One by one: all in one call would keep the interpreter's other threads waiting.
            if rows := _rows.decode(found_rows):
                parts[number].append(rows)
        return [
            _page(places, through, first, part, query.after, limit)
            for query, first, part in zip(queries, firsts, parts, strict=True)
        ]

    def recent(
        self, source: str, *, limit: int, after: Mapping[int, int] | None = None, max_bytes: int = 2**62
    ) -> tuple[Page, list[StoredEvent]]:
        """See :meth:`Store.recent`."""
        places_found, origins_found, *events_found, count = self._ask(
            _NEWEST if after is None else _FOLLOWING,
            source=source,
            after=msgspec.json.encode(dict(after or {})).decode(),
            limit=limit + 1,
            max_bytes=max_bytes,
        )
        places, origins = _places_in(places_found), _origins.decode(origins_found)
        events = _events_in(*events_found)
        events = events[-limit:] if after is None else events[:limit]
        more = (count or 0) > len(events)
        rows = [Row(event.partition, event.offset, event.id, event.type, event.ts) for event in events]
        through = {partition: place.position - 1 for partition, place in places.items()}
        if more and after is not None:
            last = {partition: newest for partition, _, newest in origins if newest is not None}
            through |= _cut(places, rows, last, after)
        first = {partition: offset for partition, offset, _ in origins}
        return Page(places=places, first=first, rows=rows, through=through, more=more), events

    def at(self, partition: int, offset: int) -> StoredEvent | None:
        """See :meth:`Store.at`."""
        if not (0 <= partition < 1 << 63 - OFFSET_BITS and 0 <= offset <= _OFFSET):
            return None  # whoever asks may have it from anywhere
        return next(iter(_events_in(*self._ask(_AT, partition=partition, offset=offset))), None)

    def find(self, event_id: str, *, source: str | None = None, limit: int = 100) -> list[StoredEvent]:
        """See :meth:`Store.find`."""
        return _events_in(*self._ask(_FIND, id=event_id, source=source, limit=limit))

    def feeders(self) -> list[Feeder]:
        """See :meth:`Store.feeders`."""
        (found,) = self._ask(_FEEDERS, now=time.time(), kept=FEEDERS_KEPT)
        return _feeders.decode(found)

    def _ask(self, statement: str, **values: object) -> tuple[Any, ...]:
        with storing(self._path):
            row: tuple[Any, ...] = self._connection.execute(statement, values).fetchone()
        return row


def _places_in(packed: bytes) -> dict[int, Place]:
    return {
        partition: Place(position, floor, hole, reason)
        for partition, position, floor, hole, reason in _places.decode(packed)
    }


def _page(
    places: Mapping[int, Place],
    through: dict[int, int],
    first: Mapping[int, int],
    parts: list[list[Row]],
    after: Mapping[int, int],
    limit: int,
) -> Page:
    """From the source's stretches, each of at most ``limit + 1`` rows; ``through``: where none is cut."""
    if len(parts) > 1:  # heads only are compared, so that each partition keeps its order
        rows = list(islice(heapq.merge(*parts, key=_time_of), limit + 1))
    else:
        rows = parts[0] if parts else []
    more = len(rows) > limit
    if more:
        rows = rows[:limit]
        last = {part[-1].partition: part[-1].offset for part in parts}
        through = through | _cut(places, rows, last, after)
    return Page(places=places, first=first, rows=rows, through=through, more=more)


def _cut(
    places: Mapping[int, Place], rows: Sequence[Row], last: Mapping[int, int], after: Mapping[int, int]
) -> dict[int, int]:
    """How far the rows go in each partition that has more: ``last`` is one of its last ones."""
    shown = {row.partition: row.offset for row in rows}
    ends = {p: shown.get(p, max(after.get(p, -1), places[p].floor - 1)) for p in last}
    return {partition: end for partition, end in ends.items() if end < last[partition]}


def _events_in(packed: bytes, values: bytes | None) -> list[StoredEvent]:
    """In the order of their turns, and of their places."""
    events: list[tuple[int, int, StoredEvent]] = []
    begin = 0
    for turn, key, event_id, kind, source, ts, size in _events.decode(packed):
        value = (values or b"")[begin : begin + size]
        begin += size
        event = StoredEvent(key >> OFFSET_BITS, key & _OFFSET, event_id, kind, source, ts, value)
        events.append((turn, key, event))
    return [event for _, _, event in sorted(events)]
