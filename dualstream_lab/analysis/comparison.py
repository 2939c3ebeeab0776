"""What really changed between runs: ratios of rates and latencies, differences of shares, intervals. Pure.

What varies: events within a second, seconds within a run, runs of the same settings. A second has thousands
of events, so the first is little. Runs vary the most, and only repeats show how far. So the unit is the run:
a measure is one value a run, its logarithm where ratios count, and the interval of the difference of two arms
is Student's, from the spread of the runs of both arms together. To an arm of one run the other one lends its
spread. Where both are single runs, blocks of their seconds are resampled, as neighbours are alike; that knows
nothing of how far repeats differ, and what is ``ASSUMED`` of it is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from dualstream_lab.analysis.measure import MEASURES, Measure
from dualstream_lab.analysis.paired import student, student_share
from dualstream_lab.analysis.tally import HasPath, Tally
from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import Manifest
from dualstream_lab.recording.rows import Floats

ALLOW: Final = 0.1
"""How much worse a rate or a latency may be, as a share of the base's."""

ALLOW_SHARE: Final = 0.001
"""How many more of the events may be missing or dropped: one in a thousand."""

ASSUMED: Final[Mapping[str, float]] = {
    name: {0.0: 0.002, 0.5: 0.4}.get(measure.share, 0.7)
    for name, measure in MEASURES.items()
    if measure.ratio
} | {"durable.lag.p99": 1.1}
"""The standard deviation of the logarithm of repeats, as it was of 24 recorded ones, 8 s each, on two cores
that others used as well. A machine that has nothing else to do may do better; two single runs cannot tell.
"""

_LEVEL: Final = 0.95
_CERTAIN: Final = 1000  # degrees of freedom: Student's t is the normal distribution
_MANY: Final = 100  # repeats that nobody makes
_NO_SETUP: Final = {
    "settings.kafka_url", "settings.redis_url", "settings.topic", "workload.seed", "settings.seed",
}  # fmt: skip


def setup(manifest: Manifest) -> dict[str, Any]:
    """What was asked for, by name; but not where the brokers are, nor which plan of the same kind."""
    found: dict[str, Any] = {"engine": manifest.engine}
    for part in ("workload", "settings", "users"):
        found |= {f"{part}.{name}": value for name, value in getattr(manifest, part).items()}
    found["faults"] = ", ".join(fault.name for fault in manifest.faults) or "none"
    return {name: value for name, value in found.items() if name not in _NO_SETUP}


def surroundings(manifest: Manifest) -> dict[str, Any]:
    """What the run was made on, and with which versions, by name."""
    return {
        f"{part}.{name}": value
        for part in ("machine", "versions")
        for name, value in getattr(manifest, part).items()
    }


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """``name: this, that`` of whatever is not the same in both."""
    return [
        f"{name}: {one.get(name, 'none')}, {other.get(name, 'none')}"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]


def in_turns(one: Sequence[Manifest], other: Sequence[Manifest]) -> bool:
    """Whether the runs of both took turns at least twice, so that what changes with time is in both."""
    times = sorted(
        (manifest.clocks.wall, number) for number, arm in enumerate((one, other)) for manifest in arm
    )
    return sum(before[1] != after[1] for before, after in pairwise(times)) > 1


