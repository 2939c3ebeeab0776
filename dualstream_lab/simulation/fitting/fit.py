"""Costs from recorded runs, with intervals, and which of them the runs do not tell.

All equations of all runs (:mod:`~dualstream_lab.simulation.fitting.equations`) are one system of least
squares. It is solved some times over: the costs decide which observations waited, and which are outliers.
Intervals: runs of the same settings are resampled, and seconds within each.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import RunDirectory
from dualstream_lab.simulation.calibration import COSTS, UNKNOWN, Calibration, load_of
from dualstream_lab.simulation.fitting.equations import LINEAR, Equations, equations_of
from dualstream_lab.simulation.fitting.least_squares import Normal, normal
from dualstream_lab.simulation.fitting.observations import Blocks, Observed, observe, side_by_side
from dualstream_lab.simulation.fitting.stalls import ENOUGH, Pauses, pauses_matched, separate
from dualstream_lab.simulation.kernels import Floats
from dualstream_lab.simulation.parameters import Costs, most_of

_TURNS: Final = 8
_RESAMPLES: Final = 200
_CUT: Final = 6.5  # standard deviations from which on an observation is an outlier
_FLOOR: Final = 0.02  # nothing is known better than so, as a share
_OBSERVED: Final = 0.9  # resolution from which on a cost is the runs' and not the default's
_NOISELESS: Final = 0.05  # how noisy a way to Redis is, of its length, beside the noise of work there
_NOISIEST: Final = 2.0  # coefficient of variation
_NOISES: Final = {"broker_noise": ("broker", "request"), "redis_noise": ("shard", "exchange")}
"""Each is a share of the work of a station, most of which is this cost."""

_SIMULATED: Final = "simulated"
_OF_LOOP: Final = ("call", "event", "turn")
_BUSIEST: Final = 0.5  # share of a loop that is not the publisher's
_NONE: Final = 1e-3  # probability below which an observation does not count
_WIDE: Final = 2.2  # standard errors of a 95 % interval: Student's, of some ten blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Costs that were learned from runs."""

    calibration: Calibration
    observations: Mapping[str, int]  # how many there were, by station


def fit(runs: Sequence[RunDirectory | Path | str]) -> Fit:
    """The costs that these runs had. At best they differ in rate, batch, size, subscribers and publishers:
    what is the same in all of them cannot be told apart.

    Raises ConfigError naming a run that cannot be used, and why; RecordingError for what cannot be read.
    """
    seen = side_by_side([observe(run) for run in runs])
    machine = _machine(seen)
    costs, kept, pauses = _solve(seen)
    found = _estimated(costs, kept, pauses, Blocks(seen))
    for name in _OF_LOOP:  # which has other work, too
        found[name] = _times(found[name], 1 / (1 - min(costs["idle"], _BUSIEST)))
    if "pauses" in found and machine != _SIMULATED:
        known = Costs(**{name: found[name].value for name in COSTS if name in found})
        if known.pauses:
            # On an overloaded machine no number of pauses is enough.
            most = most_of("pauses") / found["pauses"].high
            found["pauses"] = _times(found["pauses"], min(pauses_matched(known, seen) / known.pauses, most))
    stations = [each.station for each in kept]
    observations = {name: sum(len(one.y) for one in kept if one.station == name) for name in stations}
    return Fit(calibration=_calibration(found, machine, seen), observations=observations)


class _Estimate(NamedTuple):
    """A cost, and the ends of its interval."""

    value: float
    low: float
    high: float
    resolution: float  # how much of it the runs decide, 0 to 1


