"""Percentiles with intervals, lag, outages: from frames to small tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dualstream_lab.analysis.frames import Frames
from dualstream_lab.analysis.paired import log_bins
from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import Outcome
from dualstream_lab.recording.joined import durable_lag
from dualstream_lab.recording.rows import Floats, Int64

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = pd.Series[float] | Floats | npt.NDArray[np.float32]

_BINS_PER_DECADE = 400  # bins of a block's histogram: 0.6 % wide
_BINS = 100 * _BINS_PER_DECADE
_SMALLEST = 1e-3  # ms


def percentiles(
    values: Values, *, qs: Sequence[float] = (0.5, 0.9, 0.99, 0.999), at: Values | None = None,
    confidence: float = 0.95, resamples: int = 2000, seed: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """Percentiles of latencies, with bootstrap intervals; one row a quantile, index ``q``.

    NaN stands for "never arrived" and counts as +inf. Columns: ``value``, ``low``, ``high`` (of the
    ``confidence`` interval), ``n``, ``missing``. A percentile is the smallest value that the share ``q`` of
    all stay within (numpy's ``inverted_cdf``).

    ``at``: when each began, in s. Then whole seconds are resampled, because latencies of neighbours are
    alike, and an interval that took them for independent would be far too narrow; with values rounded to
    0.6 %. Without ``at`` they are taken for independent, and the interval is that of an infinite number of
    resamples but for noise: the k-th of n resampled uniforms has a Beta(k, n - k + 1) distribution.
    """
    data = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    missing = int(np.count_nonzero(np.isnan(data)))
    ordered = np.where(np.isnan(data), np.inf, data)
    tail = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    shares = np.asarray(qs, np.float64)
    n = len(ordered)
    table = np.full((len(shares), 3), np.nan)
    if n:
        if at is not None:
            drawn = _by_second(ordered, np.asarray(at, np.float64), shares, resamples, rng)
        ordered.sort()
        ranks = np.clip(np.ceil(np.round(shares * n, 6)).astype(np.int64), 1, n)
        if at is None:
            drawn = [
                ordered[np.minimum((rng.beta(k, n - k + 1, resamples) * n).astype(np.int64), n - 1)]
                for k in ranks
            ]
        table[:, 0] = ordered[ranks - 1]
        table[:, 1:] = [np.quantile(column, tail, method="inverted_cdf") for column in drawn]
    frame = pd.DataFrame(table, columns=["value", "low", "high"], index=pd.Index(shares, name="q"))
    return frame.assign(n=n, missing=missing)


def _by_second(
    values: Floats, at: Floats, shares: Floats, resamples: int, rng: np.random.Generator
) -> list[Floats]:
    """The quantiles of resampled seconds, through one histogram a second."""
    _, block = np.unique(np.floor(at).astype(np.int64), return_inverse=True)
    blocks = int(block.max()) + 1
    place = log_bins(values, _SMALLEST, _BINS_PER_DECADE, _BINS)
    finite = np.isfinite(values)
    bins = int(place[finite].max(initial=0)) + 2
    place[~finite] = bins - 1
    counts = np.bincount(block * bins + place, minlength=blocks * bins).reshape(blocks, bins).astype(float)
    middles = _SMALLEST * 10 ** ((np.arange(bins) + 0.5) / _BINS_PER_DECADE)
    middles[-1] = np.inf
    found = np.empty((len(shares), resamples))
    for turn in range(resamples):
        weights = np.bincount(rng.integers(0, blocks, blocks), minlength=blocks)
        cumulative = np.cumsum(weights @ counts)
        reached = np.searchsorted(cumulative, shares * cumulative[-1] - 1e-9)
        found[:, turn] = middles[np.minimum(reached, bins - 1)]
    return list(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles of a latency, ms; NaN where there is none."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


def latency_ms(values: npt.NDArray[np.floating]) -> Latency:
    """The quantiles of latencies in ms; NaN, "never", is left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Latency(count=0, p50=np.nan, p99=np.nan, p999=np.nan, max=np.nan)
    p50, p99, p999 = np.quantile(values, [0.5, 0.99, 0.999], method="higher").tolist()
    return Latency(count=len(values), p50=p50, p99=p99, p999=p999, max=float(values.max()))


def latencies(frames: Frames, column: str) -> npt.NDArray[np.float32]:
    """An ``…_ms`` column of all events, ms; NaN for "never". Raises ConfigError for another one."""
    if column not in frames.events or not column.endswith("_ms"):
        known = ", ".join(str(name) for name in frames.events if str(name).endswith("_ms"))
        raise ConfigError(f"column: must be one of {known} (is {column!r})")
    return frames.events[column].to_numpy(np.float32)


def over_time(
    frames: Frames, column: str, *, width: float = 0.5, qs: Sequence[float] = (0.5, 0.99)
) -> pd.DataFrame:
    """Percentiles of an ``…_ms`` column of the events intended in each ``width`` s; index ``at_s``.

    One column a quantile (``p50``, ``p99``), +inf where that many never arrived, NaN where there were no
    events; ``missing``: the share that never arrived.
    """
    begin = frames.events["intended_s"].to_numpy()
    values = latencies(frames, column)
    edges = np.arange(0.0, frames.duration + width / 2, width)
    cuts = np.searchsorted(begin, [*edges, np.inf])
    found = np.full((len(edges), len(qs)), np.nan)
    missing = np.full(len(edges), np.nan)
    for place, (first, last) in enumerate(pairwise(cuts.tolist())):
        if last > first:
            part = values[first:last]
            never = np.isnan(part)
            missing[place] = never.mean()
            full = np.where(never, np.inf, part)
            found[place] = np.quantile(full, list(qs), method="inverted_cdf")
    if len(edges) > 1:  # what is intended at the very end belongs to the last full window
        edges, found, missing = edges[:-1], found[:-1], missing[:-1]
    frame = pd.DataFrame(found, columns=[f"p{share * 100:g}" for share in qs])
    return frame.assign(missing=missing).set_index(pd.Index(edges + width / 2, name="at_s"))


def lag(frames: Frames, *, width: float = 0.1) -> pd.DataFrame:
    """Kafka lag every ``width`` s; index ``at_s``. ``seconds``: the age of the oldest acknowledged record
    that the consumer had not read; ``messages``: how many there were (of a sample, scaled up).
    """
    at = np.arange(0.0, frames.length + width / 2, width)
    index = pd.Index(at, name="at_s")
    acked, consumed = _acked_and_consumed(frames)
    if "consumed" not in frames.has or not len(acked):
        return pd.DataFrame({"seconds": np.nan, "messages": np.nan}, index=index)
    now = (at * 1e9).astype(np.int64)
    # From which time on, and before which one, each is open: most of them at none. A record may be read
    # before the publisher learns that it was written.
    first, until = np.searchsorted(now, acked), np.searchsorted(now, consumed)
    open_ = first < until
    opened, closed = (np.bincount(each[open_], minlength=len(now) + 1) for each in (first, until))
    seconds = durable_lag(acked[open_], consumed[open_], now)
    return pd.DataFrame(
        {"seconds": seconds, "messages": np.cumsum(opened - closed)[:-1] * frames.sample}, index=index
    )


def _acked_and_consumed(frames: Frames) -> tuple[Int64, Int64]:
    """When every durable event was acknowledged and consumed, ns; at the end of time if it never was."""
    names = ("outcome", "intended_s", "publish_ms", "consumed_ms")
    outcome, begin, publish, read = (frames.events[name].to_numpy() for name in names)
    durable = (outcome == Outcome.DURABLE) & ~np.isnan(publish)
    if not durable.all():
        begin, publish, read = begin[durable], publish[durable], read[durable]
    acked = _nanoseconds(begin, publish)
    never = np.isnan(read)
    consumed = _nanoseconds(begin, np.where(never, np.float32(0), read))
    consumed[never] = np.iinfo(np.int64).max
    return acked, consumed


def _nanoseconds(begin_s: Floats, spent_ms: npt.NDArray[np.floating]) -> Int64:
    found = spent_ms * np.float64(1e-3)
    found += begin_s
    found *= 1e9
    return found.astype(np.int64)


def outage_windows(frames: Frames, *, width: float = 0.1, share: float = 0.5) -> pd.DataFrame:
    """When live delivery was out, as subscribers saw it: stretches in which ``share`` of it was undelivered.

    Columns: ``begin_s``, ``end_s``, ``length_s``, ``missed`` (events; of a sample, scaled up).
    """
    columns = ["begin_s", "end_s", "length_s", "missed"]
    durable = frames.events.loc[frames.events["outcome"] == 1, ["intended_s", "live_ms"]]
    if not len(durable) or "delivered" not in frames.has:
        return pd.DataFrame(columns=columns)
    place = np.maximum((durable["intended_s"].to_numpy() / width).astype(np.int64), 0)
    never = durable["live_ms"].isna().to_numpy()
    all_, missed = np.bincount(place), np.bincount(place, never)
    seen = np.flatnonzero(all_)  # a window without events says nothing
    out = missed[seen] / all_[seen] >= share
    edges = np.flatnonzero(np.diff(np.concatenate([[False], out, [False]]).astype(np.int8)))
    rows = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        inside = seen[first:last]
        begin, end = inside[0] * width, (inside[-1] + 1) * width
        rows.append((begin, end, end - begin, int(missed[inside].sum()) * frames.sample))
    return pd.DataFrame(rows, columns=columns)