class Finding(StrEnum):
    """What is known of a difference: the word of a verdict."""

    REGRESSION = "regression"
    """It is surely worse, by more than is allowed."""
    WORSE = "worse"
    """It is surely worse, but perhaps by no more than is allowed."""
    BETTER = "better"
    """It is surely better."""
    OPEN = "cannot tell"
    """It may be worse by more than is allowed."""
    NOT_WORSE = "not worse"
    """It is not known to differ, and no worse than is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Repeats of the same settings. Raises ConfigError where there are none, or their settings differ."""

    name: str
    runs: tuple[Tally, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError(f"{self.name}: there are no runs")
        first = self.runs[0]
        for run in self.runs[1:]:
            if others := differing(setup(first.manifest), setup(run.manifest)):
                raise ConfigError(
                    f"{self.name}: {first.name} and {run.name} are no repeats of the same settings "
                    f"({'; '.join(others[:3])}): give them as two arms"
                )

    @classmethod
    def read(cls, name: str, runs: Iterable[HasPath | Path | str]) -> Arm:
        """Read an arm from runs, or from paths of run directories. Raises RecordingError, too."""
        return cls(name=name, runs=tuple(Tally.read(run) for run in runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A measure of an arm beside the base's."""

    measure: str
    arm: str
    base: tuple[float, ...]  #: a value a run, in ``unit``
    other: tuple[float, ...]  #: the same of the arm
    change: float  #: of a share, how many more of the events; else how much more, as a share of the base's
    low: float  #: the low end of its 95 % interval, infinite where there is none
    high: float  #: the high end
    p: float  #: of no difference, by Holm's method for all that were looked at together; NaN: no interval
    spread: float  #: the standard deviation of runs, of the logarithm (of a share, its own)
    allowed: float  #: how much worse it may be, as ``change``

    @property
    def unit(self) -> str:
        """The unit of the values: ms, events/s or share."""
        return MEASURES[self.measure].unit

    @property
    def middles(self) -> tuple[float, float]:
        """The mean of each arm's runs (geometric, of shares arithmetic)."""
        measure = MEASURES[self.measure]
        return measure.mean(self.base), measure.mean(self.other)

    @property
    def changed(self) -> bool:
        """Surely: where nothing changed, one comparison in twenty says so of any of its differences."""
        return self.p < 1 - _LEVEL

    @property
    def finding(self) -> Finding:
        """What is known of the difference, in a word."""
        more = MEASURES[self.measure].more_is_worse
        least, most = (self.low, self.high) if more else (-self.high, -self.low)
        if not self.changed:
            return Finding.OPEN if most > self.allowed else Finding.NOT_WORSE
        if least > self.allowed:
            return Finding.REGRESSION
        return Finding.WORSE if (self.change > 0) == more else Finding.BETTER

    @property
    def changes(self) -> tuple[float, ...]:
        """The change of each run of the arm, as ``change``."""
        base, ratio = self.middles[0], MEASURES[self.measure].ratio
        with np.errstate(all="ignore"):
            found = np.divide(self.other, base) - 1 if ratio else np.subtract(self.other, base)
        return tuple(found.tolist())

    @property
    def row(self) -> tuple[str, Sequence[float], float, float, float, str]:
        """The row of ``plot_differences``, in per cent."""
        low, high, change = (100 * one for one in (self.low, self.high, self.change))
        return self.measure, [100 * one for one in self.changes], low, high, change, str(self.finding)

    @property
    def repeats(self) -> int | None:
        """How many runs of each arm would show a change of what is allowed, at this spread; None where it
        would take more than a hundred, or nothing is known.
        """
        size = math.log1p(self.allowed) if MEASURES[self.measure].ratio else self.allowed
        for runs in range(2, _MANY + 1):
            if student((1 + _LEVEL) / 2, 2 * runs - 2) * self.spread * math.sqrt(2 / runs) <= size:
                return runs
        return None


def compare_arms(
    base: Arm, *compared: Arm, allow: float = ALLOW, allow_of: Mapping[str, float] | None = None,
    assumed: Mapping[str, float] = ASSUMED,
) -> tuple[Difference, ...]:  # fmt: skip
    """Every measure that all runs have, of each of ``others`` beside ``base``; what changed comes first.

    ``allow``: how much worse a rate or a latency may be; ``allow_of``: the same by measure, of shares in
    shares of the events. ``assumed``: see ``ASSUMED``. Raises ConfigError for a measure that there is not.
    """
    allowed = _allowed(allow, allow_of or {})
    found = [
        _difference(name, base, other, allowed[name], assumed.get(name, 0.0))
        for other in compared
        for name, measure in MEASURES.items()
        if all(measure.has(run) for arm in (base, *compared) for run in arm.runs)
    ]
    order = list(Finding)
    return tuple(sorted(_adjusted(found), key=lambda one: order.index(one.finding)))


def _allowed(allow: float, allow_of: Mapping[str, float]) -> dict[str, float]:
    if unknown := [name for name in allow_of if name not in MEASURES]:
        raise ConfigError(f"allow: there is no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    for name, size in (("", allow), *allow_of.items()):
        if not 0 <= size < math.inf:
            raise ConfigError(f"allow: must be 0 or more{f' of {name}' if name else ''} (is {size!r})")
    default = {name: allow if measure.ratio else ALLOW_SHARE for name, measure in MEASURES.items()}
    return default | dict(allow_of)


class _Estimate(NamedTuple):
    """The standard deviation of runs, that of the difference, and its degrees of freedom."""

    spread: float
    error: float
    freedom: int


_NONE: Final = _Estimate(math.nan, math.inf, 1)


def _difference(name: str, base: Arm, other: Arm, allowed: float, assumed: float) -> Difference:
    measure = MEASURES[name]
    values = [tuple(measure.value(run) for run in arm.runs) for arm in (base, other)]
    one, two = (measure.scaled(each) for each in values)
    found = _NONE
    if np.isfinite([*one, *two]).all():
        found = _pooled(one, two) if len(one) + len(two) > 2 else _single(measure, base, other, assumed)
    with np.errstate(invalid="ignore"):
        change = float(two.mean() - one.mean())
    half = student((1 + _LEVEL) / 2, found.freedom) * found.error
    with np.errstate(over="ignore"):
        ends = np.array([change, change - half, change + half])
        shown, low, high = (np.expm1(ends) if measure.ratio else ends).tolist()
    if not math.isfinite(half):
        low, high = -math.inf, math.inf
    return Difference(
        measure=name, arm=other.name, base=values[0], other=values[1], change=shown, low=low,
        high=high, p=_chance(change, found), spread=found.spread, allowed=allowed,
    )  # fmt: skip


def _pooled(one: Floats, two: Floats) -> _Estimate:
    """How far values of several runs differ."""
    freedom = len(one) + len(two) - 2
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in (one, two))
    spread = math.sqrt(squares / freedom)
    return _Estimate(spread, spread * math.sqrt(1 / len(one) + 1 / len(two)), freedom)


def _single(measure: Measure, base: Arm, other: Arm, assumed: float) -> _Estimate:
    """How far two single runs differ: what their seconds show, and how far repeats are assumed to differ."""
    (one, few), (two, fewer) = measure.within(base.runs[0]), measure.within(other.runs[0])
    within = one**2 + two**2
    whole = within + 2 * assumed**2
    if not math.isfinite(whole):
        return _NONE
    # Satterthwaite's, of a sum that is known but for one part.
    freedom = min(few, fewer) * (whole / within) ** 2 if within else _CERTAIN
    return _Estimate(math.sqrt(whole / 2), math.sqrt(whole), int(min(freedom, _CERTAIN)))


def _chance(change: float, estimate: _Estimate) -> float:
    """The chance of so great a difference, or a greater one, where there is none."""
    if not math.isfinite(estimate.error):
        return math.nan
    if abs(change) < 1e-9:  # rounding
        return 1.0
    return 2 * (1 - student_share(abs(change) / estimate.error, estimate.freedom)) if estimate.error else 0.0


def _adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with Holm's p: the smallest of m counts m times, the next one m - 1 times, …; what was
    the same in all runs was no chance of a false alarm.
    """
    varied = [one for one in differences if one.spread or one.change]
    order = sorted((one for one in varied if not math.isnan(one.p)), key=lambda one: one.p)
    least = 0.0
    adjusted = {}
    for place, one in enumerate(order):
        least = min(1.0, max(least, one.p * (len(order) - place)))
        adjusted[id(one)] = least
    return [replace(one, p=adjusted.get(id(one), one.p)) for one in differences]
