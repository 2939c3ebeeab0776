"""The record of a test: its run directory, what the processes recorded, and the verdict, also as shown."""

from __future__ import annotations

import shutil

from rich.console import Console
from rich.table import Table

from dualstream_lab.errors import RecordingError
from dualstream_lab.load.session import Session, new_manifest
from dualstream_lab.locust_bridge.options import Options
from dualstream_lab.locust_bridge.session import RunAssignment
from dualstream_lab.recording import Interval, IntervalWriter, RunDirectory
from dualstream_lab.verdict.measures import Totals
from dualstream_lab.verdict.verdict import Verdict, judge


class Record:
    """Kept by the master, or by a process that is alone. Raises RecordingError where it cannot be written.

    ``lead``: s from now to the plan's zero.
    """

    def __init__(self, options: Options, *, workers: int, lead: float) -> None:
        name = f"locust-{options.workload.plan}"
        manifest = new_manifest(
            options.settings, options.workload, name=name, engine="locust",
            users={"concurrency": options.users, "workers": workers},
            thresholds=[threshold.text for threshold in options.thresholds], sample=max(1, options.sample),
        )  # fmt: skip
        ahead = round(lead * 1e9)
        manifest.started, self._zero = manifest.clocks.monotonic + ahead, manifest.clocks.wall + ahead
        self._settings = options.settings.model_dump()  # all processes have the same, wherever they run
        self.totals = Totals(since=manifest.started)
        path = RunDirectory.create(options.root, name)
        try:
            self._session = Session(path, manifest)
            self._writer = IntervalWriter(path, "locust")
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error}") from error
        self.directory = self._session.directory

    def assignment(self, index: int, of: int) -> RunAssignment:
        """For one of ``of`` processes."""
        path, manifest = str(self.directory.path.resolve()), self.directory.manifest
        return RunAssignment(
            directory=path, run=manifest.run, ids=manifest.ids, settings=self._settings, zero=self._zero,
            index=index, of=of,
        )  # fmt: skip

    def keep(self, interval: Interval) -> None:
        """Write the rows that a process of Locust recorded."""
        self.totals.add(interval)
        self._writer.write(interval)

    @property
    def sent(self) -> bool:
        """Whether an event was sent."""
        return bool(self.totals.counters.get("sent"))

    def discard(self) -> None:
        """Remove it; only when nobody can write into it any more."""
        self._writer.close()
        shutil.rmtree(self.directory.path, ignore_errors=True)

    def conclude(self, state: str) -> Verdict:
        """Close it, and judge it."""
        self._writer.close()
        self._session.end(state)
        return judge(self.directory, keep=True)


def show(verdict: Verdict, directory: RunDirectory) -> None:
    """Latencies, counts, thresholds, the limit, and where the run is."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    header, latencies = verdict.latency_table()
    counts = [(*pair, "") for pair in verdict.count_table()]
    latency = Table("from to", title="\nLatency, ms", title_justify="left", title_style="bold")
    for name in header[1:]:
        latency.add_column(name, justify="right")
    for row in latencies:
        latency.add_row(*row)
    console.print(latency)
    for title, lines in (("\nEvents", counts), ("\nThresholds", verdict.check_table())):
        if lines:
            table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
            for line in lines:
                table.add_row(*(cell.replace("[", r"\[") for cell in line if cell))
            console.print(table)
    console.print(f"\n{verdict.limit}", markup=False)
    for problem in directory.problems:
        console.print(f"missing: {problem}", markup=False)
    console.print(f"run  {directory.path}", markup=False)
