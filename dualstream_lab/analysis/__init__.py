"""Recorded runs into frames, statistics and pictures.

::

    from dualstream_lab import analysis

    frames = analysis.load(run)              # or the path of a run directory
    frames.events.live_ms.describe()
    analysis.plot_timeline(frames)
"""

from __future__ import annotations

from dualstream_lab.analysis.caveats import caveats
from dualstream_lab.analysis.comparison import Arm, Difference, Finding, compare_arms
from dualstream_lab.analysis.frames import Frames, compare, load
from dualstream_lab.analysis.plots.differences import plot_differences, plot_predictions
from dualstream_lab.analysis.plots.latency import (
    plot_lag_and_latency,
    plot_latency_heatmap,
    plot_latency_over_time,
    plot_latency_percentiles,
    plot_percentiles,
)
from dualstream_lab.analysis.plots.ledger import plot_ledger, plot_recovery
from dualstream_lab.analysis.plots.rates import plot_outcomes, plot_rates, plot_timeline
from dualstream_lab.analysis.plots.scaling import plot_bill, plot_fan_out, plot_sweep
from dualstream_lab.analysis.statistics import lag, outage_windows, over_time, percentiles

__all__ = [
    "Arm", "Difference", "Finding", "Frames", "caveats", "compare", "compare_arms", "lag", "load",
    "outage_windows", "over_time", "percentiles", "plot_bill", "plot_differences", "plot_fan_out",
    "plot_lag_and_latency", "plot_latency_heatmap", "plot_latency_over_time", "plot_latency_percentiles",
    "plot_ledger", "plot_outcomes", "plot_percentiles", "plot_predictions", "plot_rates", "plot_recovery",
    "plot_sweep", "plot_timeline",
]  # fmt: skip
