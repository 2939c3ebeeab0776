"""Latency and Kafka lag: by percentile, and over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter

from dualstream_lab.analysis.frames import Frames
from dualstream_lab.analysis.paired import log_bins
from dualstream_lab.analysis.plots import look
from dualstream_lab.analysis.statistics import lag, latencies, over_time
from dualstream_lab.recording.rows import Int64

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    Values = npt.NDArray[np.float32]

_PATHS: Final = ("publish_ms", "live_ms", "consumed_ms")
_NINES: Final = np.linspace(0, 5, 301)
_SMALLEST: Final = 1e-3  # ms
_NO_LAG: Final = 0.1  # ms: a log axis has no zero
_LOWEST: Final = 0.01  # ms, of a heat map
_PER_DECADE: Final = 12  # bins, each 21 % wide
_BINS: Final = 8 * _PER_DECADE
_WINDOWS: Final = 120  # at most, of the plan's duration
_LONG_PAUSE: Final = 1.0  # ms
_PAUSES: Final = {
    "published.gc_pause_ms": ("generator", "v"), "delivered.gc_pause_ms": ("subscribers", "^"),
    "consumed.gc_pause_ms": ("Kafka consumer", "x"),
}  # fmt: skip
_CHUNK: Final = 1_000_000  # rows that are looked at at once: their logarithms need room


def plot_latency_percentiles(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS
) -> Axes:
    """Latency (ms, log) by percentile, stretched so that every further nine has the same room.

    A line ends where events never arrived.
    """
    axes = look.new_axes(ax)
    for column in columns:
        nines, found = _by_nines(latencies(frames, column))
        if len(found):
            dashes = look.DASHES.get(column, ("-", ""))[0]
            axes.plot(nines, found, color=look.COLORS[column], linestyle=dashes, label=look.LABELS[column])
    return _finish_nines(axes, "Latency by percentile", simulated=frames.manifest.simulated)


def plot_percentiles(
    runs: Mapping[str, Frames | Sequence[Frames]], ax: Axes | None = None, *, column: str = "live_ms"
) -> Axes:
    """One latency, ``column``, by percentile, in several ``runs``: a line a name. The repeats of a name (a
    sequence) are pooled: their events count as those of one run.
    """
    axes = look.new_axes(ax)
    for (name, run), (color, dashes) in zip(runs.items(), cycle(look.LINES), strict=False):
        repeats = [run] if isinstance(run, Frames) else run
        pooled = [latencies(frames, column) for frames in repeats]
        nines, found = _by_nines(np.concatenate(pooled)) if pooled else ((), ())
        several = f" ({len(repeats)} runs)" if len(repeats) > 1 else ""
        several += " (simulated)" if any(frames.manifest.simulated for frames in repeats) else ""
        label = f"{name}{several}" if len(found) else f"{name}: nothing arrived"
        axes.plot(nines, found, color=color, linestyle=dashes, label=label)
    return _finish_nines(axes, f"Latency by percentile; {look.LABELS[column]}")


def _by_nines(values: Values) -> tuple[Values, Values]:
    """(number of nines, ms), as far as there are so many events and they arrived. NaN: never."""
    ordered = np.sort(values)  # NaN comes last
    arrived = len(values) - int(np.count_nonzero(np.isnan(values)))
    if not arrived:
        return values[:0], values[:0]
    nines = _NINES[np.log10(len(values)) >= _NINES]
    ranks = np.ceil(np.round((1 - 10.0**-nines) * len(values), 6)).astype(np.int64)
    nines, ranks = nines[ranks <= arrived], ranks[ranks <= arrived]
    return nines, np.maximum(ordered[np.maximum(ranks, 1) - 1], _SMALLEST)


def _finish_nines(axes: Axes, title: str, *, simulated: bool = False) -> Axes:
    axes.set_xticks(range(6), ["0", "90", "99", "99.9", "99.99", "99.999"])
    axes.set_xlabel("percentile of all intended events, %")
    look.latency_axis(axes)
    return look.finish(axes, title, simulated=simulated)


def plot_latency_over_time(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS, width: float = 0.5
) -> Axes:
    """p50 (thin) and p99 of the events intended in each ``width`` s; faults are shaded.

    A line is interrupted where that many never arrived. Marks show where Python's garbage collector stopped
    a process of the measurement for a millisecond or more, and for how long.
    """
    axes = look.new_axes(ax)
    for column in columns:
        table = over_time(frames, column, width=width).replace(np.inf, np.nan)
        if table["p50"].isna().all():
            continue
        color, (of_p99, of_p50) = look.COLORS[column], look.DASHES.get(column, ("-", "--"))
        axes.plot(
            table.index, table["p99"], color=color, linestyle=of_p99, label=f"{look.LABELS[column]}, p99"
        )
        axes.plot(table.index, table["p50"], color=color, linestyle=of_p50, linewidth=1, label="p50")
    for column, (party, mark) in _PAUSES.items():
        if column in frames.seconds and len(stopped := frames.seconds[frames.seconds[column] >= _LONG_PAUSE]):
            label = f"{party} stopped by the garbage collector"
            axes.plot(stopped["at_s"], stopped[column], mark, color="0.4", markersize=5, label=label)
    return _finish_over_time(axes, frames, "Latency over time")


def plot_lag_and_latency(frames: Frames, ax: Axes | None = None, *, width: float = 0.25) -> Axes:
    """Kafka lag beside live latency, on one clock and one axis: both in ms."""
    axes = look.new_axes(ax)
    table = lag(frames, width=0.02)
    windows = np.floor(table.index.to_numpy() / width)
    highest = table["seconds"].groupby(windows).max() * 1e3
    axes.plot(
        (highest.index.to_numpy() + 0.5) * width,
        np.maximum(highest.to_numpy(), _NO_LAG), color=look.COLORS["lag"], linestyle=look.DASHES["lag"][0],
        label=f"Kafka lag: age of the oldest unread record, highest\n(at the bottom: {_NO_LAG:g} ms or none)",
    )  # fmt: skip
    live = over_time(frames, "live_ms", width=width).replace(np.inf, np.nan)
    axes.plot(live.index, live["p99"], color=look.COLORS["live_ms"], label="live: intended to received, p99")
    axes.plot(live.index, live["p50"], color=look.COLORS["live_ms"], linestyle="--", linewidth=1, label="p50")
    return _finish_over_time(axes, frames, "Kafka lag and live latency", "lag, latency (ms)")


def _finish_over_time(axes: Axes, frames: Frames, title: str, label: str = "latency (ms)") -> Axes:
    look.shade(axes, frames)
    look.latency_axis(axes, label)
    return look.finish_over_time(axes, frames, title)


def plot_latency_heatmap(
    frames: Frames, ax: Axes | None = None, *, column: str = "live_ms", width: float | None = None
) -> Axes:
    """How many of the events intended in each ``width`` s had which latency (ms, log); faults are shaded.

    What never arrived is the band on top. The darker, the more events (log): what was rare shows, too.
    ``width``: left out, about a hundredth of the run. Raises ConfigError for a column that is no latency.
    """
    axes = look.new_axes(ax)
    width = _round_up(frames.duration / _WINDOWS) if width is None else width
    counts = _cells(frames, column, width) * frames.sample
    arrived, never = counts[:, :_BINS], counts[:, _BINS:]
    used = np.flatnonzero(arrived.any(axis=0))
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (2 * _PER_DECADE, 4 * _PER_DECADE)
    edges = _LOWEST * 10 ** (np.arange(first, last + 1) / _PER_DECADE)
    band = edges[-1] * np.array([1.15, 1.15 * max(1.6, (edges[-1] / edges[0]) ** 0.07)])
    if counts.any():
        times, color = np.arange(len(counts) + 1) * width, LogNorm(1, max(int(counts.max()), 10))
        for cells, rows in ((arrived[:, first:last], edges), (never, band)):
            shown = np.ma.masked_equal(cells.T, 0)
            mesh = axes.pcolormesh(times, rows, shown, norm=color, cmap="cividis_r")
        bar = axes.figure.colorbar(mesh, ax=axes, pad=0.015, format=FuncFormatter(look.plain_numbers))
        bar.set_label(f"events in {width:g} s and {10 ** (1 / _PER_DECADE) - 1:.0%} of latency")
        bar.outline.set_visible(False)
        bar.minorticks_off()
        axes.axhline(edges[-1] * 1.07, color="#999999", linewidth=0.8)
        axes.set_ylim(edges[0], band[1])
    look.shade(axes, frames)
    look.latency_axis(axes)
    if counts.any():
        ticks = [float(tick) for tick in axes.get_yticks() if tick < edges[-1] / 1.3]
        axes.set_yticks(
            [*ticks, math.sqrt(band[0] * band[1])], [*(f"{tick:,g}" for tick in ticks), "missing"]
        )
    return look.finish_over_time(axes, frames, f"How many had which latency; {look.LABELS[column]}")


def _round_up(least: float) -> float:
    """The next number that is 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= least * (1 - 1e-9))


def _cells(frames: Frames, column: str, width: float) -> Int64:
    """Events by window (rows) and latency (columns, the last one: never)."""
    values, begin = latencies(frames, column), frames.events["intended_s"].to_numpy()
    windows = max(1, math.ceil(frames.duration / width - 1e-9))
    found = np.zeros(windows * (_BINS + 1), np.int64)
    for start in range(0, len(values), _CHUNK):
        bins = log_bins(values[start : start + _CHUNK], _LOWEST, _PER_DECADE, _BINS)
        window = np.clip(begin[start : start + _CHUNK] / width + 1e-9, 0, windows - 1).astype(np.int64)
        found += np.bincount(window * (_BINS + 1) + bins, minlength=len(found))
    return found.reshape(windows, _BINS + 1)
