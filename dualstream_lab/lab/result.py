"""A finished run: its directory and its verdict, and how a notebook shows them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.ledger import Ledger
from dualstream_lab.ledger.tables import Table, recovery_table
from dualstream_lab.recording import RunDirectory
from dualstream_lab.verdict.checker import Conclusion, Criterion, Validity, finished
from dualstream_lab.verdict.thresholds import Check
from dualstream_lab.verdict.verdict import Verdict, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a run.

    In a notebook, the last line of a cell shows it as tables. Frames and plots:
    ``dualstream_lab.analysis.load(run)``.
    """

    directory: RunDirectory
    verdict: Verdict

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Read a run directory, also an unfinished one. Raises RecordingError."""
        return cls.of(RunDirectory.open(path))

    @classmethod
    def of(cls, directory: RunDirectory, *, keep: bool = False) -> Run:
        """Judge the run in a directory; ``keep``: write the verdict into it, too.

        Raises RecordingError where its manifest cannot be read.
        """
        try:
            return cls(directory=directory, verdict=judge(directory, keep=keep))
        except ConfigError as error:
            raise RecordingError(f"{directory.path / 'manifest.json'} cannot be read: {error}") from error

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def state(self) -> str:
        """``finished``, ``interrupted``, or ``running`` where its writers died."""
        return self.directory.manifest.state

    @property
    def seconds(self) -> float:
        """How long the run took, s, from the plan's zero to the end of publishing."""
        manifest = self.directory.manifest
        return max(0.0, (manifest.ended - manifest.started) / 1e9)

    @property
    def measures(self) -> Mapping[str, float]:
        """The measures by name, in ms, counts and shares; ``dualstream run --measures`` lists them."""
        return self.verdict.measures

    @property
    def checks(self) -> tuple[Check, ...]:
        """The thresholds and what became of them."""
        return self.verdict.checks

    @property
    def held(self) -> bool:
        """Whether every threshold held."""
        return self.verdict.held

    @property
    def limit(self) -> str:
        """Who saturated, as a sentence."""
        return self.verdict.limit

    @property
    def ledger(self) -> Ledger:
        """What became of each event, worked out anew from the rows: some seconds for millions."""
        return Ledger.of(self.directory)

    @property
    def recovery(self) -> Table:
        """How each fault was got over; a notebook shows it. The figures: ``verdict.recoveries``."""
        return recovery_table(self.verdict.recoveries)

    def __repr__(self) -> str:
        verdict = "no thresholds" if not self.checks else "held" if self.held else "MISSED"
        return f"<Run {self.path} {self.state}, {verdict}>"

    def _repr_html_(self) -> str:
        model = ", simulated: nothing was measured" if self.directory.manifest.simulated else ""
        parts = [
            f"<h4>{html.escape(self.directory.manifest.name)}: {html.escape(self.state)}{model}</h4>",
            Table(*self.verdict.latency_table())._repr_html_(),
            Table(["events", ""], [list(row) for row in self.verdict.count_table()])._repr_html_(),
        ]
        if self.verdict.recoveries:
            parts.append(self.recovery._repr_html_())
        if self.checks:
            checks = map(list, self.verdict.check_table())
            parts.append(Table(["threshold", "", "found"], [*checks])._repr_html_())
        parts.append(f"<p>{html.escape(self.limit)}</p>")
        parts += [f"<p>missing: {html.escape(problem)}</p>" for problem in self.directory.problems]
        parts.append(f"<p><code>{html.escape(str(self.path))}</code></p>")
        return "".join(parts)


def check_run(run: Run) -> Conclusion:
    """A criterion for each threshold, and one for whether the run got to its end."""
    thresholds = [
        Criterion(
            name=one.threshold.text, group="dualstream.thresholds", text=one.text,
            validity=Validity.of(one.held), reason="" if one.held else one.text,
        )
        for one in run.checks
    ]  # fmt: skip
    return Conclusion(
        experiment=run.directory.manifest.name, state=run.state, about={"limit": run.limit},
        criteria=(finished(run.state, run.seconds), *thresholds), values=run.verdict.as_dict(run.directory),
    )  # fmt: skip
