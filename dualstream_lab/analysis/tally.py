"""A run as counts a second: all that a comparison needs, and small whatever the run's size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np

from dualstream_lab.errors import RecordingError
from dualstream_lab.ledger.seconds import Seconds
from dualstream_lab.recording import Manifest, RunDirectory
from dualstream_lab.recording.joined import Joined, durable_lag, join, places
from dualstream_lab.recording.rows import Flags, Floats, Int32, Int64

BINS: Final = 1853
"""Of latencies, each 1 % wide, from 0.01 ms to 1000 s; the last one is "never"."""

_NEVER: Final = np.iinfo(np.int64).max
_SMALLEST: Final = 0.01  # ms
_WIDTH: Final = math.log(1.01)
_SLICES: Final = 600  # a run of more seconds is cut into so many at most
_CHUNK: Final = 1_000_000
_LAG_STEP: Final = 10_000_000  # ns
_NO_LAG: Final = 1_000_000  # ns: less is none, or the ratio of two would be of nothing to nothing


class HasPath(Protocol):
    """Whatever has a run directory, such as a ``Run``."""

    @property
    def path(self) -> Path:
        """The run directory."""


def open_run(run: HasPath | Path | str) -> RunDirectory:
    """Open the directory of a run. Raises RecordingError for what is not a run directory."""
    return RunDirectory.open(run if isinstance(run, (str, Path)) else run.path)


class _Arrivals(NamedTuple):
    """What became of the events of a run.

    ``known``: which of ``published``, ``delivered``, ``consumed`` and ``dropped`` were recorded, without a
    missing row, and with the log read to its end: of the others nobody knows what "never" is.
    """

    joined: Joined
    dropped: Flags  # whether the notification was given up
    known: set[str]
    problems: tuple[str, ...]  # what is missing, in sentences
    busy: float  # the share of the machine's cores that anybody used, NaN where nobody looked


def _read_arrivals(directory: RunDirectory) -> _Arrivals:
    """Read the rows of a run. Raises RecordingError where there are none of publishing."""
    joined = join(directory)
    if not len(joined):
        raise RecordingError(f"{directory.path} has no rows: there is nothing to compare")
    seconds, damaged, rows = Seconds(directory), set(joined.damaged), dict(joined.rows)
    dropped, rows["dropped"] = np.zeros(len(joined), np.bool_), 0
    for _, columns in directory.columns("dropped", ("seq",)):
        if columns is None:
            damaged.add("dropped")
        else:
            rows["dropped"] += len(columns["seq"])
            place, known = places(joined.seq, columns["seq"])
            dropped[place[known]] = True
    missing = {kind: problem for kind, count in rows.items() if (problem := seconds.missing(kind, count))}
    unread = [seconds.unread] if seconds.unread else []
    damaged |= {*missing, *(["consumed"] if unread else ())}
    damaged |= {"delivered"} if "caught_up" in damaged else set()
    counters = seconds.counters
    recorded = {
        "published": True,
        "delivered": "delivered" in counters or joined.delivered.any(),
        "consumed": "consumed" in counters or joined.consumed.any(),
        "dropped": "notified" in counters or seconds.counted("dropped"),
    }
    used, idle = counters["machine.busy_ms"], counters["machine.idle_ms"]
    return _Arrivals(
        joined, dropped, {kind for kind, there in recorded.items() if there} - damaged,
        problems=(*directory.problems, *missing.values(), *unread),
        busy=used / (used + idle) if used + idle else math.nan,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One run in slices of a second (of a run beyond ten minutes, of some seconds), by intended time.

    ``lengths``: s of each slice.

    ``latencies``: a row a slice and a column a bin (``BINS``). ``publish``, ``live`` and ``durable`` go from
    the intended time to the acknowledgement, to the first subscriber's read and to the Kafka consumer's;
    ``lag``: how long the oldest acknowledged record had waited for the consumer (at least 1 ms), a hundred
    samples a second.

    ``counts``: events of each slice: ``intended``, ``durable``, ``failed`` (not durable), ``acked`` (durable,
    by the time of the acknowledgement), ``undelivered`` (durable and not delivered) and ``dropped`` (their
    notification was given up).

    What was not recorded, or of which rows are missing, is not there, and ``problems`` names it. ``busy``:
    the share of the machine's cores that anybody used, NaN where nobody looked.
    """

    name: str
    manifest: Manifest
    lengths: Floats
    latencies: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    problems: tuple[str, ...] = ()
    busy: float = math.nan

    @classmethod
    def read(cls, run: HasPath | Path | str) -> Tally:
        """Read a run: a ``Run``, or the path of a run directory, also of one whose writers died.

        Raises RecordingError for what is no run directory, and for one without rows. Ten million events take
        some seconds.
        """
        directory = open_run(run)
        manifest, arrivals = directory.manifest, _read_arrivals(directory)
        edges = _edges(manifest, arrivals.joined)
        counts, latencies = _cut(arrivals, edges)
        return cls(
            name=directory.path.name, manifest=manifest, lengths=np.diff(edges) / 1e9, latencies=latencies,
            counts={name: count * manifest.sample for name, count in counts.items()},
            problems=arrivals.problems, busy=arrivals.busy,
        )  # fmt: skip

    @property
    def events(self) -> int:
        """How many events were intended."""
        return int(self.counts["intended"].sum())


