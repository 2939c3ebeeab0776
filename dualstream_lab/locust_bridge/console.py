"""A verdict on a terminal, after Locust's own tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from dualstream_lab.load.verdict import Verdict
    from dualstream_lab.recording import RunDirectory

__all__ = ["tell"]


def tell(verdict: Verdict, directory: RunDirectory) -> None:
    """Latencies, counts, thresholds, the limit, and where the run is."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    header, latencies = verdict.latency_table()
    counts = [(*pair, "") for pair in verdict.count_table()]
    checks = [(c.threshold.text, "held" if c.held else "MISSED", c.text) for c in verdict.checks]
    latency = Table("from to", title="\nLatency, ms", title_justify="left", title_style="bold")
    for name in header[1:]:
        latency.add_column(name, justify="right")
    for row in latencies:
        latency.add_row(*row)
    console.print(latency)
    for title, lines in (("\nEvents", counts), ("\nThresholds", checks)):
        if lines:
            table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
            for line in lines:
                table.add_row(*(cell.replace("[", r"\[") for cell in line if cell))
            console.print(table)
    console.print(f"\n{verdict.limit}", markup=False)
    for problem in directory.problems:
        console.print(f"missing: {problem}", markup=False)
    console.print(f"run  {directory.path}", markup=False)
