"""A broker's noise and its pauses, told apart by expectation and maximization; and how often pauses come.

A request takes its work times a log-normal factor, and what is left of a pause, if it meets one: that has no
memory, so it is exponential. How probably each request met one follows from both, and both from that.

Requests show each by itself how long a stall is, but a p99 hangs on how many events are in stalls, around one
in a hundred, and that on their shape, which is only about exponential: so how often they come is what makes
the p99 of runs come out as it was measured.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dualstream_lab.recording.joined import join
from dualstream_lab.simulation.engine.outcome import Outcome
from dualstream_lab.simulation.engine.simulate import simulate
from dualstream_lab.simulation.fitting.equations import Equations
from dualstream_lab.simulation.fitting.observations import Observed
from dualstream_lab.simulation.kernels import Floats, Integers
from dualstream_lab.simulation.parameters import Costs

ENOUGH: Final = 5.0  # fewer requests that met one say nothing of how long pauses are
_STEPS: Final = 5
_NORMAL: Final = 1.96
_SPREAD: Final = (0.02, 1.0)  # of the logarithm of the noise
_HALF: Final = 0.5
_INNER, _WIDTH = 0.9, 1.645  # so much of a normal distribution is within so many standard deviations
_LEAST: Final = 0.02  # of its work that any request takes
_SHARE: Final = 0.99
_TRIED: Final = np.linspace(-1.2, 1.2, 7)  # of the logarithm, around what is known so far
_TURNS: Final = 3
_FURTHEST: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How often brokers pause and for how long, beside the noise of their work."""

    rate: float = 1.0  # pauses for a second that a publisher works on events
    length: float = 5e-3  # s, on average
    spread: float = 0.5  # the standard deviation of the logarithm of the noise
    seen: float = 0.0  # how many requests met a pause
    watched: float = 0.0  # s of a publisher's work in which these were seen

    @property
    def rates(self) -> tuple[float, float]:
        """95 % interval of the rate, as of a Poisson count."""
        root = math.sqrt(self.seen)
        low, high = max(0.0, root - _NORMAL / 2) ** 2, (math.sqrt(self.seen + 1) + _NORMAL / 2) ** 2
        return min(self.rate, low / self.watched), max(self.rate, high / self.watched)

    @property
    def lengths(self) -> tuple[float, float]:
        """95 % interval of the length, as of the mean of so many exponential ones."""
        off = min(_NORMAL / math.sqrt(max(self.seen, 1.0)), 0.9)
        return self.length / (1 + off), self.length / (1 - off)


def separate(
    brokers: Sequence[Equations], costs: Mapping[str, float], before: Pauses
) -> tuple[Pauses, list[Floats]]:
    """(pauses, better known than ``before``; by broker, the probability of each request that it met none)."""
    y, wait, work, idle = (
        np.concatenate(column)
        for column in zip(
            *((one.y, _waits(one, costs), one.work(costs), one.idle) for one in brokers), strict=True
        )
    )
    work = np.maximum(work, 1e-9)
    spent = np.maximum(y - wait, _LEAST * work)
    logs = np.log(spent / work)
    idle = np.minimum(idle, 1e3)
    utilization = np.repeat([one.utilization for one in brokers], [len(one.y) for one in brokers])
    now, none = before, np.ones(len(y))
    # Where the costs of a run are off by some factor, that is neither noise nor a pause: each has its middle.
    run = np.repeat(np.arange(len(brokers)), [len(one.y) for one in brokers])
    logs -= _means(run, logs, none)
    # Never much narrower at once: while the costs are not right yet, what is off would be taken for pauses.
    least, most = max(_SPREAD[0], before.spread / 2), _SPREAD[1]
    for _ in range(_STEPS):
        # One that begins while the broker is idle is met by the request that comes next, if it lasts so long.
        exposed = work - now.length * np.expm1(-idle / now.length)
        met = np.minimum(-np.expm1(-now.rate * utilization * exposed), 0.9)
        excess = spent * -np.expm1(-logs)
        with_ = np.where(excess > 0, met * np.exp(-excess / now.length) / now.length, 0.0)
        without = (1 - met) * np.exp(-((logs / now.spread) ** 2) / 2)
        without /= now.spread * math.sqrt(2 * math.pi) * spent
        none = 1 - with_ / np.maximum(with_ + without, 1e-300)
        seen, watched = float((1 - none).sum()), float(utilization @ exposed)
        logs -= _means(run, logs, none)
        spread = float(np.quantile(np.abs(logs[none > _HALF]), _INNER)) / _WIDTH
        length = float((1 - none) @ excess / seen) if seen > 1e-3 else now.length
        now = Pauses(
            rate=seen / watched, length=max(length, 1e-6), seen=seen, watched=watched,
            spread=min(max(spread, least), most),
        )  # fmt: skip
    return now, np.split(none, np.cumsum([len(one.y) for one in brokers])[:-1])


def _means(run: Integers, values: Floats, weights: Floats) -> Floats:
    """The weighted mean of each run, at the place of each of its values."""
    sums = np.bincount(run, weights * values) / np.maximum(np.bincount(run, weights), 1e-300)
    return np.asarray(sums[run])


def _waits(one: Equations, costs: Mapping[str, float]) -> Floats:
    """How long requests were on the way, s. A trip that is only guessed may be longer than whole requests;
    here it is shorter than nearly all.
    """
    return np.minimum(one.waits(costs), 0.9 * float(np.quantile(one.y, 0.01)))


def pauses_matched(costs: Costs, seen: Sequence[Observed]) -> float:
    """What ``costs.pauses`` is to be, so that over the setups of ``seen`` the publish p99 is, as a geometric
    mean, neither too high nor too low: where a line through some that are tried has its zero, as each by
    itself is as much chance.
    """
    if not costs.pauses or not costs.pause:
        return costs.pauses
    setups: dict[Any, list[Observed]] = defaultdict(list)
    for run in seen:
        setups[run.setup].append(run)
    measured = {key: np.mean([math.log(_measured(run)) for run in runs]) for key, runs in setups.items()}

    def off(change: float) -> float:
        tried = replace(costs, pauses=costs.pauses * math.exp(change))
        found = [math.log(_predicted(runs[0], tried)) - measured[key] for key, runs in setups.items()]
        return float(np.mean(found))

    middle = 0.0
    for _ in range(_TURNS):
        tried = middle + _TRIED
        slope, value = np.polyfit(tried, [off(float(change)) for change in tried], 1)
        zero = float(-value / slope) if slope > 0 else math.inf
        if tried[0] <= zero <= tried[-1]:
            middle = zero
            break
        middle = float(np.clip(zero, max(tried[0], -_FURTHEST), min(tried[-1], _FURTHEST)))
    return costs.pauses * math.exp(middle)


def _measured(run: Observed) -> float:
    rows = join(run.directory)
    return float(np.quantile((rows.acked - rows.sent)[rows.durable], _SHARE)) / 1e9


def _predicted(run: Observed, costs: Costs) -> float:
    outcome = simulate(run.workload, run.deployment, costs)
    assert isinstance(outcome, Outcome)  # noqa: S101  (with a row an event, as each was recorded)
    return float(np.nanquantile(outcome.acked - outcome.sent, _SHARE))