def counted(slices: Int32, spent: Int64, rows: int) -> Floats:
    """Latencies (ns, the highest number for never) as a row a slice and a column a bin."""
    found = np.zeros(rows * BINS)
    for first in range(0, len(spent), _CHUNK):
        part = slice(first, first + _CHUNK)
        bins = (np.log(np.maximum(spent[part] / 1e6, _SMALLEST) / _SMALLEST) / _WIDTH).astype(np.int64)
        bins = np.where(spent[part] == _NEVER, BINS - 1, np.minimum(bins, BINS - 2))
        found += np.bincount(slices[part].astype(np.int64) * BINS + bins, minlength=len(found))
    return found.reshape(rows, BINS)


def quantiles(counts: Floats, share: float, weights: Floats | None = None) -> Floats:
    """A quantile of each row of ``counts``, or of their sums by each row of ``weights``; ms.

    It is what ``share`` of all stay within; +inf where so many never arrived, NaN of none. Within a bin they
    count as spread evenly.
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


def _edges(manifest: Manifest, joined: Joined) -> Int64:
    """The edges of the slices, ns: from the plan's zero to its end, or to the last answer where that was a
    second or more later.
    """
    zero = manifest.started or int(joined.intended.min())
    answered = int(joined.acked[joined.durable].max(initial=0)) - zero
    end = round(float(manifest.workload["duration"]) * 1e9)
    if manifest.state != "finished":
        end = min(end, max(int(joined.intended.max()) - zero, answered))
    if answered >= end + 1_000_000_000:  # one answer's time after the plan is not a lower rate
        end = answered
    end = max(end, 1)
    width = max(1, math.ceil(end / 1e9 / _SLICES)) * 1_000_000_000
    return zero + np.append(np.arange(0, end, width), end)


def _cut(arrivals: _Arrivals, edges: Int64) -> tuple[dict[str, Floats], dict[str, Floats]]:
    joined, durable, rows = arrivals.joined, arrivals.joined.durable, len(edges) - 1
    slices = _slices(edges, joined.intended)
    among, begin, acked = slices[durable], joined.intended[durable], joined.acked[durable]

    def number(chosen: Int32) -> Floats:
        return np.bincount(chosen, minlength=rows).astype(np.float64)

    def until(end: Int64) -> Floats:
        return counted(among, np.where(end > 0, end - begin, _NEVER), rows)

    counts = {"intended": number(slices), "durable": number(among)}
    counts["failed"] = counts["intended"] - counts["durable"]
    spent = np.where(durable, joined.acked - joined.intended, _NEVER)
    latencies = {"publish": counted(slices, spent, rows)}
    del spent
    if "published" in arrivals.known:
        counts["acked"] = number(_slices(edges, acked))
    if "delivered" in arrivals.known:
        delivered = joined.delivered[durable]
        latencies["live"] = until(delivered)
        counts["undelivered"] = number(among[delivered == 0])
    if "consumed" in arrivals.known:
        consumed = joined.consumed[durable]
        latencies["durable"] = until(consumed)
        at = np.arange(edges[0], edges[-1], _LAG_STEP)
        lag = np.maximum((durable_lag(acked, consumed, at) * 1e9).astype(np.int64), _NO_LAG)
        latencies["lag"] = counted(_slices(edges, at), lag, rows)
    if "dropped" in arrivals.known:
        counts["dropped"] = number(slices[arrivals.dropped])
    return counts, latencies


def _slices(edges: Int64, times: Int64) -> Int32:
    place = np.searchsorted(edges, times, side="right") - 1
    return np.clip(place, 0, len(edges) - 2).astype(np.int32)
