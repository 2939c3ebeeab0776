"""Differences and predictions, and where they may be: a row each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, overload

import numpy as np

from dualstream_lab.analysis.paired import Interval
from dualstream_lab.analysis.plots.look import (
    BAD,
    DOUBTFUL,
    GOOD,
    few_numbers,
    finish,
    name_rows,
    new_axes,
    write_beside,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


_SAME: Final = "#555555"
_VERDICTS: Final = {"better": GOOD, "worse": BAD, "regression": BAD, "cannot tell": DOUBTFUL}
_WIDEST: Final = 10  # bands
_FURTHEST: Final = 4.0  # times too much or too little; what is further stands at the edge

Pair: TypeAlias = "tuple[str, Sequence[float], Interval, float, bool | None]"
Change: TypeAlias = "tuple[str, Sequence[float], float, float, float, str]"


@overload
def plot_differences(rows: Sequence[Pair], ax: Axes | None = None) -> Axes: ...
@overload
def plot_differences(rows: Sequence[Change], ax: Axes | None = None, *, band: float) -> Axes: ...
def plot_differences(
    rows: Sequence[Pair] | Sequence[Change], ax: Axes | None = None, *, band: float | None = None
) -> Axes:
    """Differences with their intervals, a row a line; what is far beyond the others stands at the edge.

    Without ``band``, those of a proof, in ms. A row: the fault's name, the differences of its pairs, their
    interval, the margin (infinite: none), and whether it passes (None: open). A dot a pair.

    With ``band``, those of a comparison, in per cent; up to ``band`` they do not matter, which is shaded. A
    row: the measure's name, its change in each repeat (may be none), low and high of the interval, the
    change, and the verdict, some words: those of a ``Finding`` have colours. What is not known is NaN, and a
    limit that is not known is infinite.
    """
    axes = new_axes(ax, height=1.2 + 0.42 * len(rows))
    if band is None:
        _draw_pairs(axes, rows)  # type: ignore[arg-type]
    else:
        _draw_changes(axes, rows, band)  # type: ignore[arg-type]
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    name_rows(axes, [row[0] for row in rows], room=0.5)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return axes


def _draw_pairs(axes: Axes, rows: Sequence[Pair]) -> None:
    reach = 2.5 * max((margin for *_, margin, _ in rows if math.isfinite(margin)), default=1.0)
    for place, (_, differences, found, margin, passes) in enumerate(rows):
        axes.plot([margin, margin], [place - 0.42, place + 0.42], color="#444444", linewidth=1.5)
        known = [one for one in differences if not math.isnan(one)]
        if not known:
            axes.text(-reach, place, "no pairs to compare", va="center", fontsize=9, color="#666666")
        limits = (found.low, found.high, found.value) if found.pairs > 1 else (math.nan,) * 3
        color = DOUBTFUL if passes is None else GOOD if passes else BAD
        _draw_row(axes, place, known, limits, color, reach)
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    axes.set_xlabel("difference in publish p99, ms: with the fault less healthy beside it")


def _draw_changes(axes: Axes, rows: Sequence[Change], band: float) -> None:
    found = [abs(one) for _, values, *limits, _ in rows for one in (*values, *limits) if math.isfinite(one)]
    reach = min(max(2.5 * band, 1.1 * max(found, default=0.0)), _WIDEST * band)
    axes.axvspan(-band, band, color="#56B4E9", alpha=0.18, linewidth=0, zorder=0)
    for place, (_, values, low, high, value, verdict) in enumerate(rows):
        known = [one for one in values if not math.isnan(one)]
        color = _VERDICTS.get(verdict, _SAME)
        _draw_row(axes, place, known, (low, high, value), color, reach)
        if low >= reach or high <= -reach:
            edge = math.copysign(reach, low)
            axes.plot([edge], [place], ">" if edge > 0 else "<", color=color, clip_on=False)
        text = f"{_percent(value)}  [{_percent(low)}, {_percent(high)}]  {verdict}"
        _write_right(axes, place, text, _VERDICTS.get(verdict, "#000000"))
    if not rows:
        axes.text(0.5, 0.5, "nothing to compare", transform=axes.transAxes, ha="center")
    axes.set_xlim(-1.08 * reach, 1.08 * reach)
    axes.set_xlabel(f"change, %; within {band:g} % (shaded) it does not matter")


def _percent(value: float) -> str:
    if math.isnan(value):
        return "?"
    return f"{value:+,.1f} %" if math.isfinite(value) else "+∞" if value > 0 else "-∞"


def _draw_row(
    axes: Axes, place: int, values: Sequence[float], limits: tuple[float, float, float], color: str,
    reach: float,
) -> None:  # fmt: skip
    """A row's values as dots, its interval as a bar. ``limits``: low, high and the value itself."""
    shown = [min(max(one, -reach), reach) for one in values]
    inside = [one for one in shown if abs(one) < reach]
    above = place - 0.2  # the bar would hide them
    axes.plot(inside, [above] * len(inside), "o", color=color, alpha=0.5, markersize=5, markeredgewidth=0)
    for one in sorted({one for one in shown if abs(one) >= reach}):
        axes.plot([one], [above], ">" if one > 0 else "<", color=color, markersize=8, clip_on=False)
    low, high = max(limits[0], -reach), min(limits[1], reach)
    if low < high:
        axes.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="butt")
    if abs(limits[2]) < reach:
        axes.plot([limits[2]], [place], "|", color=color, markersize=14, markeredgewidth=3)


def _write_right(axes: Axes, place: int, text: str, color: str) -> None:
    """Write to the right of the axes, in their row ``place``."""
    at = axes.get_yaxis_transform()
    write_beside(axes, (1, place), text, right=8, color=color, xycoords=at, annotation_clip=False)


def plot_predictions(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Predicted by measured, a figure a line; shaded is what is allowed. Columns of
    ``dualstream_lab.simulation.tables.check_table``.
    """
    axes = new_axes(ax, height=1.4 + 0.3 * len(table))
    ratios = table["predicted"] / table["measured"]
    for place, (ratio, allowed, within) in enumerate(
        zip(ratios, table["allowed"], table["within"], strict=True)
    ):
        axes.barh(place, 2 * allowed, left=1 - allowed, height=0.9, color="#56B4E9", alpha=0.2, linewidth=0)
        shown = float(np.clip(ratio, 1 / _FURTHEST, _FURTHEST))
        marker = "o" if shown == ratio else ">" if ratio > 1 else "<"
        axes.plot([shown], [place], marker, color=GOOD if within else BAD, markersize=7, clip_on=False)
        _write_right(axes, place, f"{ratio - 1:+.0%}", "#000000" if within else BAD)
    axes.axvline(1, color="#999999", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(1 / _FURTHEST, _FURTHEST)
    few_numbers(axes.xaxis, [0.25, 0.5, 1, 2, 4])
    name_rows(axes, list(table["setup"] + ": " + table["figure"]), fontsize=9)
    axes.set_xlabel("predicted / measured (shaded: allowed)")
    return finish(axes, "Predicted beside measured, on runs that no cost was learned from")
