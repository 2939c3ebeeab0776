"""Arms read and compared: runs and their repeats, as a command line names them, and all that is told."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dualstream_lab.analysis.caveats import caveats, settings_between
from dualstream_lab.analysis.comparison import ALLOW, Arm, Difference, Finding, compare_arms
from dualstream_lab.analysis.measure import MEASURES
from dualstream_lab.analysis.tally import Tally
from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.verdict.checker import as_plain
from dualstream_lab.verdict.thresholds import nearest

_FORM = re.compile(r"\s*(?:(\S+?)\s*=\s*)?(\d+(?:\.\d+)?)\s*%\s*")


def run_directories(argument: str) -> list[Path]:
    """The run directories that an argument names: one run, those in a directory, or those of a pattern.

    Raises ConfigError where there are none.
    """
    path = Path(argument)
    if path.is_dir():
        found = [path] if _is_run(path) else sorted(filter(_is_run, path.iterdir()))
        missing = "has no manifest.json, and there are no run directories in it"
    else:
        found = sorted(filter(_is_run, map(Path, glob.glob(argument))))  # noqa: PTH207  (absolute ones, too)
        missing = "does not exist" if not glob.has_magic(argument) else "matches no run directory"
    if not found:
        raise ConfigError(f"{argument} {missing}; `dualstream runs` lists those that there are")
    return found


def named_arms(arguments: Sequence[str]) -> dict[str, list[Path]]:
    """The run directories of each argument, by a short name. Raises ConfigError for fewer than two, and where
    two of them have a run in common.
    """
    if len(arguments) < 2:
        raise ConfigError("give two runs at least, or two patterns of repeats; the first is the base")
    names = [Path(argument).resolve().name for argument in arguments]
    if len(set(names)) < len(names):
        names = list(arguments)
    taken: dict[Path, str] = {}
    arms: dict[str, list[Path]] = {}
    for name, argument in zip(names, arguments, strict=True):
        arms[name] = run_directories(argument)
        for path in arms[name]:
            if (before := taken.setdefault(path.resolve(), argument)) is not argument:
                raise ConfigError(f"{path} is named by both {before} and {argument}")
    return arms


def allowances(texts: Sequence[str]) -> tuple[float, dict[str, float]]:
    """How much worse is allowed, as shares, from texts such as ``10%`` and ``live.missing=0.5%``: first what
    counts for all rates and latencies, then what counts for single measures.

    Raises ConfigError.
    """
    everywhere, single = ALLOW, {}
    short = {name.replace(".latency", ""): name for name in MEASURES}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"--allow {text!r}: must be per cent, 10%, or of a measure: live.latency.p99=20%"
            )
        name, size = match[1], float(match[2]) / 100
        if name is None:
            everywhere = size
            continue
        if name not in MEASURES and name not in short:
            hint = nearest(name, MEASURES) + ", ".join(MEASURES)
            raise ConfigError(f"--allow {text!r}: there is no measure {name!r}; {hint}")
        single[short.get(name, name)] = size
    return everywhere, single


def _is_run(path: Path) -> bool:
    return (path / "manifest.json").is_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A finished comparison of arms, each of which is one run or several repeats of it.

    ``arms``: the first is the base. ``allow``: how much worse rates and latencies may be, a share.
    ``settings``: by the arm's name, the settings in which it differs from the base. ``caveats``: sentences to
    keep in mind.
    """

    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    allow: float
    settings: Mapping[str, Sequence[str]]
    caveats: tuple[str, ...]

    @property
    def base(self) -> Arm:
        """The arm that the others are compared with."""
        return self.arms[0]

    def of(self, arm: Arm) -> list[Difference]:
        """The differences of this arm from the base; those that changed come first."""
        return [one for one in self.differences if one.arm == arm.name]

    def having(self, *findings: Finding) -> list[Difference]:
        """The differences, of all arms, with one of these findings."""
        return [one for one in self.differences if one.finding in findings]

    @property
    def regressed(self) -> bool:
        """Whether anything surely got worse by more than is allowed."""
        return bool(self.having(Finding.REGRESSION))

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON can hold it: infinite and undefined numbers are texts."""
        return as_plain({
            "regressed": self.regressed,
            "allow": self.allow,
            "arms": {arm.name: [run.name for run in arm.runs] for arm in self.arms},
            "differences": [
                asdict(one) | {"unit": one.unit, "finding": one.finding, "repeats": one.repeats}
                for one in self.differences
            ],
            "settings": self.settings,
            "caveats": self.caveats,
        })  # fmt: skip


def compare_runs(
    paths: Mapping[str, Sequence[Path]],
    *,
    allow: float,
    allow_of: Mapping[str, float],
) -> Compared:
    """Read the runs of each arm by name, the base first, and compare them.

    A run that cannot be read is left out and named, as long as its arm has others. Raises ConfigError for
    runs of one arm that are no repeats, and RecordingError.
    """
    notes: list[str] = []
    arms = tuple(Arm(name=name, runs=_read(each, notes)) for name, each in paths.items())
    return Compared(
        arms=arms,
        differences=compare_arms(*arms, allow=allow, allow_of=allow_of),
        allow=allow,
        settings={arm.name: settings_between(arms[0], arm) for arm in arms[1:]},
        caveats=(*notes, *caveats(*arms)),
    )


def _read(paths: Sequence[Path], notes: list[str]) -> tuple[Tally, ...]:
    runs, failed = [], []
    for path in paths:
        try:
            runs.append(Tally.read(path))
        except RecordingError as error:
            failed.append(error)
    if not runs:
        raise failed[0]
    notes += [f"left out: {error}" for error in failed]
    return tuple(runs)
