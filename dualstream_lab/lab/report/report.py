"""Everything that a report says of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dualstream_lab.analysis import load
from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.lab.result import Run
from dualstream_lab.load.verdict import Verdict, judge
from dualstream_lab.recording import RunDirectory
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    from dualstream_lab.analysis import Frames
    from dualstream_lab.recording import Manifest

__all__ = ["Report", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run: what it was, its verdict, its rows, and what of it is missing (``problems``)."""

    name: str
    """Of the run directory."""
    manifest: Manifest
    workload: Workload
    verdict: Verdict
    frames: Frames
    problems: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it ran; as planned, where its end was not recorded."""
        begin, end = self.manifest.started, self.manifest.ended
        return min((end - begin) / 1e9, self.workload.duration) if begin and end else self.workload.duration

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self.manifest.state == "finished"


def report(run: Run | Path | str) -> Report:
    """Of a ``Run``, or of the path of a run directory, also of one that is damaged or not complete.

    A finished run's verdict is read, not worked out anew. Raises RecordingError for what is no run directory.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    directory = RunDirectory.open(path)
    try:
        workload = Workload.load(directory.manifest.workload)
    except ConfigError as error:
        raise RecordingError(f"{path / 'manifest.json'}: the workload cannot be read: {error}") from error
    directory.manifest.workload = dict(workload.as_dict())  # complete, whatever version wrote it
    problems: list[str] = []
    verdict = run.verdict if isinstance(run, Run) else _verdict(directory, problems)
    frames = load(path)
    told = [*problems, *directory.problems, *verdict.problems]
    told += [
        each for each in frames.problems if not each.endswith("rows were recorded")
    ]  # the ledger says so
    return Report(
        name=path.resolve().name,
        manifest=directory.manifest,
        workload=workload,
        verdict=verdict,
        frames=frames,
        problems=tuple(dict.fromkeys(told)),
    )


def _verdict(directory: RunDirectory, problems: list[str]) -> Verdict:
    stored = directory.verdict()
    if directory.manifest.state == "finished":
        if stored is not None:
            try:
                return Verdict.load(stored)
            except RecordingError as error:
                problems.append(f"verdict.json cannot be read, and the run was judged anew ({error})")
        elif not directory.problems:
            problems.append("there is no verdict.json: the run was judged anew")
    return judge(directory)
