"""``dualstream runs`` and ``report``: every run so far, or one of them; as tables, JUnit XML, or a page."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.text import Text

from dualstream_lab.cli.console import say, show_table, stdout
from dualstream_lab.cli.exit_codes import MISSED
from dualstream_lab.cli.ledger import show_recovery
from dualstream_lab.cli.options import opened, output
from dualstream_lab.errors import ConfigError, RecordingError, StackError
from dualstream_lab.lab.result import Run
from dualstream_lab.ledger.tables import fault_rows
from dualstream_lab.recording import RunDirectory, list_runs
from dualstream_lab.units import quantity


@click.command(epilog="Example:  dualstream runs   then   dualstream runs runs/smoke-20250601-120000-3f9a")
@click.argument("directory", type=click.Path(path_type=Path), default="runs")
def runs(directory: Path) -> int:
    """List the runs in DIRECTORY (runs, if left out), or show the one that it is."""
    if (directory / "manifest.json").exists():
        result = Run.open(directory)
        show_run(result)
        return 0 if result.held else MISSED
    if not directory.is_dir():
        raise StackError(f"there is no directory {directory}; `dualstream smoke` makes a run")
    found = list_runs(directory)
    rows = []
    for entry in found:
        if isinstance(entry, RecordingError):
            say(f"left out: {entry}")
        else:
            rows.append(_row(entry))
    show_table("", ("run", "when", "state", "events/s", "s", "verdict"), rows)
    say(f"{quantity(len(found), 'run')} in {directory}; next: dualstream runs {directory / '<run>'}")
    return 0


def _row(run: RunDirectory) -> tuple[str, ...]:
    manifest, verdict = run.manifest, run.verdict()
    judged = "-"
    if verdict is not None and verdict.get("thresholds"):
        judged = "held" if verdict.get("held") else "MISSED"
    return (
        run.path.name, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.clocks.wall / 1e9)),
        "simulated" if manifest.simulated else manifest.state, f"{manifest.workload.get('rate', 0):,.0f}",
        f"{manifest.workload.get('duration', 0):g}", judged,
    )  # fmt: skip


@click.command(
    epilog="Example:  dualstream report runs/smoke-20250601-120000-3f9a   then open its report.html"
)
@click.argument("run", type=click.Path(path_type=Path))
@output("--html", "page", help="Write the page into this file.  [default: RUN/report.html]")
@output(
    "--markdown",
    help="Write tables for a pull request; then the page is made only where --html is given, too.",
)
def report(run: Path, page: Path | None, markdown: Path | None) -> int:
    """Make a page of RUN, a run directory: its verdict, its story in pictures, the ledger, how to repeat it.

    It is one file that needs no network and no script. A run that was interrupted or is damaged has one, too;
    it says what is missing.

    Exit codes: 0 made, whatever the verdict is; 2 RUN is no run directory, or a file has no place; 3 its
    manifest cannot be read.
    """
    opened(run)
    say(f"reading {run} …")
    from dualstream_lab.lab import report as lab  # noqa: PLC0415  (matplotlib and pandas take a second)

    found = lab.report(run)
    if markdown is not None:
        _write(markdown, lab.markdown(found))
    if page is not None or markdown is None:
        if page is None:
            page = run / "report.html"
            if page.is_symlink():  # never through a link: the directory may be a stranger's
                page.unlink()
        _write(page, lab.html(found))
        say("next: open it in a browser, or send it to somebody who was not there")
    else:
        say("no page was made; with --html FILE there is one, too")
    for problem in found.problems:
        say(f"missing: {problem}")
    return 0


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
    stdout.print(f"report  {file}")


def show_run(result: Run) -> None:
    """Print a run's tables, who was at the limit, and what to do next."""
    manifest = result.directory.manifest
    header, rows = result.verdict.latency_table()
    show_table("Latency, ms", ["from to", *header[1:]], rows, align="lr")
    counts = list(result.verdict.count_table())
    if manifest.warm_up:
        counts.append(("besides: sent before, to warm up", f"{manifest.warm_up:,}"))
    show_table("\nEvents", (), counts, show_header=False)
    if manifest.faults:
        columns = ("what", "from", "to", "that it bit", "that it is over")
        show_table("\nFaults", columns, fault_rows(manifest))
    show_recovery(result.verdict.recoveries)
    if result.checks:
        checks = result.verdict.check_table()
        shown = [
            (one, held if held == "held" else Text(held, "bold red"), text) for one, held, text in checks
        ]
        show_table("\nThresholds", (), shown, show_header=False)
    stdout.print(f"\n{result.limit}")
    for problem in result.directory.problems:
        say(f"missing: {problem}")
    if manifest.simulated:
        say("Simulated: the figures are a model's, nothing was measured.")
    if result.state != "finished":
        why = {"interrupted": "it was interrupted", "running": "its writers died, or it still runs"}
        say(f"The run is not complete: {why.get(result.state, result.state)}.")
    stdout.print(f"run  {result.path}")
    say(f"next: all of it on one page:  dualstream report {result.path}")
    if result.verdict.recoveries:
        say(f"      what became of each event:  dualstream ledger {result.path}")
    say(f"      in a notebook (`make lab`):  analysis.load({str(result.path)!r})")
