"""``dualstream compare``: what really changed between runs."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from dualstream_lab.analysis.comparison import Finding
from dualstream_lab.analysis.measure import MEASURES
from dualstream_lab.cli.console import say, show_rows, show_table, stdout, working
from dualstream_lab.cli.options import conclude, output, printing, verdict_files
from dualstream_lab.lab.compare.compared import Compared, allowances, compare_runs, named_arms
from dualstream_lab.lab.compare.text import (
    COLUMNS,
    arms,
    check_comparison,
    headline,
    markdown,
    page,
    row,
    title,
)

_COLORS = {
    Finding.REGRESSION: "bold red", Finding.WORSE: "red", Finding.BETTER: "green", Finding.OPEN: "yellow",
    Finding.NOT_WORSE: "dim",
}  # fmt: skip


def _print_measures() -> None:
    for name, measure in MEASURES.items():
        stdout.print(f"{name:28}{measure.unit}")


@click.command(
    epilog="Example: dualstream compare 'runs/base-*' 'runs/new-*' --allow live.latency.p99=20% --html c.html"
)
@click.argument("runs", nargs=-1, metavar="BASE OTHER...")
@click.option("--allow", "allowed", multiple=True, metavar="[MEASURE=]SIZE%",
    help="Allow so much worse.  [default: 10%; of shares 0.1% of the events]")  # fmt: skip
@output("--html", "html_file", help="Write a page to show.")
@output("--markdown", "markdown_file", help="Write it for a pull request.")
@verdict_files
@printing("--measures", _print_measures, "Name what is compared and leave.")
def compare(
    runs: tuple[str, ...], allowed: tuple[str, ...], html_file: Path | None, markdown_file: Path | None,
    json_file: Path | None, junit: Path | None,
) -> int:  # fmt: skip
    """What really changed from the runs of BASE to those of each OTHER.

    Each is a run directory, a directory of repeats of one run, or a quoted pattern of them ('runs/base-*').
    Give three repeats or more of each, taken in turns: two single runs cannot tell how far repeats differ.
    Differences come with 95 % intervals; what is within them may be chance, and what cannot be told is said.

    Exit codes: 0 no regression; 99 something surely got worse by more than is allowed; 2 bad arguments, or no
    such runs; 3 what was recorded cannot be read, or a file not be written.
    """
    allow, allow_of = allowances(allowed)
    paths = named_arms(runs)
    with working("reading …"):
        found = compare_runs(paths, allow=allow, allow_of=allow_of)
    _show(found)
    given = [*runs, *(f"--allow={text}" for text in allowed)]
    code = conclude(
        check_comparison, found,
        (markdown_file, lambda file: file.write_text(markdown(found), encoding="utf-8")),
        (html_file, lambda file: file.write_text(page(found, given), encoding="utf-8")),
        junit=junit, json_file=json_file, inconclusive=0,
    )  # fmt: skip
    if html_file is None:
        say("next: a page to show:  the same with --html FILE")
    return code


def _show(compared: Compared) -> None:
    show_rows(arms(compared))
    for arm in compared.arms[1:]:
        rows: list[tuple[str | Text, ...]] = []
        for one in compared.of(arm):
            *cells, finding, note = row(one)
            rows.append((*cells, Text(finding, _COLORS[one.finding]), note))
        heading = f"\n{title(compared, arm)}"
        show_table(heading, COLUMNS, rows, align="lr", no_wrap=True, padding=(0, 1, 0, 0))
    for caveat in compared.caveats:
        say(f"note: {caveat}")
    open_ = compared.having(Finding.OPEN, Finding.WORSE)
    stdout.print(
        headline(compared), style="bold red" if compared.regressed else "yellow" if open_ else "green"
    )
