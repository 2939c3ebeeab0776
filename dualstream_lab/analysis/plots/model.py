"""What the model says: how many of each part, and how well it predicts."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from dualstream_lab.analysis.plots.look import LINES, MARKERS, finish, new_axes, plain_numbers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_bill", "plot_predictions"]

_SIXTH: Final = ("#777777", (0, (4, 2, 1, 2)))
"""There are six parts."""
_GOOD, _BAD = "#009E73", "#D55E00"
_WIDEST: Final = 4.0  # times too much or too little; what is further stands at the edge


def plot_bill(table: pd.DataFrame, ax: Axes | None = None, *, x: str = "rate") -> Axes:
    """How many of each ``part``, against ``x``, both logarithmic: ``value``, and a band from ``low`` to
    ``high``; columns of ``dualstream_lab.simulation.tables.bill_table``.
    """
    axes = new_axes(ax)
    marks = zip((*LINES, _SIXTH), MARKERS + "*", strict=True)
    for (part, points), ((color, dashes), marker) in zip(
        table.groupby("part", sort=False), cycle(marks), strict=False
    ):
        by_x = points.sort_values(x)
        axes.plot(
            by_x[x], by_x["value"], color=color, linestyle=dashes, marker=marker, markersize=5,
            label=str(part),
        )  # fmt: skip
        axes.fill_between(by_x[x], by_x["low"], by_x["high"], color=color, alpha=0.12, linewidth=0)
    if len(table):
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(plain_numbers))
            axis.set_minor_locator(NullLocator())
    axes.set_xlabel({"rate": "events/s"}.get(x, x.replace("_", " ")))
    axes.set_ylabel("how many (band: all costs low, or all high)")
    return finish(axes, "How many of each part it takes", simulated=True)


def plot_predictions(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Predicted by measured, a figure a line; shaded is what is allowed. Columns of
    ``dualstream_lab.simulation.tables.check_table``.
    """
    axes = new_axes(ax, height=1.4 + 0.3 * len(table))
    ratios = table["predicted"] / table["measured"]
    rows = zip(
        table["setup"] + ": " + table["figure"], ratios, table["allowed"], table["within"], strict=True
    )
    names = []
    for place, (name, ratio, allowed, within) in enumerate(rows):
        names.append(name)
        axes.barh(place, 2 * allowed, left=1 - allowed, height=0.9, color="#56B4E9", alpha=0.2, linewidth=0)
        shown = float(np.clip(ratio, 1 / _WIDEST, _WIDEST))
        marker = "o" if shown == ratio else ">" if ratio > 1 else "<"
        axes.plot([shown], [place], marker, color=_GOOD if within else _BAD, markersize=7, clip_on=False)
        axes.annotate(
            f"{ratio - 1:+.0%}", (1, place), xycoords=axes.get_yaxis_transform(), xytext=(8, 0),
            textcoords="offset points", va="center", fontsize=9, annotation_clip=False,
            color="#000000" if within else _BAD,
        )  # fmt: skip
    axes.axvline(1, color="#999999", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(1 / _WIDEST, _WIDEST)
    ticks = [0.25, 0.5, 1, 2, 4]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("predicted / measured (shaded: allowed)")
    return finish(axes, "Predicted beside measured, on runs that no cost was learned from")
