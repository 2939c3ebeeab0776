"""How long the report of a big run takes, and comparing two of them, and in how much memory.

The runs are made up, as the ledger's benchmark makes them; each one's verdict is worked out beforehand, as it
is at the end of a run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ledger import make
from dualstream_lab.errors import StackError

__all__ = ["report"]

_EVENTS = 10_000_000
_PAGE = 2_000_000  # bytes
_JUDGE = """
import sys
from dualstream_lab.lab.result import Run
run = Run.open(sys.argv[1])
run.directory.write_verdict(run.verdict.as_dict(run.directory))
"""


def report(events: int = _EVENTS) -> str:
    """A table: a line a command."""
    with tempfile.TemporaryDirectory() as root:
        first, second = (Path(root) / name for name in ("first", "second"))
        for path in (first, second):
            path.mkdir()
            make(path, events)
            subprocess.run([sys.executable, "-c", _JUDGE, str(path)], check=True)
        page, tables = first / "report.html", first / "report.md"
        made = _spent("report", str(first), "--html", str(page), "--markdown", str(tables))
        compared = _spent("compare", str(first), str(second), "--html", str(first / "compare.html"))
        size = page.stat().st_size
    if size > _PAGE:
        raise RuntimeError(f"the page has {size:,} bytes")
    lines = [
        f"| {name} | **{seconds:.1f} s** | **{peak:.2f} GiB** |"
        for name, (seconds, peak) in (
            (f"`dualstream report`, a page of {size / 1000:,.0f} kB", made),
            ("`dualstream compare` of two such runs", compared),
        )
    ]
    header = (
        f"| {events:,} events of a run, with 2 recorded subscribers | took (≤ 30 s) | peak memory (≤ 2 GiB) |"
    )
    return "\n".join([header, "|---|---|---|", *lines])


def _spent(*words: str) -> tuple[float, float]:
    """Seconds and GiB of a command."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "dualstream_lab.cli", *words], stdout=sys.stderr)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in {0, 99}:
        raise StackError(f"`dualstream {words[0]}` ended with {child.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 2**20
