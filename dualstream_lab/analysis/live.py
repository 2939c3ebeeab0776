"""The picture of a run that is still going on, from its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["draw_live"]


def draw_live(series: Mapping[int, Sequence[float]], *, duration: float, rate: float) -> Figure:
    """``series``: by second (durable events/s, heard/s, publish p99 in ms)."""
    figure = Figure(figsize=(9, 3), dpi=80, layout="constrained")
    rates, latency = figure.subplots(1, 2)
    at = sorted(series)
    durable, heard, p99 = (np.array([series[second][column] for second in at]) for column in range(3))
    rates.axhline(rate, color="#999999", linestyle=":", label="highest intended")
    rates.plot(at, durable, color="#000000", label="durable")
    rates.plot(at, heard, color="#D55E00", linestyle="--", label="heard")
    rates.set_ylabel("events/s")
    rates.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    latency.plot(at, np.where(np.isfinite(p99), p99, np.nan), color="#000000", label="publish p99")
    latency.set_ylabel("latency (ms)")
    for axes in (rates, latency):
        axes.set_xlim(0, duration)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("time (s)")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)
    return figure
