"""Arms read and compared: everything that is told of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dualstream_lab.analysis.caveats import caveats, settings_between
from dualstream_lab.analysis.comparison import Arm, Difference, Finding, compare_arms
from dualstream_lab.analysis.tally import Tally
from dualstream_lab.errors import RecordingError
from dualstream_lab.lab.output.export import as_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Compared", "compare_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """``arms``: the first is the base. ``allow``: of rates and latencies. ``settings``: by arm, what it has
    that the base has not. ``caveats``: what to keep in mind, sentences.
    """

    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    allow: float
    settings: Mapping[str, Sequence[str]]
    caveats: tuple[str, ...]

    @property
    def base(self) -> Arm:
        """What the others are compared with."""
        return self.arms[0]

    def of(self, arm: Arm) -> list[Difference]:
        """Of this arm; what changed comes first."""
        return [one for one in self.differences if one.arm == arm.name]

    def found(self, *findings: Finding) -> list[Difference]:
        """Those of which that was found."""
        return [one for one in self.differences if one.finding in findings]

    @property
    def regressed(self) -> bool:
        """Whether anything surely got worse by more than is allowed."""
        return bool(self.found(Finding.REGRESSION))

    def as_dict(self) -> dict[str, Any]:
        """For JSON, where infinite and undefined numbers are texts."""
        found: dict[str, Any] = as_plain(
            {
                "regressed": self.regressed,
                "allow": self.allow,
                "arms": {arm.name: [run.name for run in arm.runs] for arm in self.arms},
                "differences": [
                    asdict(one) | {"unit": one.unit, "finding": one.finding, "repeats": one.repeats}
                    for one in self.differences
                ],
                "settings": self.settings,
                "caveats": self.caveats,
            }
        )
        return found


def compare_runs(
    paths: Mapping[str, Sequence[Path]],
    *,
    allow: float,
    allow_of: Mapping[str, float],
    show: Callable[[str], None] = lambda _name: None,
) -> Compared:
    """Read the runs of each arm by name, the base first, and compare. ``show`` is told which is read.

    A run that cannot be read is left out and named, as long as its arm has others. Raises ConfigError for
    runs of one arm that are no repeats, and RecordingError.
    """
    notes: list[str] = []
    arms = tuple(Arm(name=name, runs=_read(each, notes, show)) for name, each in paths.items())
    return Compared(
        arms=arms,
        differences=compare_arms(*arms, allow=allow, allow_of=allow_of),
        allow=allow,
        settings={arm.name: settings_between(arms[0], arm) for arm in arms[1:]},
        caveats=(*notes, *caveats(*arms)),
    )


def _read(paths: Sequence[Path], notes: list[str], show: Callable[[str], None]) -> tuple[Tally, ...]:
    runs, failed = [], []
    for path in paths:
        show(path.name)
        try:
            runs.append(Tally.read(path))
        except RecordingError as error:
            failed.append(error)
    if not runs:
        raise failed[0]
    notes += [f"left out: {error}" for error in failed]
    return tuple(runs)
