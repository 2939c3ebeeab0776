"""What is known of a run while it runs: read from its directory, so that looking cannot delay the load."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dualstream_lab.errors import RecordingError
from dualstream_lab.recording import Interval

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Progress"]


@dataclass(slots=True)
class Progress:
    """So far. ``seconds``: since the plan's zero, of ``duration``; ``state``: a word for people.

    ``series``: for every second (s, durable events/s, heard/s, publish p99 in ms).
    """

    directory: Path
    duration: float
    state: str = "starting"
    seconds: float = 0.0
    started: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    series: dict[int, list[float]] = field(default_factory=dict)
    _offsets: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Read what has been written since the last look."""
        for path in sorted(self.directory.glob("intervals-*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path.name, 0))
                data = file.read()
            whole, newline, _rest = data.rpartition(b"\n")
            self._offsets[path.name] = self._offsets.get(path.name, 0) + len(whole) + len(newline)
            for line in whole.splitlines():
                try:
                    self._take(Interval.decode(json.loads(line)))
                except (ValueError, RecordingError):
                    continue  # the run's own reading names it

    def _take(self, interval: Interval) -> None:
        for name, count in interval.counters.items():
            self.counters[name] = self.counters.get(name, 0) + count
        if not self.started or interval.end < self.started:
            return
        second = int((interval.end - self.started) / 1e9)
        row = self.series.setdefault(second, [0.0, 0.0, float("nan")])
        length = max((interval.end - interval.begin) / 1e9, 0.1)
        row[0] += interval.counters.get("durable", 0) / length
        row[1] += interval.counters.get("heard", 0) / length
        if histogram := interval.histograms.get("publish"):
            row[2] = histogram.quantile(0.99)

    @property
    def line(self) -> str:
        """For a progress bar."""
        count = self.counters.get
        errors = sum(count(name, 0) for name in ("rejected", "unknown", "no_room"))
        dropped = sum(n for name, n in self.counters.items() if name.startswith("dropped: "))
        return (
            f"{self.state}: {count('durable', 0):,} durable, {count('heard', 0):,} heard, "
            f"{dropped:,} dropped, {errors:,} errors"
        )