def _estimated(
    costs: Mapping[str, float], kept: Sequence[Equations], pauses: Pauses, blocks: Blocks
) -> dict[str, _Estimate]:
    """The costs that there are observations of, with their intervals."""
    equations = _normal(kept, blocks)
    squares = {name: _squares(kept, station, costs, blocks) for name, (station, _) in _NOISES.items()}
    rng = np.random.default_rng(1)
    drawn, noises = [], []
    for _ in range(_RESAMPLES):
        weights = blocks.resampled(rng)
        drawn.append(equations.solve(weights))
        noises.append([_noise(each, weights) for each in squares.values()])
    found = {}
    resolutions = equations.resolution().tolist()
    for place, (name, resolution) in enumerate(zip(LINEAR, resolutions, strict=True)):
        error = _WIDE * float(np.std([each[place] for each in drawn]))
        low, high = (costs[name],) * 2 if resolution >= _OBSERVED else equations.extremes(place, UNKNOWN)
        found[name] = _estimate(costs[name], low, high, error, resolution)
    for place, (name, each) in enumerate(squares.items()):
        value = _noise(each, np.ones(blocks.count))
        resolution = found[_NOISES[name][1]].resolution
        # Where a station's ways are noisier than its work, they hide it.
        hidden = any(one.spread > 1 for one in kept if one.station == "shard") and name == "redis_noise"
        if math.isfinite(value) and not hidden:
            error = _WIDE * float(np.nanstd([noise[place] for noise in noises]))
            ends = (value, value) if resolution >= _OBSERVED else (value / UNKNOWN, max(value, _NOISIEST))
            found[name] = _estimate(value, *ends, error, resolution)
    if pauses.watched:
        found["pauses"] = _Estimate(pauses.rate, *pauses.rates, resolution=1.0)
    if pauses.seen >= ENOUGH:
        found["pause"] = _Estimate(pauses.length, *pauses.lengths, resolution=1.0)
    return found


def _times(cost: _Estimate, factor: float) -> _Estimate:
    return _Estimate(cost.value * factor, cost.low * factor, cost.high * factor, cost.resolution)


def _estimate(value: float, low: float, high: float, error: float, resolution: float) -> _Estimate:
    half = max(error, _FLOOR * value)
    return _Estimate(value, max(0.0, min(low, value) - half), max(high, value) + half, resolution)


def _machine(seen: Sequence[Observed]) -> str:
    """What the runs were made on. Raises ConfigError where there are none, or several machines."""
    if not seen:
        raise ConfigError("give one run at least; `dualstream runs` lists those that there are")
    machines = {}
    for run in seen:
        machine = run.directory.manifest.machine
        name = f"{machine.get('cores')} cores ({machine.get('architecture')}), "
        name += f"{machine.get('memory_bytes', 0) / 2**30:.0f} GiB, {machine.get('system')}"
        machines[_SIMULATED if run.simulated else name] = run.name
    if len(machines) > 1:
        (one, first), (other, second), *_ = machines.items()
        raise ConfigError(f"{first} ran on {one}, {second} on {other}: calibrate each by itself")
    return next(iter(machines))


def _scale() -> Floats:
    defaults = asdict(Costs()) | {"idle": 0.01, "redis_idle": 0.01, "consumer_idle": 0.01, "wake": 1e-4}
    return np.array([defaults[name] for name in LINEAR])


def _solve(seen: Sequence[Observed]) -> tuple[dict[str, float], list[Equations], Pauses]:
    """(the costs, the equations as they are with them, pauses of brokers)."""
    costs = dict(zip(LINEAR, _scale().tolist(), strict=True))
    costs |= _roughly(seen, costs)
    blocks = Blocks(seen)
    pauses = Pauses()
    for _ in range(_TURNS):
        kept, pauses = _keep(seen, costs, pauses)
        solved = _normal(kept, blocks).solve()
        costs = dict(zip(LINEAR, solved.tolist(), strict=True))
    return costs, *_keep(seen, costs, pauses)


def _roughly(seen: Sequence[Observed], costs: Mapping[str, float]) -> dict[str, float]:
    """The costs of each station in the defaults' proportion, so that the median observation is met."""
    found: dict[str, float] = {}
    for alike in _by_station(seen, costs):
        shown = np.median(np.concatenate([one.y for one in alike]))
        expected = np.median(np.concatenate([one.work(costs) + one.waits(costs) for one in alike]))
        if shown > 0 and expected > 0:
            for name in alike[0].columns:
                found.setdefault(name, costs[name] * float(shown / expected))
    return found


def _by_station(seen: Sequence[Observed], costs: Mapping[str, float]) -> list[list[Equations]]:
    found: dict[str, list[Equations]] = defaultdict(list)
    for number, run in enumerate(seen):
        for one in equations_of(run, costs):
            if len(one.y):
                found[one.station].append(one._replace(run=number))
    return list(found.values())


