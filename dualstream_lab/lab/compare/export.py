"""A comparison as Markdown for a pull request, and as JUnit for CI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dualstream_lab.analysis.comparison import Finding
from dualstream_lab.lab.compare.words import COLUMNS, METHOD, arms, headline, row, title
from dualstream_lab.lab.junit import Case, write_junit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dualstream_lab.analysis.comparison import Difference
    from dualstream_lab.lab.compare.compared import Compared

__all__ = ["markdown", "write_comparison_junit"]


_RULE = ["---", *["---:"] * (len(COLUMNS) - 1)]


def markdown(found: Compared) -> str:
    """Short: the verdict, a table an arm, what to keep in mind."""
    lines = [f"**{_escaped(headline(found))}**", ""]
    lines += [f"- {_escaped(name)}: {_escaped(what)}" for name, what in arms(found)]
    for arm in found.arms[1:]:
        lines += ["", f"{_escaped(title(found, arm))}:", ""]
        lines += _table([COLUMNS, _RULE, *(row(one) for one in found.of(arm))])
    if found.caveats:
        lines += ["", "To keep in mind:", "", *(f"- {_escaped(caveat)}" for caveat in found.caveats)]
    return "\n".join([*lines, "", f"<sub>{METHOD}</sub>", ""])


def write_comparison_junit(found: Compared, file: Path) -> None:
    """A test case a difference, which fails when it is a regression. Raises OSError."""
    cases = [_case(arm.name, one) for arm in found.arms[1:] for one in found.of(arm)]
    caveats = {f"caveat {number}": caveat for number, caveat in enumerate(found.caveats, 1)}
    write_junit(file, "dualstream compare", cases, {"headline": headline(found)} | caveats)


def _case(arm: str, one: Difference) -> Case:
    text = "\n".join(f"{name}: {cell}" for name, cell in zip(COLUMNS, row(one), strict=True))
    failure = text if one.finding is Finding.REGRESSION else None
    return Case(name=one.measure, classname=f"dualstream.compare.{arm}", text=text, failure=failure)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(map(_escaped, cells))} |" for cells in rows]


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_|<`])", r"\\\1", text)
