"""A report for a pull request: tables, no pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.lab.report import again, facts, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dualstream_lab.lab.report.report import Report

__all__ = ["markdown"]

_FAULTS = 6


def markdown(report: Report) -> str:
    """GitHub's; short enough for a comment."""
    sentence, _ = words.headline(report)
    parts = [f"### {_plain(report.manifest.name)}\n\n**{_plain(sentence)}**"]
    parts += [f"> missing: {_plain(problem)}" for problem in report.problems[:5]]
    if len(report.problems) > 5:
        parts.append(f"> and {len(report.problems) - 5} more")
    if report.verdict.checks:
        parts.append(_table(("threshold", "", "found"), facts.checks(report)))
    parts.append(_table(("", ""), words.summary(report)))
    header, rows = report.verdict.latency_table()
    if rows:
        parts.append(_table(header, rows, numbers=True))
    if report.verdict.entries:
        shown = [row[:3] for row in facts.entries(report)]
        parts.append(_table(("ledger", "events", "share"), shown, numbers=True))
    if report.verdict.recoveries:
        parts += [_table(table.header, table.rows) for table in facts.recoveries(report, most=_FAULTS)]
        if (more := len(report.verdict.recoveries) - _FAULTS) > 0:
            parts.append(f"and {more} more faults")
    again_ = f"```sh\n{again.command(report)}\n```\n\n```toml\n{again.scenario(report)}```"
    parts.append(f"<details><summary>The same run again</summary>\n\n{again_}\n\n</details>")
    where = dict(facts.environment(report))
    parts.append(
        f"<sub>{_plain('; '.join((words.subject(report), where['machine'], where['versions'])))}; "
        f"`{report.name}`</sub>"
    )
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    line = "|" + "|".join("---:" if numbers and place else "---" for place in range(len(header))) + "|"
    return "\n".join([_row(header), line, *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Without what Markdown would take for its own."""
    kept = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return kept.replace("_", "\\_").replace("`", "\\`").replace("\n", " ")
