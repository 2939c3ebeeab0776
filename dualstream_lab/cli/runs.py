"""``dualstream runs``: every run so far, or one of them."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.table import Table

from dualstream_lab.cli import MISSED
from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.summary import tell
from dualstream_lab.errors import RecordingError, StackError
from dualstream_lab.lab.result import Run
from dualstream_lab.recording import list_runs

__all__ = ["runs"]


@click.command(epilog="Example:  dualstream runs   then   dualstream runs runs/smoke-20250601-120000-3f9a")
@click.argument("directory", type=click.Path(path_type=Path), default="runs")
def runs(directory: Path) -> int:
    """List the runs in DIRECTORY (runs, if left out), or show the one that it is."""
    if (directory / "manifest.json").exists():
        result = Run.open(directory)
        tell(result)
        return 0 if result.held else MISSED
    if not directory.is_dir():
        raise StackError(f"there is no directory {directory}; `dualstream smoke` makes a run")
    found = list_runs(directory)
    table = Table()
    for name in ("run", "when", "state", "events/s", "s", "verdict"):
        table.add_column(name)
    for entry in found:
        if isinstance(entry, RecordingError):
            say(f"left out: {entry}")
            continue
        manifest, verdict = entry.manifest, entry.verdict()
        said = "-" if verdict is None else "held" if verdict.get("held") else "MISSED"
        table.add_row(
            entry.path.name,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.clocks.wall / 1e9)),
            "simulated" if manifest.simulated else manifest.state,
            f"{manifest.workload.get('rate', 0):,.0f}",
            f"{manifest.workload.get('duration', 0):g}",
            said if verdict is None or verdict.get("thresholds") else "-",
        )
    stdout.print(table)
    say(f"{len(found)} runs in {directory}; next: dualstream runs {directory / '<run>'}")
    return 0
