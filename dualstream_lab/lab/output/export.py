"""Any verdict as JUnit XML for CI, and what Markdown for a pull request is made with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dualstream_lab.verdict.checker import Conclusion, Validity


def as_lines(names: Iterable[str], cells: Iterable[str]) -> str:
    """A row of a table as text, a line for each cell."""
    return "\n".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True))


def write_junit(file: Path, conclusion: Conclusion) -> None:
    """Write a suite with a test case a criterion; an inconclusive one is an error. Raises OSError."""
    from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite  # noqa: PLC0415  (of an extra)

    suite = TestSuite(f"dualstream {conclusion.experiment}")
    for name, value in conclusion.about.items():
        suite.add_property(name, value)
    for one in conclusion.criteria:
        case = TestCase(one.name, classname=one.group, time=round(one.seconds, 3))
        if one.reason:
            case.result = [(Failure if one.validity is Validity.INVALID else Error)(one.reason)]
        if one.text is not None:
            case.system_out = one.text
        suite.add_testcase(case)
    xml = JUnitXml()
    xml.add_testsuite(suite)
    xml.write(str(file), pretty=True)


def escaped(text: str) -> str:
    """The text on one line, with everything escaped that Markdown would read as markup."""
    return re.sub(r"([\\*_|`])", r"\\\1", text).replace("<", "&lt;").replace("\n", " ")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """A table in GitHub's Markdown. ``numbers``: all columns but the first are aligned to the right."""
    line = "|" + "|".join("---:" if numbers and place else "---" for place in range(len(header))) + "|"
    first, *others = (f"| {' | '.join(map(escaped, cells))} |" for cells in (header, *rows))
    return "\n".join([first, line, *others])
