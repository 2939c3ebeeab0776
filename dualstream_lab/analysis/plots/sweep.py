"""Measures of several runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter

from dualstream_lab.analysis.plots.look import finish, latency_axis, new_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_sweep"]


def plot_sweep(
    table: pd.DataFrame, ax: Axes | None = None, *, columns: Sequence[str], x: str = "rate"
) -> Axes:
    """Measures (ms, log) of several runs against their rate: one line a column of ``table``.

    What is 0 has a hollow marker, below all others.
    """
    axes = new_axes(ax)
    styles = list(zip(["#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7"], "os^Dv", strict=True))
    ordered = table.sort_values(x)
    rates = ordered[x].to_numpy()
    measures = [ordered[column].replace(np.inf, np.nan).to_numpy(np.float64) for column in columns]
    every = np.concatenate(measures)
    lowest = min(every[every > 0], default=2.0) / 2  # a log axis has no zero
    for number, (column, values) in enumerate(zip(columns, measures, strict=True)):
        color, marker = styles[number % len(styles)]
        none = values == 0
        shown = np.where(none, lowest, values)
        axes.plot(rates, shown, color=color, marker=marker, label=column)
        axes.plot(rates[none], shown[none], color=color, marker=marker, mfc="white", linestyle="")
    if (every == 0).any():
        axes.plot([], [], color="#999999", marker="o", mfc="white", linestyle="", label="0")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("intended events/s" if x == "rate" else x)
    latency_axis(axes, "ms")
    return finish(axes, "Where each bends")
