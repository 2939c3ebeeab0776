"""Latency: by percentile, and over time."""

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
)
from dualstream_lab.analysis.statistics import latencies, over_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

    Values = npt.NDArray[np.float32]

__all__ = ["plot_latency_over_time", "plot_latency_percentiles", "plot_percentiles"]

_PATHS: Final = ("publish_ms", "live_ms", "consumed_ms")
_NINES: Final = np.linspace(0, 5, 301)
_SMALLEST: Final = 1e-3  # ms


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
    shade(axes, frames)
    latency_axis(axes)
    time_axis(axes, frames)
    return finish(axes, "Latency over time", simulated=frames.manifest.simulated)
