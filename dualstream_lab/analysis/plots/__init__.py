"""Pictures of runs. Each takes an ``ax`` (or makes one) and returns it; units are on every axis.

The colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; lines that share
a colour differ in their dashes.
"""

from __future__ import annotations

from dualstream_lab.analysis.plots.differences import plot_differences
from dualstream_lab.analysis.plots.lag import plot_lag_and_latency
from dualstream_lab.analysis.plots.latency import plot_latency_over_time, plot_latency_percentiles
from dualstream_lab.analysis.plots.look import COLORS
from dualstream_lab.analysis.plots.rates import plot_outcomes, plot_rates, plot_timeline
from dualstream_lab.analysis.plots.sweep import plot_sweep

__all__ = [
    "COLORS",
    "plot_differences",
    "plot_lag_and_latency",
    "plot_latency_over_time",
    "plot_latency_percentiles",
    "plot_outcomes",
    "plot_rates",
    "plot_sweep",
    "plot_timeline",
]
