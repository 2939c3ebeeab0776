"""Everything that a report says of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dualstream_lab.analysis import Frames, load
from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.lab.result import Run
from dualstream_lab.recording import Manifest, RunDirectory
from dualstream_lab.verdict.verdict import Verdict
from dualstream_lab.workload import Workload

_COUNTED = {"published": "publish.intended", "delivered": "live.delivered", "consumed": "durable.consumed"}


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
        """How long the run took, s; as planned, where its end was not recorded."""
        begin, end = self.manifest.started, self.manifest.ended
        return min((end - begin) / 1e9, self.workload.duration) if begin and end else self.workload.duration

    @property
    def finished(self) -> bool:
        """Whether the run got to its end."""
        return self.manifest.state == "finished"


def report(run: Run | Path | str) -> Report:
    """Report on a ``Run``, or on the run in a directory, which may be damaged or not complete.

    A finished run's verdict is read, not worked out anew. Raises RecordingError for what is no run directory.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    directory = RunDirectory.open(path)
    try:
        workload = Workload.load(directory.manifest.workload)
    except ConfigError as error:
        raise RecordingError(f"{path / 'manifest.json'}: the workload cannot be read: {error}") from error
    problems: list[str] = []
    stored = None if isinstance(run, Run) else _stored(directory, problems)
    verdict = run.verdict if isinstance(run, Run) else stored or Run.of(directory).verdict
    frames = load(path)
    frames.manifest.workload = dict(workload.as_dict())  # complete, whatever version wrote it
    problems += [*directory.problems, *verdict.problems]
    # that no rows of a kind were recorded the verdict says in its own words
    problems += [each for each in frames.problems if not each.endswith(" rows were recorded")]
    problems += _since(stored, frames) if stored else []
    return Report(
        name=path.resolve().name,
        manifest=frames.manifest,
        workload=workload,
        verdict=verdict,
        frames=frames,
        problems=tuple(dict.fromkeys(problems)),
    )


def _stored(directory: RunDirectory, problems: list[str]) -> Verdict | None:
    """The verdict that was stored when the run ended; None where the run is to be judged anew."""
    if directory.manifest.state != "finished":
        return None
    stored = directory.verdict()
    if stored is None:
        if not directory.problems:
            problems.append("there is no verdict.json: the run was judged anew")
        return None
    try:
        return Verdict.load(stored)
    except RecordingError as error:
        problems.append(f"verdict.json cannot be read, and the run was judged anew ({error})")
        return None


def _since(stored: Verdict, frames: Frames) -> list[str]:
    """Which of the rows that a stored verdict was made of are missing now, in sentences."""
    found = [
        f"there are no {kind} rows, though {stored.measures[name]:,.0f} events were counted"
        for kind, name in _COUNTED.items()
        if kind not in frames.has and stored.measures.get(name)
    ]
    if found or any("damaged" in each or "missing" in each for each in frames.problems):
        found.append("the figures are of the run's end, the pictures of the rows that are left")
    return found