def _keep(
    seen: Sequence[Observed], costs: Mapping[str, float], pauses: Pauses
) -> tuple[list[Equations], Pauses]:
    kept = []
    for alike in _by_station(seen, costs):
        if alike[0].station == "broker":
            pauses, free = separate(alike, costs, pauses)
            for one, usual in zip(alike, free, strict=True):
                error = pauses.spread * np.maximum(one.work(costs), 1e-9)
                kept.append(one._replace(usual=usual, error=error, spread=pauses.spread))
        else:
            kept += _without_outliers(alike, costs)
    return kept, pauses


def _without_outliers(alike: Sequence[Equations], costs: Mapping[str, float]) -> Iterator[Equations]:
    """Mark the outliers of one station. While the costs are not right yet, all of a run is off by as much."""
    bases, off = [], []
    for one in alike:
        work, waits = one.work(costs), one.waits(costs)
        bases.append(np.maximum(work, 1e-9) + (_NOISELESS if one.station == "shard" else 1) * np.abs(waits))
        deviation = (one.y - work - waits) / bases[-1]
        off.append(np.abs(deviation - np.median(deviation)))
    spread = max(float(np.median(np.concatenate(off))) * 1.4826, _FLOOR)
    for one, base, distance in zip(alike, bases, off, strict=True):
        usual = (distance <= _CUT * spread).astype(np.float64)
        yield one._replace(usual=usual, error=spread * base, spread=spread)


def _normal(kept: Sequence[Equations], blocks: Blocks) -> Normal:
    parts = [(each, np.flatnonzero(each.usual > _NONE)) for each in kept]

    def column(name: str) -> Floats:
        found = (each.columns.get(name, np.zeros(len(each.y)))[rows] for each, rows in parts)
        return np.concatenate([np.empty(0), *found])

    return normal(
        np.column_stack([column(name) for name in LINEAR]),
        np.concatenate([each.y[rows] for each, rows in parts]),
        error=np.concatenate([each.error[rows] / np.sqrt(each.usual[rows]) for each, rows in parts]),
        block=np.concatenate([blocks.of(each.run, each.at[rows]) for each, rows in parts]),
        scale=_scale(), blocks=blocks.count,
    )  # fmt: skip


def _squares(
    kept: Sequence[Equations], station: str, costs: Mapping[str, float], blocks: Blocks
) -> tuple[Floats, Floats]:
    """By block, the sums of squares of what the station's work is off by, from its run's mean, and of the
    work.
    """
    off, total = np.zeros(blocks.count), np.zeros(blocks.count)
    for each in kept:
        if each.station == station:
            block = blocks.of(each.run, each.at)
            work = each.work(costs)
            left = each.y - work - each.waits(costs)
            weight = float((each.usual * work) @ work)
            left -= work * (float((each.usual * left) @ work) / weight if weight else 0.0)
            off += np.bincount(block, each.usual * left**2, minlength=blocks.count)
            total += np.bincount(block, each.usual * work**2, minlength=blocks.count)
    return off, total


def _noise(squares: tuple[Floats, Floats], weights: Floats) -> float:
    """The coefficient of variation; NaN where the station was not seen."""
    off, total = (float(weights @ each) for each in squares)
    return math.sqrt(off / total) if total else math.nan


def _calibration(estimates: Mapping[str, _Estimate], machine: str, seen: Sequence[Observed]) -> Calibration:
    """Put the costs together; one that was not observed is the default."""
    values, low, high = asdict(Costs()), {}, {}
    for name, default in values.copy().items():
        cost = estimates.get(name, _Estimate(default, default / UNKNOWN, default * UNKNOWN, 0.0))
        values[name], low[name], high[name] = (min(end, most_of(name)) for end in cost[:3])
    newest = max(run.directory.manifest.clocks.wall for run in seen)
    loads = [load_of(run.workload, run.deployment) for run in seen]
    for load, run in zip(loads, seen, strict=True):  # those beside each other are publishers of one broker
        load["publishers"] += run.concurrent_runs
    ranges = {name: [load[name] for load in loads] for name in loads[0]}
    return Calibration(
        costs=Costs(**values), low=Costs(**low), high=Costs(**high), machine=machine,
        date=time.strftime("%Y-%m-%d", time.gmtime(newest / 1e9)),
        ranges={name: (min(each), max(each)) for name, each in ranges.items()},
        observed=frozenset(
            name for name in COSTS if name in estimates and estimates[name].resolution >= _OBSERVED
        ),
    )  # fmt: skip
