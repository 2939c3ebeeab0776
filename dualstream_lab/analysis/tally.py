"""A run as counts a second: all that a comparison needs, and small whatever the run's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from dualstream_lab.analysis.arrivals import NEVER, Arrivals, read_arrivals
from dualstream_lab.recording import RunDirectory
from dualstream_lab.recording.joined import durable_lag

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from dualstream_lab.recording import Manifest

    Counts = npt.NDArray[np.float64]
    Int64 = npt.NDArray[np.int64]

__all__ = ["BINS", "Counts", "HasPath", "Tally", "counted", "quantiles"]

BINS: Final = 1853
"""Of latencies, each 1 % wide, from 0.01 ms to 1000 s; the last one is "never"."""

_SMALLEST: Final = 0.01  # ms
_WIDTH: Final = math.log(1.01)
_SLICES: Final = 600  # a run of more seconds is cut into so many at most
_CHUNK: Final = 1_000_000
_LAG_STEP: Final = 10_000_000  # ns
_NO_LAG: Final = 1_000_000  # ns: less is none, or the ratio of two would be of nothing to nothing


class HasPath(Protocol):
    """Such as a ``Run``."""

    @property
    def path(self) -> Path:
        """The run directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One run in slices of a second (of a run beyond ten minutes, of some seconds), by intended time.

    ``lengths``: s of each slice. ``latencies``: a row a slice and a column a bin (``BINS``): ``publish``,
    ``live`` and ``durable`` from the intended time to the acknowledgement, to the first subscriber's read and
    to the Kafka consumer's; ``lag``: how long the oldest acknowledged record had waited for the consumer (at
    least 1 ms), a hundred samples a second. ``counts``: a number a slice: ``intended``, ``durable``,
    ``failed`` (not durable), ``acked`` (durable, by the time of the acknowledgement), ``silent`` (durable and
    never heard), ``dropped``. What was not recorded, or of which rows are missing, is not there, and
    ``problems`` names it.
    ``busy``: the share of the machine's cores that anybody used, NaN where nobody looked.
    """

    name: str
    manifest: Manifest
    lengths: Counts
    latencies: Mapping[str, Counts]
    counts: Mapping[str, Counts]
    problems: tuple[str, ...] = ()
    busy: float = math.nan

    @classmethod
    def read(cls, run: HasPath | Path | str) -> Tally:
        """Of a ``Run``, or of the path of a run directory, also of one whose writers died.

        Raises RecordingError for what is no run directory, and for one without rows. Ten million events take
        some seconds and 1 GB.
        """
        directory = RunDirectory.open(run if isinstance(run, (str, Path)) else run.path)
        found = read_arrivals(directory)
        edges = _edges(directory.manifest, found)
        counts, latencies = _cut(found, edges)
        sample = directory.manifest.sample
        return cls(
            name=directory.path.name,
            manifest=directory.manifest,
            lengths=np.diff(edges) / 1e9,
            latencies=latencies,
            counts={name: count * sample for name, count in counts.items()},
            problems=found.problems,
            busy=found.busy,
        )

    @property
    def events(self) -> int:
        """How many were intended."""
        return int(self.counts["intended"].sum())


def counted(slices: npt.NDArray[np.int32], spent: Int64, rows: int) -> Counts:
    """Latencies (ns, ``NEVER`` for never) as a row a slice and a column a bin."""
    found = np.zeros(rows * BINS)
    for first in range(0, len(spent), _CHUNK):
        part = slice(first, first + _CHUNK)
        bins = (np.log(np.maximum(spent[part] / 1e6, _SMALLEST) / _SMALLEST) / _WIDTH).astype(np.int64)
        bins = np.where(spent[part] == NEVER, BINS - 1, np.minimum(bins, BINS - 2))
        found += np.bincount(slices[part].astype(np.int64) * BINS + bins, minlength=len(found))
    return found.reshape(rows, BINS)


def quantiles(counts: Counts, share: float, weights: Counts | None = None) -> Counts:
    """Of each row of ``counts``, or of their sums by each row of ``weights``; ms.

    What ``share`` of all stay within; +inf where so many never arrived, NaN of none. Within a bin they count
    as spread evenly.
    """
    used = np.flatnonzero(counts.any(axis=0))
    if not len(used):
        return np.full(len(counts if weights is None else weights), np.nan)
    counts = counts[:, used] if weights is None else weights @ counts[:, used]
    total = np.cumsum(counts, axis=1)
    wanted = share * total[:, -1]
    place = (total < wanted[:, None] - 1e-9).sum(axis=1)
    row = np.arange(len(counts))
    inside = counts[row, place]
    reached = (wanted - total[row, place] + inside) / np.where(inside, inside, 1)
    found = np.asarray(_SMALLEST * np.exp(_WIDTH * (used[place] + np.clip(reached, 0, 1))))
    found[used[place] == BINS - 1] = np.inf
    found[total[:, -1] == 0] = np.nan
    return found


def _edges(manifest: Manifest, found: Arrivals) -> Int64:
    """From the plan's zero to its end, or to the last answer where that was a second or more later."""
    zero = manifest.started or int(found.intended.min())
    answered = int(found.acked.max()) - zero
    end = round(float(manifest.workload["duration"]) * 1e9)
    if manifest.state != "finished":
        end = min(end, max(int(found.intended.max()) - zero, answered))
    if answered >= end + 1_000_000_000:  # one answer's time after the plan is not a lower rate
        end = answered
    end = max(end, 1)
    width = max(1, math.ceil(end / 1e9 / _SLICES)) * 1_000_000_000
    return zero + np.append(np.arange(0, end, width), end)


def _cut(found: Arrivals, edges: Int64) -> tuple[dict[str, Counts], dict[str, Counts]]:
    rows = len(edges) - 1
    slices, durable = _slices(edges, found.intended), found.durable
    ours, begin = slices[durable], found.intended[durable]

    def number(among: npt.NDArray[np.int32]) -> Counts:
        return np.bincount(among, minlength=rows).astype(np.float64)

    counts = {"intended": number(slices), "durable": number(ours)}
    counts["failed"] = counts["intended"] - counts["durable"]
    spent = np.where(durable, found.acked - found.intended, NEVER)
    latencies = {"publish": counted(slices, spent, rows)}
    del spent
    if found.whole:
        counts["acked"] = number(_slices(edges, found.acked[durable]))
    if found.heard is not None:
        heard = found.heard[durable]
        latencies["live"] = counted(ours, np.where(heard < NEVER, heard - begin, NEVER), rows)
        counts["silent"] = number(ours[heard == NEVER])
    if found.consumed is not None:
        consumed = found.consumed[durable]
        latencies["durable"] = counted(ours, np.where(consumed < NEVER, consumed - begin, NEVER), rows)
        at = np.arange(edges[0], edges[-1], _LAG_STEP)
        lag = durable_lag(found.acked[durable], np.where(consumed < NEVER, consumed, 0), at)
        waited = np.maximum((lag * 1e9).astype(np.int64), _NO_LAG)
        latencies["lag"] = counted(_slices(edges, at), waited, rows)
    if found.dropped is not None:
        counts["dropped"] = number(slices[found.dropped])
    return counts, latencies


def _slices(edges: Int64, times: Int64) -> npt.NDArray[np.int32]:
    place = np.searchsorted(edges, times, side="right") - 1
    return np.clip(place, 0, len(edges) - 2).astype(np.int32)
