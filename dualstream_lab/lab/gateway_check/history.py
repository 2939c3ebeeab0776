"""What clients were told, and what the log has, as columns. No I/O."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "ELSEWHERE",
    "EVENT",
    "LATE",
    "NOWHERE",
    "OLD",
    "REFUSED",
    "STATE",
    "SUBSCRIBED",
    "Session",
    "SourceLog",
    "Stay",
    "Truth",
    "by_partition",
]

EVENT, LATE, OLD, SUBSCRIBED, REFUSED, STATE = range(6)
"""What a message was: an event told live, by repair, or as the past; "the past is told", "it is not told"; or
another word that has a cursor."""

NOWHERE: Final = -2
"""No place: the message named none."""
ELSEWHERE: Final = -3
"""A place in another partition."""


class Stay:
    """One source on one connection, as far as one partition is concerned: every message, in the order of its
    arrival.

    ``since``: the offset that it asked to go on after; -1: from the beginning; None: only what is new. Of
    each message: its ``kinds``; ``events``, the number of the event's id, else -1; ``places``, the offset
    that was told for it; ``cursors``, the offset of the cursor that came with it; ``times``, s, monotonic.
    ``refused``: why the past was not told. ``ended``: how, empty while it is open.
    """

    __slots__ = ("began", "cursors", "ended", "events", "kinds", "places", "refused", "since", "times")

    def __init__(self, since: int | None, began: float) -> None:
        self.since = since
        self.began = began
        self.ended = ""
        self.refused: list[str] = []
        self.kinds = array("b")
        self.events = array("q")
        self.places = array("q")
        self.cursors = array("q")
        self.times = array("d")

    def add(
        self, kind: int, *, event: int = -1, place: int = NOWHERE, cursor: int = NOWHERE, at: float = 0.0
    ) -> None:
        """A message."""
        self.kinds.append(kind)
        self.events.append(event)
        self.places.append(place)
        self.cursors.append(cursor)
        self.times.append(at)


class Session:
    """One source on one connection, with all its partitions; as :class:`Stay`.

    ``since``: by partition; empty: from the beginning; None: only what is new. A message may come while it is
    read: it counts when it has its time.
    """

    __slots__ = (
        "_cursor_offsets",
        "_cursor_partitions",
        "_cursor_rows",
        "began",
        "ended",
        "events",
        "kinds",
        "partitions",
        "places",
        "refused",
        "since",
        "times",
    )

    def __init__(self, since: Mapping[int, int] | None, began: float) -> None:
        self.since = since
        self.began = began
        self.ended = ""
        self.refused: list[str] = []
        self.kinds = array("b")
        self.events = array("q")
        self.partitions = array("q")
        self.places = array("q")
        self.times = array("d")
        self._cursor_rows = array("q")
        self._cursor_partitions = array("q")
        self._cursor_offsets = array("q")

    def add(
        self,
        kind: int,
        *,
        event: int = -1,
        position: tuple[int, int] | None = None,
        cursor: Mapping[int, int] | None = None,
        at: float = 0.0,
    ) -> None:
        """A message. ``position``: (partition, offset) of the event; ``cursor``: what it confirms."""
        partition, place = position or (NOWHERE, NOWHERE)
        for named, offset in (cursor or {}).items():
            self._cursor_rows.append(len(self.kinds))
            self._cursor_partitions.append(named)
            self._cursor_offsets.append(offset)
        self.kinds.append(kind)
        self.events.append(event)
        self.partitions.append(partition)
        self.places.append(place)
        self.times.append(at)

    def homes(self, logs: Mapping[int, SourceLog]) -> set[int]:
        """The partitions that its events belong to. ``logs``: the source's, by partition."""
        told = zip(self.events, self.partitions, self.times, strict=False)
        return {_home(event, partition, logs) for event, partition, _ in told if event >= 0}

    def of(self, partition: int, logs: Mapping[int, SourceLog]) -> Stay:
        """What concerns one partition."""
        since = None if self.since is None else self.since.get(partition, -1)
        stay = Stay(since, self.began)
        stay.ended, stay.refused = self.ended, list(self.refused)
        stay.times = self.times[:]
        count = len(stay.times)
        stay.kinds, stay.events, stay.places = self.kinds[:count], self.events[:count], self.places[:count]
        for row, event in enumerate(stay.events):
            told = self.partitions[row]
            if event >= 0 and _home(event, told, logs) != partition:
                stay.events[row] = -1
            elif told not in {partition, NOWHERE}:
                stay.places[row] = ELSEWHERE
        stay.cursors = self._cursors(partition, count)
        return stay

    def _cursors(self, partition: int, count: int) -> array[int]:
        """A cursor that does not name a partition says nothing of it: as from its beginning."""
        cursors = array("q", [NOWHERE]) * count
        columns = (self._cursor_rows, self._cursor_partitions, self._cursor_offsets)
        for row, named, offset in zip(*columns, strict=False):
            if row < count:
                if named == partition:
                    cursors[row] = offset
                elif cursors[row] == NOWHERE:
                    cursors[row] = -1
        return cursors


