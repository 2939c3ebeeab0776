"""Paired differences as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from dualstream_lab.analysis.paired import Interval

__all__ = ["plot_differences"]

_GOOD, _OPEN, _BAD = "#009E73", "#E69F00", "#D55E00"


def plot_differences(
    rows: Sequence[tuple[str, Sequence[float], Interval, float, bool | None]], ax: Axes | None = None
) -> Axes:
    """One row of ``rows`` a fault: its name, the differences of its pairs (ms), their interval, the margin
    (ms), and whether it passes (None: open). A dot a pair; what is far beyond the margins stands at the edge.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 1.2 + 0.42 * len(rows)), layout="constrained")
    margins = [margin for *_, margin, _ in rows]
    reach = 2.5 * max(margins, default=1.0)
    for place, (_, differences, found, margin, passes) in enumerate(rows):
        color = _OPEN if passes is None else _GOOD if passes else _BAD
        ax.plot([margin, margin], [place - 0.42, place + 0.42], color="#444444", linewidth=1.5)
        shown = [min(max(one, -reach), reach) for one in differences if not math.isnan(one)]
        if not shown:
            ax.text(-reach, place, "no pairs to compare", va="center", fontsize=9, color="#666666")
        inside = [one for one in shown if abs(one) < reach]
        above = place - 0.2  # the bar would hide them
        ax.plot(inside, [above] * len(inside), "o", color=color, alpha=0.5, markersize=5, markeredgewidth=0)
        beyond = [one for one in shown if abs(one) >= reach]
        for one in sorted(set(beyond)):
            ax.plot([one], [above], ">" if one > 0 else "<", color=color, markersize=8, clip_on=False)
        if found.pairs > 1:
            low, high = max(found.low, -reach), min(found.high, reach)
            if low < high:
                ax.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="butt")
            if abs(found.value) < reach:
                ax.plot([found.value], [place], "|", color=color, markersize=14, markeredgewidth=3)
    ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set_xlim(-1.08 * reach, 1.08 * reach)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
    ax.set_xlabel("difference in publish p99, ms: with the fault less healthy beside it")
    ax.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax
