"""Latency and Kafka lag: by percentile, and over time."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final

import numpy as np

from dualstream_lab.analysis.frames import Frames
from dualstream_lab.analysis.plots.look import (
    COLORS,
    DASHES,
    LABELS,
    LINES,
    finish,
    latency_axis,
    new_axes,
    shade,
    time_axis,
)  # fmt: skip
from dualstream_lab.analysis.statistics import lag, latencies, over_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

    Values = npt.NDArray[np.float32]

__all__ = ["plot_lag_and_latency", "plot_latency_over_time", "plot_latency_percentiles", "plot_percentiles"]

_PATHS: Final = ("publish_ms", "live_ms", "consumed_ms")
_NINES: Final = np.linspace(0, 5, 301)
_SMALLEST: Final = 1e-3  # ms
_NO_LAG: Final = 0.1  # ms: a log axis has no zero


def plot_latency_percentiles(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS
) -> Axes:
    """Latency (ms, log) by percentile, stretched so that every further nine has the same room.

    A line ends where events never arrived.
    """
    axes = new_axes(ax)
    for column in columns:
        nines, found = _by_nines(latencies(frames, column))
        if len(found):
            dashes = DASHES.get(column, ("-", ""))[0]
            axes.plot(nines, found, color=COLORS[column], linestyle=dashes, label=LABELS[column])
    return _finish_nines(axes, "Latency by percentile", simulated=frames.manifest.simulated)


def plot_percentiles(
    runs: Mapping[str, Frames | Sequence[Frames]], ax: Axes | None = None, *, column: str = "live_ms"
) -> Axes:
    """The same of one latency, ``column``, in several ``runs``: a line a name. The repeats of a name (a
    sequence) are pooled: their events count as those of one run.
    """
    axes = new_axes(ax)
    for (name, run), (color, dashes) in zip(runs.items(), cycle(LINES), strict=False):
        repeats = [run] if isinstance(run, Frames) else run
        pooled = [latencies(frames, column) for frames in repeats]
        nines, found = _by_nines(np.concatenate(pooled)) if pooled else ((), ())
        several = f" ({len(repeats)} runs)" if len(repeats) > 1 else ""
        several += " (simulated)" if any(frames.manifest.simulated for frames in repeats) else ""
        label = f"{name}{several}" if len(found) else f"{name}: nothing arrived"
        axes.plot(nines, found, color=color, linestyle=dashes, label=label)
    return _finish_nines(axes, f"Latency by percentile; {LABELS[column]}")


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
    latency_axis(axes)
    return finish(axes, title, simulated=simulated)


def plot_latency_over_time(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS, width: float = 0.5
) -> Axes:
    """p50 (thin) and p99 of the events intended in each ``width`` s; faults are shaded.

    A line is interrupted where that many never arrived.
    """
    axes = new_axes(ax)
    for column in columns:
        table = over_time(frames, column, width=width).replace(np.inf, np.nan)
        if table["p50"].isna().all():
            continue
        color, (of_p99, of_p50) = COLORS[column], DASHES.get(column, ("-", "--"))
        axes.plot(table.index, table["p99"], color=color, linestyle=of_p99, label=f"{LABELS[column]}, p99")
        axes.plot(table.index, table["p50"], color=color, linestyle=of_p50, linewidth=1, label="p50")
    return _finish_over_time(axes, frames, "Latency over time")


def plot_lag_and_latency(frames: Frames, ax: Axes | None = None, *, width: float = 0.25) -> Axes:
    """Kafka lag beside live latency, on one clock and one axis: both in ms."""
    axes = new_axes(ax)
    table = lag(frames, width=0.02)
    windows = np.floor(table.index.to_numpy() / width)
    highest = table["seconds"].groupby(windows).max() * 1e3
    axes.plot(
        (highest.index.to_numpy() + 0.5) * width,
        np.maximum(highest.to_numpy(), _NO_LAG), color=COLORS["lag"], linestyle=DASHES["lag"][0],
        label=f"Kafka lag: age of the oldest unread record, highest\n(at the bottom: {_NO_LAG:g} ms or none)",
    )  # fmt: skip
    live = over_time(frames, "live_ms", width=width).replace(np.inf, np.nan)
    axes.plot(live.index, live["p99"], color=COLORS["live_ms"], label="live: intended to heard on Redis, p99")
    axes.plot(live.index, live["p50"], color=COLORS["live_ms"], linestyle="--", linewidth=1, label="p50")
    return _finish_over_time(axes, frames, "Kafka lag and live latency", "lag, latency (ms)")


def _finish_over_time(axes: Axes, frames: Frames, title: str, label: str = "latency (ms)") -> Axes:
    shade(axes, frames)
    latency_axis(axes, label)
    time_axis(axes, frames)
    return finish(axes, title, simulated=frames.manifest.simulated)
