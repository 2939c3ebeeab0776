"""What the intervals of a run tell the ledger: sums, what was given up when, and how the brokers were."""

from __future__ import annotations

from collections import Counter
from typing import Final

from dualstream_lab.recording import Interval, Outcome, RunDirectory, drops_of
from dualstream_lab.units import quantity

UNREAD: Final = "unread: "
"""Begins the counters that say what of the log was not read, and why."""

_NEAR: Final = 2_000_000_000  # ns: intervals are a second long, and Redis is asked twice in each
_NOTICED: Final = 10_000_000_000  # ns: a client that does not read notices late that it was disconnected
_SOFT_LIMIT: Final = 8 * 2**20  # bytes that Redis keeps for a subscriber, by default, before it kills it


class Seconds:
    """What is known of a run by its intervals, which are a second long.

    ``counters``: summed up. ``delivered``: rows that each process's subscribers should have. ``caught_up``:
    whether the Kafka consumer read all partitions to their ends, None where nobody said. ``drops``: (begin,
    end, why), the chief reason of each interval. ``signs``: (when, what), what probes saw of trouble.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.counters: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.caught_up: bool | None = None
        self.drops: list[tuple[int, int, str]] = []
        self.signs: list[tuple[int, str]] = []
        self._sample = directory.manifest.sample
        self._via_gateway: set[str] = set()
        self._killings = [
            (fault.begin, (fault.end or 2**62) + _NOTICED)
            for fault in directory.manifest.faults
            if fault.name == "redis.output-buffer"
        ]
        self._refused: dict[tuple[str, str], int] = {}
        self._refusals: list[tuple[str, int, int, str]] = []
        for interval in directory.intervals():  # one at a time: their histograms are big
            self._add(interval)
        self.signs.sort()

    def _add(self, interval: Interval) -> None:
        gauges, counters = interval.gauges, interval.counters
        self.counters.update(counters)
        self.delivered[interval.writer] += counters.get("delivered", 0)
        if given_up := drops_of(counters):
            self.drops.append((interval.begin, interval.end, max(given_up, key=given_up.__getitem__)))
        if gauges.get("delivered.via_gateway"):
            self._via_gateway.add(interval.writer)
        if "consumed.caught_up" in gauges:
            self.caught_up = bool(gauges["consumed.caught_up"])
        for broker in ("redis", "kafka"):
            if gauges.get(f"{broker}.up") == 0:
                self.signs.append((interval.end, f"a probe found {broker.title()} away"))
        if counters.get("redis.killed_slow") or gauges.get("redis.output_buffer", 0) >= _SOFT_LIMIT:
            self._killings.append((interval.begin - _NEAR, interval.end + _NOTICED))
        for kind in ("published", "delivered", "caught_up", "consumed", "dropped"):
            total = round(gauges.get(f"{kind}.rows_dropped", 0))
            if total > self._refused.get((kind, interval.writer), 0):
                self._refused[kind, interval.writer] = total
                self._refusals.append((kind, interval.begin, interval.end, interval.writer))

    @property
    def unread(self) -> str:
        """A sentence on what the Kafka consumer did not read; empty where it read everything."""
        if self.caught_up is None or self.caught_up:
            return ""
        reasons = [n.removeprefix(UNREAD) for n in self.counters if n.startswith(UNREAD)]
        why = f": {'; '.join(reasons)}" if reasons else ""
        return f"the Kafka consumer did not read to the end of the log{why}"

    def killed_slow(self, at: int, writer: str) -> bool:
        """Whether a connection of that process whose loss was noticed then was probably ended by Redis
        because it was too slow. A gateway's clients are none of Redis's.
        """
        return writer not in self._via_gateway and any(begin <= at <= end for begin, end in self._killings)

    def counted(self, kind: str) -> int:
        """Count the rows of a kind that there should be, if each event has one."""
        if kind == "published":
            return sum(self.counters[outcome.name.lower()] for outcome in Outcome)
        return sum(drops_of(self.counters).values()) if kind == "dropped" else self.counters[kind]

    def missing(self, kind: str, rows: int) -> str:
        """Say that there are fewer rows than were counted; nothing where there are not."""
        if refused := sum(count for (of, _), count in self._refused.items() if of == kind):
            return f"{_missing(refused, kind)}: the disk was too slow for them"
        counted = self.counted(kind)
        if self._sample == 1 and rows < counted:
            return f"{counted - rows:,} of {_missing(counted, kind)}"
        return ""

    def refusals(self, kind: str) -> list[tuple[int, int, str]]:
        """List (begin, end, process): when the disk was too slow for rows of a kind."""
        return [(begin, end, writer) for of, begin, end, writer in self._refusals if of == kind]


def _missing(rows: int, kind: str) -> str:
    return quantity(rows, f"{kind} row is missing", f"{kind} rows are missing")
