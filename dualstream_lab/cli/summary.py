"""What came of a run, as tables and as JUnit XML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.ledger import show_recovery
from dualstream_lab.lab.output.export import Case, write_junit

if TYPE_CHECKING:
    from pathlib import Path

    from dualstream_lab.lab.result import Run
    from dualstream_lab.recording import Manifest

__all__ = ["tell", "write_run_junit"]


def tell(result: Run) -> None:
    """Tables, who was at the limit, and what to do next."""
    header, rows = result.verdict.latency_table()
    latencies = Table(title="Latency, ms", title_justify="left", title_style="bold")
    latencies.add_column("from to")
    for name in header[1:]:
        latencies.add_column(name, justify="right")
    for row in rows:
        latencies.add_row(*row)
    counts = Table(title="\nEvents", title_justify="left", title_style="bold", show_header=False)
    for _ in range(2):
        counts.add_column()
    for pair in result.verdict.count_table():
        counts.add_row(*pair)
    if warm_up := result.directory.manifest.warm_up:
        counts.add_row("besides: sent before, to warm up", f"{warm_up:,}")
    stdout.print(latencies)
    stdout.print(counts)
    if result.directory.manifest.faults:
        stdout.print(_faults(result.directory.manifest))
    show_recovery(result.verdict.recoveries)
    if result.checks:
        stdout.print(_checks(result))
    stdout.print(f"\n{result.limit}")
    for problem in result.directory.problems:
        say(f"missing: {problem}")
    _tell_state(result)
    stdout.print(f"run  {result.path}")
    say(f"next: all of it on one page:  dualstream report {result.path}")
    if result.verdict.recoveries:
        say(f"      what became of each event:  dualstream ledger {result.path}")
    say(f"      in a notebook (`make lab`):  analysis.load({str(result.path)!r})")


def _tell_state(result: Run) -> None:
    if result.directory.manifest.simulated:
        say("Simulated: the figures are a model's, nothing was measured.")
    if result.state != "finished":
        what = {"interrupted": "it was interrupted", "running": "its writers died, or it still runs"}
        say(f"The run is not complete: {what.get(result.state, result.state)}.")


def _checks(result: Run) -> Table:
    checks = Table(title="\nThresholds", title_justify="left", title_style="bold", show_header=False)
    for _ in range(3):
        checks.add_column()
    for check in result.checks:
        state = "held" if check.held else Text("MISSED", "bold red")
        checks.add_row(check.threshold.text, state, check.text)
    return checks


def _faults(manifest: Manifest) -> Table:
    table = Table(title="\nFaults", title_justify="left", title_style="bold")
    for name in ("what", "from", "to", "that it bit", "that it is over"):
        table.add_column(name)
    for fault in manifest.faults:
        begin, end = ((at - manifest.started) / 1e9 for at in (fault.begin, fault.end))
        table.add_row(
            fault.what,
            f"{begin:.1f} s",
            f"{end:.1f} s" if fault.end else "",
            fault.bite,
            fault.over,
        )
    return table


def write_run_junit(result: Run, file: Path) -> None:
    """The run, and each threshold, as a test case. Raises OSError."""
    manifest = result.directory.manifest
    ran = Case(
        name="the run finished",
        classname="dualstream",
        seconds=max(0.0, (manifest.ended - manifest.started) / 1e9),
        failure=None if result.state == "finished" else f"it was {result.state}",
    )
    checks = [
        Case(
            name=check.threshold.text,
            classname="dualstream.thresholds",
            text=check.text,
            failure=None if check.held else check.text,
        )
        for check in result.checks
    ]
    write_junit(file, f"dualstream {manifest.name}", [ran, *checks], {"limit": result.limit})
