"""``dualstream compare``: what really changed between runs."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from dualstream_lab.analysis.comparison import Finding
from dualstream_lab.analysis.measure import MEASURES
from dualstream_lab.cli import MISSED
from dualstream_lab.cli.console import say, stdout, working
from dualstream_lab.cli.options import as_json, check_writable, write_files
from dualstream_lab.lab.compare.compared import Compared, allowances, compare_runs, named_arms
from dualstream_lab.lab.compare.text import (
    COLUMNS,
    arms,
    headline,
    markdown,
    page,
    row,
    title,
    write_comparison_junit,
)

__all__ = ["compare"]

_COLORS = {
    Finding.REGRESSION: "bold red",
    Finding.WORSE: "red",
    Finding.BETTER: "green",
    Finding.OPEN: "yellow",
    Finding.NOT_WORSE: "dim",
}


def _print_measures(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        for name, measure in MEASURES.items():
            stdout.print(f"{name:28}{measure.unit}")
        ctx.exit()


@click.command(
    epilog="Example: dualstream compare 'runs/base-*' 'runs/new-*' --allow live.latency.p99=20% --html c.html"
)
@click.argument("runs", nargs=-1, metavar="BASE OTHER...")
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="[MEASURE=]SIZE%",
    help="How much worse is no regression.  [default: 10%; of shares 0.1% of the events]",
)
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write a page to show.")
@click.option(
    "--markdown", "markdown_file", type=click.Path(path_type=Path), help="Write it for a pull request."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write it as JSON.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write it as JUnit XML.")
@click.option("--measures", is_flag=True, is_eager=True, expose_value=False, callback=_print_measures,
              help="Name what is compared and leave.")  # fmt: skip
def compare(
    runs: tuple[str, ...],
    allowed: tuple[str, ...],
    html_file: Path | None,
    markdown_file: Path | None,
    json_file: Path | None,
    junit: Path | None,
) -> int:
    """What really changed from the runs of BASE to those of each OTHER.

    Each is a run directory, a directory of repeats of one run, or a quoted pattern of them ('runs/base-*').
    Give three repeats or more of each, taken in turns: two single runs cannot tell how far repeats differ.
    Differences come with 95 % intervals; what is within them may be chance, and what cannot be told is said.

    Exit codes: 0 no regression; 99 something surely got worse by more than is allowed; 2 bad arguments, or no
    such runs; 3 what was recorded cannot be read, or a file not be written.
    """
    check_writable(html_file, markdown_file, json_file, junit)
    allow, allow_of = allowances(allowed)
    paths = named_arms(runs)
    with working("reading …"):
        found = compare_runs(paths, allow=allow, allow_of=allow_of)
    _tell(found)
    given = [*runs, *(f"--allow={text}" for text in allowed)]
    write_files(
        (json_file, as_json(found.as_dict())),
        (markdown_file, lambda file: file.write_text(markdown(found), encoding="utf-8")),
        (junit, lambda file: write_comparison_junit(found, file)),
        (html_file, lambda file: file.write_text(page(found, given), encoding="utf-8")),
    )
    if html_file is None:
        say("next: a page to show:  the same with --html FILE")
    return MISSED if found.regressed else 0


def _tell(found: Compared) -> None:
    shown = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, what in arms(found):
        shown.add_row(name, what)
    stdout.print(shown)
    for arm in found.arms[1:]:
        table = Table(
            title=f"\n{title(found, arm)}", title_justify="left", title_style="bold", padding=(0, 1, 0, 0)
        )
        for number, column in enumerate(COLUMNS):
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for one in found.of(arm):
            *cells, finding, note = row(one)
            table.add_row(*cells, Text(finding, _COLORS[one.finding]), note)
        stdout.print(table)
    for caveat in found.caveats:
        say(f"note: {caveat}")
    open_ = found.found(Finding.OPEN, Finding.WORSE)
    stdout.print(headline(found), style="bold red" if found.regressed else "yellow" if open_ else "green")
