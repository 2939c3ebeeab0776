"""``dualstream runs``: every run so far, or one of them."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dualstream_lab.cli import MISSED
from dualstream_lab.cli.console import say, show_table
from dualstream_lab.cli.summary import show_run
from dualstream_lab.errors import RecordingError, StackError
from dualstream_lab.lab.result import Run
from dualstream_lab.recording import RunDirectory, list_runs


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
    say(f"{len(found)} runs in {directory}; next: dualstream runs {directory / '<run>'}")
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
