"""How something scales with how many there are."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from dualstream_lab.analysis.plots.look import LINES, MARKERS, finish, new_axes, plain_numbers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot_fan_out"]

_UNITS: Final = {"s": "s", "ms": "ms", "us": "µs", "kib": "KiB", "mib": "MiB", "cpu": "share of one core"}
_DECADES: Final = 30  # largest by smallest: beyond it, an axis is logarithmic


def plot_fan_out(table: pd.DataFrame, ax: Axes | None = None, *, x: str, y: str, by: str) -> Axes:
    """``y`` against ``x`` (log): a line a value of ``by``, three columns of ``table``.

    Several rows of a point are its repeats: the line is their median, the band reaches from the least to the
    most. ``y`` is logarithmic where it spans decades and is nowhere 0. A unit that ends a column's name
    (``storm_s``, ``memory_mib``, ``redis_cpu``) is written out.
    """
    axes = new_axes(ax)
    values = table[y].replace([np.inf, -np.inf], np.nan)
    groups = values.groupby([table[by], table[x]], sort=True)
    spread = groups.agg(["median", "min", "max", "count"])
    names = dict.fromkeys(table[by])
    for name, (color, dashes), marker in zip(names, cycle(LINES), cycle(MARKERS), strict=False):
        points = spread.loc[name]
        axes.plot(
            points.index, points["median"], color=color, linestyle=dashes, marker=marker, markersize=5,
            label=str(name),
        )  # fmt: skip
        if (points["count"] > 1).any():
            axes.fill_between(
                points.index, points["min"], points["max"], color=color, alpha=0.15, linewidth=0
            )
    if len(table):
        axes.set_xscale("log")
        ticks = sorted(set(table[x]))
        axes.set_xticks(ticks, [plain_numbers(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    if values.min() > 0 and values.max() >= _DECADES * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, None if values.max() > 0 else 1)
    axes.yaxis.set_major_formatter(FuncFormatter(plain_numbers))
    axes.set_xlabel(_with_unit(x))
    axes.set_ylabel(_with_unit(y))
    return finish(axes, f"{_with_unit(y)} by {_with_unit(x)}")


def _with_unit(column: str) -> str:
    name, _, unit = column.rpartition("_")
    words = column if unit not in _UNITS else name
    words = words.replace("_", " ").replace("cpu", "CPU").replace("redis", "Redis")
    if unit == "cpu":
        words += " CPU"
    return f"{words} ({_UNITS[unit]})" if unit in _UNITS else words
