"""What clients were told, and what the log has, as columns. No I/O."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

EVENT, RECOVERED, OLD, SUBSCRIBED, REFUSED, STATE = range(6)
"""What a message was: an event told live, by repair, or as the past; "the past is told", "it is not told"; or
another word that has a cursor."""

NOWHERE: Final = -2
"""No offset: the message named none."""
ELSEWHERE: Final = -3
"""An offset in another partition."""


class _Messages:
    """The messages of one source on one connection, in the order of their arrival, as columns.

    Of each message: its ``kinds``; ``events``, the number of the event's id, else -1; ``offsets``, that was
    told for it; ``times``, s, monotonic. ``refused``: why the past was not told. ``ended``: how, empty while
    it is open.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended = ""
        self.refused: list[str] = []
        self.kinds = array("b")
        self.events, self.offsets = array("q"), array("q")
        self.times = array("d")


class PartitionSession(_Messages):
    """The messages of one source on one connection, as far as they concern one partition.

    ``since``: the offset that it asked to go on after; -1: from the beginning; None: only what is new.
    ``cursors``: of each message, the offset of the cursor that came with it.
    """

    def __init__(self, since: int | None, began: float) -> None:
        super().__init__(began)
        self.since = since
        self.cursors = array("q")


class Session(_Messages):
    """The messages of one source on one connection, of all its partitions.

    ``since``: by partition; empty: from the beginning; None: only what is new. A message may come while it is
    read: it counts when it has its time.
    """

    def __init__(self, since: Mapping[int, int] | None, began: float) -> None:
        super().__init__(began)
        self.since = since
        self.partitions = array("q")
        self._cursors = (array("q"), array("q"), array("q"))  # message, partition, offset

    def add(
        self,
        kind: int,
        *,
        event: int = -1,
        position: tuple[int, int] | None = None,
        cursor: Mapping[int, int] | None = None,
        at: float = 0.0,
    ) -> None:
        """Add a message. ``position``: (partition, offset) of the event; ``cursor``: what it confirms."""
        partition, offset = position or (NOWHERE, NOWHERE)
        for named in (cursor or {}).items():
            for column, value in zip(self._cursors, (len(self.kinds), *named), strict=True):
                column.append(value)
        self.partitions.append(partition)
        self.kinds.append(kind)
        self.events.append(event)
        self.offsets.append(offset)
        self.times.append(at)

    def homes(self, logs: Mapping[int, SourceLog]) -> set[int]:
        """The partitions that its events belong to. ``logs``: the source's, by partition."""
        rows = zip(self.events, self.partitions, self.times, strict=False)
        return {_home(event, partition, logs) for event, partition, _ in rows if event >= 0}

    def of(self, partition: int, logs: Mapping[int, SourceLog]) -> PartitionSession:
        """The session as far as it concerns one partition. ``logs``: the source's, by partition."""
        since = None if self.since is None else self.since.get(partition, -1)
        part = PartitionSession(since, self.began)
        part.ended, part.refused = self.ended, list(self.refused)
        part.times = self.times[:]
        count = len(part.times)
        part.kinds, part.events, part.offsets = self.kinds[:count], self.events[:count], self.offsets[:count]
        for row, event in enumerate(part.events):
            named = self.partitions[row]
            if event >= 0 and _home(event, named, logs) != partition:
                part.events[row] = -1
            elif named not in {partition, NOWHERE}:
                part.offsets[row] = ELSEWHERE
        part.cursors = array("q", [NOWHERE]) * count
        for row, named, offset in zip(*self._cursors, strict=False):
            if row < count:
                # A cursor that does not name a partition says nothing of it: as from its beginning.
                if named == partition:
                    part.cursors[row] = offset
                elif part.cursors[row] == NOWHERE:
                    part.cursors[row] = -1
        return part


def _home(event: int, named: int, logs: Mapping[int, SourceLog]) -> int:
    """The partition in which the log has the event; else the one that the message named, if any."""
    for partition, log in logs.items():
        if event in log.index:
            return partition
    return min(logs, default=0) if named == NOWHERE else named


class SourceLog:
    """A source's events in one partition, as they are in Kafka, ascending. An id that is there again counts
    where it is first.

    ``offsets``, ``events`` (numbers of ids), ``writers`` (which publisher) and ``times`` (s, of the record)
    have one entry an event. ``index``: event to its entry. ``occurrences``: how often, of those that are
    there again.
    """

    def __init__(self, partition: int, rows: Iterable[tuple[int, int, int, float]]) -> None:
        """``rows``: (offset, event, writer, time), in any order."""
        self.partition = partition
        self.offsets, self.events, self.writers = array("q"), array("q"), array("q")
        self.times = array("d")
        self.index: dict[int, int] = {}
        self.occurrences: dict[int, int] = {}
        for offset, event, writer, at in sorted(rows):
            if event in self.index:
                self.occurrences[event] = self.occurrences.get(event, 1) + 1
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
    """A source's log of each partition, from rows of (partition, offset, event, writer, time).

    An event that is in several partitions (written again after partitions were added) is in that of its
    earliest record, and the others are copies.
    """
    home: dict[int, tuple[float, int]] = {}
    rows = list(rows)
    for partition, _, event, _, at in rows:
        home[event] = min((at, partition), home.get(event, (at, partition)))
    found: dict[int, list[tuple[int, int, int, float]]] = {partition: [] for partition, *_ in rows}
    occurrences: Counter[int] = Counter()
    for partition, offset, event, writer, at in rows:
        if partition == home[event][1]:
            found[partition].append((offset, event, writer, at))
        else:
            occurrences[event] += 1
    logs = {partition: SourceLog(partition, records) for partition, records in found.items()}
    for event, more in occurrences.items():
        log = logs[home[event][1]]
        log.occurrences[event] = log.occurrences.get(event, 1) + more
    return logs


@dataclass(frozen=True, slots=True)
class Logs:
    """What the topic has of all sources.

    ``logs``: by source and partition; ``names``: the id of every event number, also of those that are in no
    log.
    """

    logs: Mapping[str, Mapping[int, SourceLog]]
    names: list[str]

    @property
    def events(self) -> int:
        """How many events the logs have."""
        return sum(len(log.offsets) for logs in self.logs.values() for log in logs.values())
