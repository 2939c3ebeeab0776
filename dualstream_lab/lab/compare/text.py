"""A comparison for people and for CI: sentences, tables, Markdown, JUnit, a page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dualstream_lab.analysis.comparison import Arm, Difference, Finding
from dualstream_lab.analysis.measure import MEASURES
from dualstream_lab.lab.compare.compared import Compared
from dualstream_lab.lab.output.export import as_lines, escaped, markdown_table
from dualstream_lab.units import milliseconds
from dualstream_lab.verdict.checker import Conclusion, Criterion, Validity

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("measure", "base", "now", "change", "95 % interval", "finding", "runs to tell")

_VALIDITY = {Finding.REGRESSION: Validity.INVALID, Finding.OPEN: Validity.INCONCLUSIVE}
_METHOD = (
    "A value a run; of several runs their mean, geometric where ratios are compared. Latencies begin at the "
    "intended time; what is missing counts as infinitely late. The interval holds the true change with 95 %. "
    "Better, worse and regression are said only where chance alone would say any of it in one comparison of "
    "twenty, all measures taken together (Holm). A regression is worse by more than is allowed, with its "
    "whole interval; not worse is what is worse by no more than is allowed, with its whole interval. Runs to "
    "tell: so many of each arm would show a change of what is allowed, as far as they differ here. pp: "
    "percentage points."
)


def headline(compared: Compared) -> str:
    """What changed, in a sentence or two."""
    bad, worse, better = (
        compared.having(finding) for finding in (Finding.REGRESSION, Finding.WORSE, Finding.BETTER)
    )
    several = len(compared.arms) > 2
    if bad:
        return f"Regression: {_named(bad, several)}."
    if worse or better:
        said = [
            f"{word}: {_named(some, several)}"
            for word, some in (("Worse", worse), ("Better", better))
            if some
        ]
        text = f"No regression for certain. {'. '.join(said)}."
    else:
        text = "Nothing changed for certain."
    unclear, every = len(compared.having(Finding.OPEN)), len(compared.differences)
    if unclear:
        return f"{text} {unclear} of {every} differences may be more than is allowed: these runs cannot tell."
    return f"{text} Nothing is worse by more than is allowed."


def title(compared: Compared, arm: Arm) -> str:
    """The heading of the table of one arm."""
    return f"{arm.name} against {compared.base.name}"


def row(one: Difference) -> list[str]:
    """A difference as a row of texts, a cell for each of ``COLUMNS``."""
    base, other = one.middles
    known = not math.isnan(one.spread)
    limits = f"{_change(one, one.low)} to {_change(one, one.high)}" if known else "-"
    needed = "-" if not known else "over 100" if one.repeats is None else f"{one.repeats}"
    cells = [one.measure, _value(one, base), _value(one, other), _change(one, one.change), limits]
    return [*cells, str(one.finding), needed]


def table(differences: Sequence[Difference]) -> pd.DataFrame:
    """The differences as texts, a row a measure."""
    import pandas as pd  # noqa: PLC0415  (a comparison in a terminal shows none)

    return pd.DataFrame(map(row, differences), columns=list(COLUMNS)).set_index("measure")


def arms(compared: Compared) -> list[tuple[str, str]]:
    """Each arm and its runs, and where it differs from the base, as rows of two texts."""
    rows = []
    for arm in compared.arms:
        events = sum(run.events for run in arm.runs)
        seconds = sum(float(run.lengths.sum()) for run in arm.runs)
        what = f"{len(arm.runs)} run{'s' * (len(arm.runs) > 1)}, {events:,} events in {seconds:,.0f} s"
        what += f" ({', '.join(run.name for run in arm.runs[:3])}{', …' if len(arm.runs) > 3 else ''})"
        if arm.runs[0].manifest.simulated:
            what += ", simulated: nothing was measured"
        rows.append((f"{arm.name}{' (base)' if arm is compared.base else ''}", what))
        if others := compared.settings.get(arm.name):
            rows.append(("differs in", "; ".join(others)))
    return rows


def markdown(compared: Compared) -> str:
    """The comparison for a pull request: the verdict, a table for each arm, and what to keep in mind."""
    lines = [f"**{escaped(headline(compared))}**", ""]
    lines += [f"- {escaped(name)}: {escaped(what)}" for name, what in arms(compared)]
    for arm in compared.arms[1:]:
        rows = map(row, compared.of(arm))
        lines += ["", f"{escaped(title(compared, arm))}:", "", markdown_table(COLUMNS, rows, numbers=True)]
    if compared.caveats:
        lines += ["", "To keep in mind:", "", *(f"- {escaped(caveat)}" for caveat in compared.caveats)]
    return "\n".join([*lines, "", f"<sub>{_METHOD}</sub>", ""])


def check_comparison(compared: Compared) -> Conclusion:
    """A criterion for each difference: a regression is invalid, what these runs cannot tell inconclusive."""
    criteria = []
    for one in (one for arm in compared.arms[1:] for one in compared.of(arm)):
        text, validity = as_lines(COLUMNS, row(one)), _VALIDITY.get(one.finding, Validity.VALID)
        group, reason = f"dualstream.compare.{one.arm}", text if validity is Validity.INVALID else ""
        criteria.append(Criterion(name=one.measure, group=group, text=text, validity=validity, reason=reason))
    caveats = {f"caveat {number}": caveat for number, caveat in enumerate(compared.caveats, 1)}
    return Conclusion(
        experiment="compare", state="finished", criteria=tuple(criteria), values=compared.as_dict(),
        about={"headline": headline(compared)} | caveats,
    )  # fmt: skip


def page(compared: Compared, arguments: Sequence[str]) -> str:
    """The comparison as an HTML page, which loads nothing from anywhere.

    ``arguments``: those of the command line, which make the page again.
    """
    # matplotlib takes half a second
    from dualstream_lab.analysis import plot_differences  # noqa: PLC0415
    from dualstream_lab.lab.output.page import canvas, drawing, render  # noqa: PLC0415

    sections = []
    for arm in compared.arms[1:]:
        differences = compared.of(arm)
        shown = [one.row for one in differences if one.unit != "share"]
        axes = plot_differences(shown, canvas(height=1.2 + 0.42 * len(shown)), band=100 * compared.allow)
        picture = drawing(axes, label=f"Change of {arm.name}, by measure")
        sections.append(
            {"title": title(compared, arm), "picture": picture, "rows": list(map(row, differences))}
        )
    open_ = compared.having(Finding.OPEN, Finding.WORSE)
    mood = "bad" if compared.regressed else "open" if open_ else "good"
    names = " against ".join(arm.name for arm in reversed(compared.arms))
    return render(
        "compare.html.j2",
        title=f"{names}: {_TITLES[mood]}",
        subject=f"What changed: {names}",
        headline=headline(compared),
        mood=mood,
        caveats=compared.caveats,
        sections=sections,
        header=COLUMNS,
        arms=arms(compared),
        how=_METHOD,
        command=shlex.join(["dualstream", "compare", *arguments]),
    )


_TITLES: Final = {"bad": "regression", "open": "no regression for certain", "good": "no regression"}


def _named(some: Sequence[Difference], several: bool) -> str:
    """The three clearest differences in words, and how many more there are."""
    shown = sorted(some, key=lambda one: one.p)[:3]
    texts = []
    for one in shown:
        base, other = one.middles
        whose = f" of {one.arm}" if several else ""
        texts.append(
            f"{one.measure}{whose} {_value(one, base)} → {_value(one, other)} ({_change(one, one.change)}, "
            f"{_change(one, _least(one))} at least)"
        )
    more = f" and {len(some) - len(shown)} more" if len(some) > len(shown) else ""
    return "; ".join(texts) + more


def _least(one: Difference) -> float:
    return one.low if one.change > 0 else one.high


def _value(one: Difference, value: float) -> str:
    if math.isnan(value):
        return "-"
    if one.unit == "share":
        return f"{value:.3%}"
    if one.unit == "events/s":
        return f"{value:,.0f}/s"
    return milliseconds(value)


def _change(one: Difference, change: float) -> str:
    if not math.isfinite(change):
        return "unknown" if math.isnan(change) else "+∞" if change > 0 else "-∞"
    if not MEASURES[one.measure].ratio:
        return f"{100 * change:+.3f} pp"
    if change >= 9:
        return f"x {change + 1:,.0f}"
    return f"{100 * change:+.1f} %" if abs(change) < 1 else f"{100 * change:+.0f} %"
