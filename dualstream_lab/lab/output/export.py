"""Any verdict as JUnit XML for CI, as Markdown for a pull request, and as what JSON can hold."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test case: it passes unless ``failure`` or ``error`` (not decided) says why not."""

    name: str
    classname: str
    text: str | None = None
    seconds: float = 0.0
    failure: str | None = None
    error: str | None = None


def as_lines(names: Iterable[str], cells: Iterable[str]) -> str:
    """A table's row, a line a cell."""
    return "\n".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True))


def write_junit(file: Path, suite: str, cases: Iterable[Case], properties: Mapping[str, str]) -> None:
    """Write one suite. Raises OSError."""
    from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite  # noqa: PLC0415  (of an extra)

    made = TestSuite(suite)
    for name, value in properties.items():
        made.add_property(name, value)
    for case in cases:
        element = TestCase(case.name, classname=case.classname, time=round(case.seconds, 3))
        if case.failure is not None:
            element.result = [Failure(case.failure)]
        elif case.error is not None:
            element.result = [Error(case.error)]
        if case.text is not None:
            element.system_out = case.text
        made.add_testcase(element)
    xml = JUnitXml()
    xml.add_testsuite(made)
    xml.write(str(file), pretty=True)


def as_plain(value: Any) -> Any:
    """For JSON, where infinite and undefined numbers are texts."""
    if isinstance(value, dict):
        return {name: as_plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def escaped(text: str) -> str:
    """Without what Markdown would take for its own."""
    return re.sub(r"([\\*_|`])", r"\\\1", text).replace("<", "&lt;").replace("\n", " ")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """GitHub's. ``numbers``: all columns but the first to the right."""
    line = "|" + "|".join("---:" if numbers and place else "---" for place in range(len(header))) + "|"
    first, *others = (f"| {' | '.join(map(escaped, cells))} |" for cells in (header, *rows))
    return "\n".join([first, line, *others])