def _home(event: int, told: int, logs: Mapping[int, SourceLog]) -> int:
    """Where the log has the event; else where it was told to be, if anywhere."""
    for partition, log in logs.items():
        if event in log.index:
            return partition
    return min(logs, default=0) if told == NOWHERE else told


class SourceLog:
    """A source's events in one partition, as they are in Kafka, ascending. An id that is there again counts
    where it is first.

    ``offsets``, ``events`` (numbers of ids), ``writers`` (which publisher) and ``times`` (s, of the record)
    have one entry an event. ``index``: event to its entry. ``copies``: how often, of those that are there
    again.
    """

    def __init__(self, partition: int, rows: Iterable[tuple[int, int, int, float]]) -> None:
        """``rows``: (offset, event, writer, time), in any order."""
        self.partition = partition
        self.offsets = array("q")
        self.events = array("q")
        self.writers = array("q")
        self.times = array("d")
        self.index: dict[int, int] = {}
        self.copies: dict[int, int] = {}
        for offset, event, writer, at in sorted(rows):
            if event in self.index:
                self.copies[event] = self.copies.get(event, 1) + 1
                continue
            self.index[event] = len(self.offsets)
            self.offsets.append(offset)
            self.events.append(event)
            self.writers.append(writer)
            self.times.append(at)

    @property
    def last(self) -> int:
        """The offset of its last event; -1 if it has none."""
        return self.offsets[-1] if self.offsets else -1


def by_partition(rows: Iterable[tuple[int, int, int, int, float]]) -> dict[int, SourceLog]:
    """A source's log. ``rows``: (partition, offset, event, writer, time).

    An event that is in several partitions (written again after partitions were added) is in that of its
    earliest record, and the others are copies.
    """
    home: dict[int, tuple[float, int]] = {}
    rows = list(rows)
    for partition, _, event, _, at in rows:
        home[event] = min((at, partition), home.get(event, (at, partition)))
    found: dict[int, list[tuple[int, int, int, float]]] = {partition: [] for partition, *_ in rows}
    copies: Counter[int] = Counter()
    for partition, offset, event, writer, at in rows:
        if partition == home[event][1]:
            found[partition].append((offset, event, writer, at))
        else:
            copies[event] += 1
    logs = {partition: SourceLog(partition, records) for partition, records in found.items()}
    for event, more in copies.items():
        log = logs[home[event][1]]
        log.copies[event] = log.copies.get(event, 1) + more
    return logs


@dataclass(frozen=True, slots=True)
class Truth:
    """``logs``: by source and partition. ``names``: the id of every event number, of the log or only told."""

    logs: Mapping[str, Mapping[int, SourceLog]]
    names: list[str]

    @property
    def events(self) -> int:
        """How many there are."""
        return sum(len(log.offsets) for logs in self.logs.values() for log in logs.values())
