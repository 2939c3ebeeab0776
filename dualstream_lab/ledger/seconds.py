"""What the intervals of a run tell the ledger: sums, what was given up when, and how the brokers were."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from dualstream_lab.recording import Interval, RunDirectory

__all__ = ["UNREAD", "Seconds"]

UNREAD: Final = "unread: "
"""Begins the counters that say what of the log was not read, and why."""

_NEAR: Final = 2_000_000_000  # ns: intervals are a second long, and Redis is asked twice in each
_NOTICED: Final = 10_000_000_000  # ns: a client that does not read notices late that it was disconnected
_SOFT_LIMIT: Final = (
    8 * 2**20
)  # bytes that Redis keeps for a subscriber, by default, before it loses patience


@dataclass(slots=True, kw_only=True)
class Seconds:
    """Of all intervals.

    ``counters``: summed up. ``heard``: rows that each process's subscribers should have. ``caught_up``:
    whether the Kafka consumer read all partitions to their ends, None where nobody said. ``drops``: (begin,
    end, why), the chief reason of each interval. ``signs``: (when, what), what probes saw of trouble.
    """

    counters: dict[str, int] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    caught_up: bool | None = None
    drops: list[tuple[int, int, str]] = field(default_factory=list)
    signs: list[tuple[int, str]] = field(default_factory=list)
    _via_gateway: set[str] = field(default_factory=set)
    _killings: list[tuple[int, int]] = field(default_factory=list)
    _refused: dict[tuple[str, str], int] = field(default_factory=dict)
    _refusals: list[tuple[str, int, int, str]] = field(default_factory=list)

    @classmethod
    def of(cls, directory: RunDirectory) -> Self:
        """Of all intervals, one at a time: their histograms are big."""
        made = cls()
        for interval in directory.intervals():
            made._add(interval)
        for fault in directory.manifest.faults:
            if fault.what == "redis.output-buffer":
                made._killings.append((fault.begin, (fault.end or 2**62) + _NOTICED))
        made.signs.sort()
        return made

    def _add(self, interval: Interval) -> None:
        gauges, counters = interval.gauges, interval.counters
        for name, count in counters.items():
            self.counters[name] = self.counters.get(name, 0) + count
        if "heard" in counters:
            self.heard[interval.writer] = self.heard.get(interval.writer, 0) + counters["heard"]
        given_up = {name: n for name, n in counters.items() if name.startswith("dropped: ")}
        if given_up:
            why = max(given_up, key=given_up.__getitem__).removeprefix("dropped: ")
            self.drops.append((interval.begin, interval.end, why))
        if gauges.get("heard.via_gateway"):
            self._via_gateway.add(interval.writer)
        if "consumed.caught_up" in gauges:
            self.caught_up = bool(gauges["consumed.caught_up"])
        self._add_trouble(interval)

    def _add_trouble(self, interval: Interval) -> None:
        """What went wrong: brokers that were away, clients that were too slow, rows that were refused."""
        gauges = interval.gauges
        for broker in ("redis", "kafka"):
            if gauges.get(f"{broker}.up") == 0:
                self.signs.append((interval.end, f"a probe found {broker.title()} away"))
        slow = interval.counters.get("redis.killed_slow")
        if slow or gauges.get("redis.output_buffer", 0) >= _SOFT_LIMIT:
            self._killings.append((interval.begin - _NEAR, interval.end + _NOTICED))
        for kind in ("published", "heard", "caught_up", "consumed", "dropped"):
            total = round(gauges.get(f"{kind}.rows_dropped", 0))
            if total > self._refused.get((kind, interval.writer), 0):
                self._refused[kind, interval.writer] = total
                self._refusals.append((kind, interval.begin, interval.end, interval.writer))

    @property
    def unread(self) -> str:
        """What the Kafka consumer did not read, in a sentence; empty where it read everything."""
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

    def refused(self, kind: str) -> int:
        """Rows of a kind that the disk was too slow for."""
        return sum(count for (of, _), count in self._refused.items() if of == kind)

    def refusals(self, kind: str) -> list[tuple[int, int, str]]:
        """(begin, end, process): when that was."""
        return [(begin, end, writer) for of, begin, end, writer in self._refusals if of == kind]
