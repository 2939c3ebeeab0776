"""Latency over time, every event in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter

from dualstream_lab.analysis.paired import log_bins
from dualstream_lab.analysis.plots.look import (
    LABELS,
    finish,
    latency_axis,
    new_axes,
    plain_numbers,
    shade,
    time_axis,
)  # fmt: skip
from dualstream_lab.analysis.statistics import latencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dualstream_lab.analysis.frames import Frames
    from dualstream_lab.recording.rows import Int64

__all__ = ["plot_latency_heatmap"]

_SMALLEST: Final = 0.01  # ms
_PER_DECADE: Final = 12  # bins, each 21 % wide
_BINS: Final = 8 * _PER_DECADE
_WINDOWS: Final = 120  # at most, of the plan's duration
_CHUNK: Final = 1_000_000  # rows that are looked at at once: their logarithms need room


def plot_latency_heatmap(
    frames: Frames, ax: Axes | None = None, *, column: str = "live_ms", width: float | None = None
) -> Axes:
    """How many of the events intended in each ``width`` s had which latency (ms, log); faults are shaded.

    What never arrived is the band on top. The darker, the more events (log): what was rare shows, too.
    ``width``: left out, about a hundredth of the run. Raises ConfigError for a column that is no latency.
    """
    axes = new_axes(ax)
    width = _round_up(frames.duration / _WINDOWS) if width is None else width
    counts = _cells(frames, column, width) * frames.sample
    arrived, never = counts[:, :_BINS], counts[:, _BINS:]
    used = np.flatnonzero(arrived.any(axis=0))
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (2 * _PER_DECADE, 4 * _PER_DECADE)
    edges = _SMALLEST * 10 ** (np.arange(first, last + 1) / _PER_DECADE)
    band = edges[-1] * np.array([1.15, 1.15 * max(1.6, (edges[-1] / edges[0]) ** 0.07)])
    if counts.any():
        times, color = np.arange(len(counts) + 1) * width, LogNorm(1, max(int(counts.max()), 10))
        for cells, rows in ((arrived[:, first:last], edges), (never, band)):
            shown = np.ma.masked_equal(cells.T, 0)
            mesh = axes.pcolormesh(times, rows, shown, norm=color, cmap="cividis_r")
        bar = axes.figure.colorbar(mesh, ax=axes, pad=0.015, format=FuncFormatter(plain_numbers))
        bar.set_label(f"events in {width:g} s and {10 ** (1 / _PER_DECADE) - 1:.0%} of latency")
        bar.outline.set_visible(False)
        bar.minorticks_off()
        axes.axhline(edges[-1] * 1.07, color="#999999", linewidth=0.8)
        axes.set_ylim(edges[0], band[1])
    shade(axes, frames)
    latency_axis(axes)
    if counts.any():
        ticks = [float(tick) for tick in axes.get_yticks() if tick < edges[-1] / 1.3]
        axes.set_yticks([*ticks, math.sqrt(band[0] * band[1])], [*(f"{tick:,g}" for tick in ticks), "never"])
    time_axis(axes, frames)
    return finish(axes, f"How many had which latency; {LABELS[column]}", simulated=frames.manifest.simulated)


def _round_up(least: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= least * (1 - 1e-9))


def _cells(frames: Frames, column: str, width: float) -> Int64:
    """Events by window (rows) and latency (columns, the last one: never)."""
    values, begin = latencies(frames, column), frames.events["intended_s"].to_numpy()
    windows = max(1, math.ceil(frames.duration / width - 1e-9))
    found = np.zeros(windows * (_BINS + 1), np.int64)
    for start in range(0, len(values), _CHUNK):
        bins = log_bins(values[start : start + _CHUNK], _SMALLEST, _PER_DECADE, _BINS)
        window = np.clip(begin[start : start + _CHUNK] / width + 1e-9, 0, windows - 1).astype(np.int64)
        found += np.bincount(window * (_BINS + 1) + bins, minlength=len(found))
    return found.reshape(windows, _BINS + 1)
