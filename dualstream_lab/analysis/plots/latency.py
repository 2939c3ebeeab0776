"""Latency: by percentile, and over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dualstream_lab.analysis.plots.look import (
    COLORS,
    LABELS,
    finish,
    latency_axis,
    new_axes,
    shade,
    time_axis,
)
from dualstream_lab.analysis.statistics import over_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from dualstream_lab.analysis.frames import Frames

__all__ = ["plot_latency_over_time", "plot_latency_percentiles"]

_PATHS: Final = ("publish_ms", "live_ms", "consumed_ms")


def plot_latency_percentiles(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS
) -> Axes:
    """Latency (ms, log) by percentile, stretched so that every further nine has the same room.

    A line ends where events never arrived.
    """
    axes = new_axes(ax)
    nines = np.linspace(0, 5, 301)
    for column in columns:
        values = frames.events[column].to_numpy()
        if not len(values) or np.isnan(values).all():
            continue
        shown = nines[nines <= np.log10(len(values))]
        full = np.where(np.isnan(values), np.inf, np.maximum(values, 1e-3))
        found = np.quantile(full, 1 - 10.0**-shown, method="inverted_cdf")
        there = np.isfinite(found)
        axes.plot(shown[there], found[there], color=COLORS[column], label=LABELS[column])
    axes.set_xticks(range(6), ["0", "90", "99", "99.9", "99.99", "99.999"])
    axes.set_xlabel("percentile of all intended events, %")
    latency_axis(axes)
    return finish(axes, "Latency by percentile")


def plot_latency_over_time(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS, width: float = 0.5
) -> Axes:
    """p50 (dashed) and p99 (solid) of the events intended in each ``width`` s; faults are shaded.

    A line is interrupted where that many never arrived.
    """
    axes = new_axes(ax)
    for column in columns:
        table = over_time(frames, column, width=width).replace(np.inf, np.nan)
        if table["p50"].isna().all():
            continue
        color = COLORS[column]
        axes.plot(table.index, table["p99"], color=color, label=f"{LABELS[column]}, p99")
        axes.plot(table.index, table["p50"], color=color, linestyle="--", linewidth=1, label="p50")
    shade(axes, frames)
    latency_axis(axes)
    time_axis(axes, frames)
    return finish(axes, "Latency over time")
