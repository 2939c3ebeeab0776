"""Pictures of runs. Each takes an ``ax`` (or makes one) and returns it; units are on every axis.

The colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; lines that share
a colour differ in their dashes.
"""

from __future__ import annotations

from dualstream_lab.analysis.plots.differences import plot_differences, plot_predictions
from dualstream_lab.analysis.plots.heatmap import plot_latency_heatmap
from dualstream_lab.analysis.plots.latency import (
    plot_lag_and_latency,
    plot_latency_over_time,
    plot_latency_percentiles,
    plot_percentiles,
)
from dualstream_lab.analysis.plots.ledger import plot_ledger
from dualstream_lab.analysis.plots.look import COLORS
from dualstream_lab.analysis.plots.rates import draw_live, plot_outcomes, plot_rates, plot_timeline
from dualstream_lab.analysis.plots.recovery import plot_recovery
from dualstream_lab.analysis.plots.scaling import plot_bill, plot_fan_out, plot_sweep

__all__ = [
    "COLORS",
    "draw_live",
    "plot_bill",
    "plot_differences",
    "plot_fan_out",
    "plot_lag_and_latency",
    "plot_latency_heatmap",
    "plot_latency_over_time",
    "plot_latency_percentiles",
    "plot_ledger",
    "plot_outcomes",
    "plot_percentiles",
    "plot_predictions",
    "plot_rates",
    "plot_recovery",
    "plot_sweep",
    "plot_timeline",
]
