"""A comparison as one self-contained page."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from dualstream_lab.analysis.comparison import Finding
from dualstream_lab.lab.compare.words import COLUMNS, METHOD, arms, headline, row, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.analysis.comparison import Arm
    from dualstream_lab.lab.compare.compared import Compared

__all__ = ["page"]

_MOODS: Final = {
    Finding.REGRESSION: "bad",
    Finding.WORSE: "bad",
    Finding.BETTER: "good",
    Finding.OPEN: "open",
}


_TITLES: Final = {"bad": "regression", "open": "no regression for certain", "good": "no regression"}


def page(found: Compared, arguments: Sequence[str]) -> str:
    """HTML; nothing is loaded from anywhere. ``arguments``: of the command line that makes it again."""
    from dualstream_lab.lab.output import render  # noqa: PLC0415  (matplotlib takes half a second)

    names = " against ".join(arm.name for arm in reversed(found.arms))
    return render(
        "compare.html.j2",
        title=f"{names}: {_TITLES[_mood(found)]}",
        subject=f"What changed: {names}",
        headline=headline(found),
        mood=_mood(found),
        caveats=found.caveats,
        sections=[_section(found, arm) for arm in found.arms[1:]],
        header=COLUMNS,
        moods=_MOODS,
        arms=arms(found),
        how=METHOD,
        command=shlex.join(["dualstream", "compare", *arguments]),
    )


def _mood(found: Compared) -> str:
    if found.regressed:
        return "bad"
    return "open" if found.found(Finding.OPEN, Finding.WORSE) else "good"


def _section(found: Compared, arm: Arm) -> dict[str, object]:
    from dualstream_lab.analysis import plot_differences  # noqa: PLC0415
    from dualstream_lab.lab.output import canvas, drawing  # noqa: PLC0415

    differences = found.of(arm)
    shown = [one.row for one in differences if one.unit != "share"]
    axes = canvas(height=1.2 + 0.42 * len(shown))
    plot_differences(shown, axes, band=100 * found.allow)
    return {
        "title": title(found, arm),
        "picture": drawing(axes, label=f"Change of {arm.name}, by measure"),
        "rows": [(row(one), one.finding) for one in differences],
    }
