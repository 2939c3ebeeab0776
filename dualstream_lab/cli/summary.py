"""What came of a run, as tables and as JUnit XML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from dualstream_lab.cli.console import say, show_table, stdout
from dualstream_lab.cli.ledger import show_recovery
from dualstream_lab.lab.junit import Case, write_junit

if TYPE_CHECKING:
    from pathlib import Path

    from dualstream_lab.lab.result import Run
    from dualstream_lab.recording import Manifest


def show_run(result: Run) -> None:
    """Tables, who was at the limit, and what to do next."""
    manifest = result.directory.manifest
    header, rows = result.verdict.latency_table()
    show_table("Latency, ms", ["from to", *header[1:]], rows, align="lr")
    counts = list(result.verdict.count_table())
    if manifest.warm_up:
        counts.append(("besides: sent before, to warm up", f"{manifest.warm_up:,}"))
    show_table("\nEvents", (), counts, show_header=False)
    if manifest.faults:
        _show_faults(manifest)
    show_recovery(result.verdict.recoveries)
    if result.checks:
        checks = [
            (check.threshold.text, "held" if check.held else Text("MISSED", "bold red"), check.text)
            for check in result.checks
        ]
        show_table("\nThresholds", (), checks, show_header=False)
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


def _show_faults(manifest: Manifest) -> None:
    rows = []
    for fault in manifest.faults:
        begin, end = (f"{(at - manifest.started) / 1e9:.1f} s" for at in (fault.begin, fault.end))
        rows.append((fault.what, begin, end if fault.end else "", fault.bite, fault.over))
    show_table("\nFaults", ("what", "from", "to", "that it bit", "that it is over"), rows)


def write_run_junit(result: Run, file: Path) -> None:
    """The run, and each threshold, as a test case. Raises OSError."""
    manifest = result.directory.manifest
    seconds = max(0.0, (manifest.ended - manifest.started) / 1e9)
    failure = None if result.state == "finished" else f"it was {result.state}"
    cases = [Case(name="the run finished", classname="dualstream", seconds=seconds, failure=failure)]
    for check in result.checks:
        name, failure = check.threshold.text, None if check.held else check.text
        cases.append(Case(name=name, classname="dualstream.thresholds", text=check.text, failure=failure))
    write_junit(file, f"dualstream {manifest.name}", cases, {"limit": result.limit})
