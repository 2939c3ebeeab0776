"""Kafka lag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dualstream_lab.analysis.plots.look import (
    COLORS,
    DASHES,
    finish,
    latency_axis,
    new_axes,
    shade,
    time_axis,
)
from dualstream_lab.analysis.statistics import lag, over_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dualstream_lab.analysis.frames import Frames

__all__ = ["plot_lag_and_latency"]

_NO_LAG: Final = 0.1  # ms: a log axis has no zero


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
    shade(axes, frames)
    latency_axis(axes, "lag, latency (ms)")
    time_axis(axes, frames)
    return finish(axes, "Kafka lag and live latency", simulated=frames.manifest.simulated)
