"""How something scales: with the rate, or with how many there are of something."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dualstream_lab.analysis.plots import look

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_UNITS: Final = {"s": "s", "ms": "ms", "us": "µs", "kib": "KiB", "mib": "MiB", "cpu": "share of one core"}
_DECADES: Final = 30  # largest by smallest: beyond it, an axis is logarithmic
_SIXTH: Final = ("#777777", (0, (4, 2, 1, 2)))
"""There are six parts."""


def plot_sweep(
    table: pd.DataFrame, ax: Axes | None = None, *, columns: Sequence[str], x: str = "rate"
) -> Axes:
    """Measures (ms, log) of several runs against their rate: one line a column of ``table``.

    What is 0 has a hollow marker, below all others.
    """
    axes = look.new_axes(ax)
    ordered = table.sort_values(x)
    rates = ordered[x].to_numpy()
    measures = [ordered[column].replace(np.inf, np.nan).to_numpy(np.float64) for column in columns]
    every = np.concatenate(measures)
    lowest = min(every[every > 0], default=2.0) / 2  # a log axis has no zero
    styles = cycle(zip(look.LINES, look.MARKERS, strict=True))
    for column, values, ((color, _), marker) in zip(columns, measures, styles, strict=False):
        none = values == 0
        shown = np.where(none, lowest, values)
        axes.plot(rates, shown, color=color, marker=marker, label=column)
        axes.plot(rates[none], shown[none], color=color, marker=marker, mfc="white", linestyle="")
    if (every == 0).any():
        axes.plot([], [], color="#999999", marker="o", mfc="white", linestyle="", label="0")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("intended events/s" if x == "rate" else x)
    look.latency_axis(axes, "ms")
    return look.finish(axes, "Where each bends")


def plot_fan_out(table: pd.DataFrame, ax: Axes | None = None, *, x: str, y: str, by: str) -> Axes:
    """``y`` against ``x`` (log): a line a value of ``by``, three columns of ``table``.

    Several rows of a point are its repeats: the line is their median, the band reaches from the least to the
    most. ``y`` is logarithmic where it spans decades and is nowhere 0. A unit that ends a column's name
    (``storm_s``, ``memory_mib``, ``redis_cpu``) is written out.
    """
    axes = look.new_axes(ax)
    values = table[y].replace([np.inf, -np.inf], np.nan)
    groups = values.groupby([table[by], table[x]], sort=True)
    spread = groups.agg(["median", "min", "max", "count"])
    names = dict.fromkeys(table[by])
    for name, (color, dashes), marker in zip(names, cycle(look.LINES), cycle(look.MARKERS), strict=False):
        points = spread.loc[name]
        axes.plot(points.index, points["median"], label=str(name), **_line(color, dashes, marker))
        if (points["count"] > 1).any():
            axes.fill_between(
                points.index, points["min"], points["max"], color=color, alpha=0.15, linewidth=0
            )
    if len(table):
        axes.set_xscale("log")
        look.few_numbers(axes.xaxis, sorted(set(table[x])))
    if values.min() > 0 and values.max() >= _DECADES * values.min():
        axes.set_yscale("log")
        look.few_numbers(axes.yaxis)
    else:
        axes.set_ylim(0, None if values.max() > 0 else 1)
        axes.yaxis.set_major_formatter(look.plain_numbers)
    axes.set_xlabel(_with_unit(x))
    axes.set_ylabel(_with_unit(y))
    return look.finish(axes, f"{_with_unit(y)} by {_with_unit(x)}")


def _line(color: str, dashes: Any, marker: str) -> dict[str, Any]:
    return {"color": color, "linestyle": dashes, "marker": marker, "markersize": 5}


def _with_unit(column: str) -> str:
    name, _, unit = column.rpartition("_")
    words = column if unit not in _UNITS else name
    words = words.replace("_", " ").replace("cpu", "CPU").replace("redis", "Redis")
    if unit == "cpu":
        words += " CPU"
    return f"{words} ({_UNITS[unit]})" if unit in _UNITS else words


def plot_bill(table: pd.DataFrame, ax: Axes | None = None, *, x: str = "rate") -> Axes:
    """How many of each ``part``, against ``x``, both logarithmic: ``value``, and a band from ``low`` to
    ``high``; columns of ``dualstream_lab.simulation.tables.bill_table``.
    """
    axes = look.new_axes(ax)
    styles = cycle(zip((*look.LINES, _SIXTH), look.MARKERS + "*", strict=True))
    for (part, points), ((color, dashes), marker) in zip(
        table.groupby("part", sort=False), styles, strict=False
    ):
        by_x = points.sort_values(x)
        axes.plot(by_x[x], by_x["value"], label=str(part), **_line(color, dashes, marker))
        axes.fill_between(by_x[x], by_x["low"], by_x["high"], color=color, alpha=0.12, linewidth=0)
    if len(table):
        axes.set_xscale("log")
        axes.set_yscale("log")
        look.few_numbers(axes.xaxis)
        look.few_numbers(axes.yaxis)
    axes.set_xlabel({"rate": "events/s"}.get(x, x.replace("_", " ")))
    axes.set_ylabel("how many (band: all costs low, or all high)")
    return look.finish(axes, "How many of each part it takes", simulated=True)
