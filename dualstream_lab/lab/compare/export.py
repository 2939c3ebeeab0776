"""A comparison as Markdown for a pull request, and as JUnit for CI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dualstream_lab.analysis.comparison import Finding
from dualstream_lab.lab.compare.words import COLUMNS, METHOD, arms, headline, row, title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dualstream_lab.lab.compare.compared import Compared

__all__ = ["markdown", "write_junit"]


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


def write_junit(found: Compared, file: Path) -> None:
    """A test case a difference, which fails when it is a regression. Raises OSError."""
    from junitparser import Failure, JUnitXml, TestCase, TestSuite  # noqa: PLC0415

    suite = TestSuite("dualstream compare")
    suite.add_property("headline", headline(found))
    for number, caveat in enumerate(found.caveats, 1):
        suite.add_property(f"caveat {number}", caveat)
    for arm in found.arms[1:]:
        for one in found.of(arm):
            text = "\n".join(f"{name}: {cell}" for name, cell in zip(COLUMNS, row(one), strict=True))
            case = TestCase(one.measure, classname=f"dualstream.compare.{arm.name}", time=0)
            case.system_out = text
            if one.finding is Finding.REGRESSION:
                case.result = [Failure(text)]
            suite.add_testcase(case)
    xml = JUnitXml()
    xml.add_testsuite(suite)
    xml.write(str(file), pretty=True)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(map(_escaped, cells))} |" for cells in rows]


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_|<`])", r"\\\1", text)
