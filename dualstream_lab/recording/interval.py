"""What a process counts and measures, second by second, as lines of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec

from dualstream_lab.errors import RecordingError
from dualstream_lab.recording.histogram import LatencyHistogram
from dualstream_lab.recording.manifest import Nanoseconds

_DROPPED = "dropped: "

Level = Annotated[float, msgspec.Meta(ge=-(2**63), le=2**63)]
Sum = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class Interval(msgspec.Struct, kw_only=True):
    """One stretch of time in one process. Times are ns of the monotonic clock."""

    writer: str
    begin: Nanoseconds
    end: Nanoseconds
    counters: dict[str, Sum] = {}  # what happened within it
    gauges: dict[str, Level] = {}  # levels at its end, or the worst within it
    histograms: dict[str, LatencyHistogram] = {}  # latencies of the events that were settled within it

    def encode(self) -> dict[str, Any]:
        """The interval as a dictionary that JSON can hold."""
        histograms = {name: histogram.encode() for name, histogram in self.histograms.items()}
        return msgspec.structs.asdict(self) | {"histograms": histograms}

    @classmethod
    def decode(cls, value: dict[str, Any]) -> Self:
        """Read what :meth:`encode` made. Raises RecordingError."""
        try:
            return msgspec.convert(value, cls, dec_hook=_histogram)
        except msgspec.ValidationError as error:
            raise RecordingError(f"not an interval: {error}") from error

    @classmethod
    def read(cls, line: bytes | None) -> Interval:
        """Read a line of a file; None stands for one that is too long. Raises RecordingError."""
        if line is None:
            raise RecordingError("not an interval: too long")
        try:
            return _lines.decode(line)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise RecordingError(f"not an interval: {error}") from error


def _histogram(_: type, value: Any) -> LatencyHistogram:
    return LatencyHistogram.decode(value)


_lines = msgspec.json.Decoder(Interval, dec_hook=_histogram)


def drops_of(counters: Mapping[str, int]) -> dict[str, int]:
    """How many notifications were given up, by reason."""
    return {name[len(_DROPPED) :]: n for name, n in counters.items() if name.startswith(_DROPPED)}


class Meter:
    """Counts and measures of one process; :meth:`take` cuts the interval since the last time."""

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._now = self._fresh()

    def _fresh(self) -> Interval:
        now = time.monotonic_ns()
        return Interval(writer=self._writer, begin=now, end=now)

    def count(self, name: str, more: int = 1) -> None:
        """Add to a counter."""
        if more:
            counters = self._now.counters
            counters[name] = counters.get(name, 0) + more

    def level(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._now.gauges[name] = value

    def peak(self, name: str, value: float) -> None:
        """Raise a gauge: the interval keeps the highest."""
        gauges = self._now.gauges
        if value > gauges.get(name, float("-inf")):
            gauges[name] = value

    def histogram(self, name: str) -> LatencyHistogram:
        """The histogram of this name, made when first asked for."""
        return self._now.histograms.setdefault(name, LatencyHistogram())

    def take(self) -> Interval:
        """The interval since the last call, with all that came together in it."""
        taken, self._now = self._now, self._fresh()
        taken.end = self._now.begin
        return taken


class IntervalWriter:
    """Appends intervals to ``intervals-<writer>.jsonl``, each line whole."""

    def __init__(self, directory: Path, writer: str) -> None:
        self._file = (directory / f"intervals-{writer}.jsonl").open("ab", buffering=0)
        self.close = self._file.close

    def write(self, interval: Interval) -> None:
        """Append an interval to the file."""
        self._file.write(json.dumps(interval.encode(), separators=(",", ":")).encode() + b"\n")
