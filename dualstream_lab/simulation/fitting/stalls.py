"""A broker's noise and its pauses, told apart by expectation and maximization. Pure.

A request takes its work times a log-normal factor, and what is left of a pause, if it meets one: that has no
memory, so it is exponential. How probably each request met one follows from both, and both from that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from dualstream_lab.simulation.fitting.equations import Equations

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["ENOUGH", "Pauses", "separate"]

ENOUGH: Final = 5.0
"""Fewer requests that met one say nothing of how long pauses are."""

_STEPS: Final = 5
_NORMAL: Final = 1.96
_SPREAD: Final = (0.02, 1.0)  # of the logarithm of the noise
_HALF: Final = 0.5
_INNER, _WIDTH = 0.9, 1.645  # so much of a normal distribution is within so many standard deviations
_LEAST: Final = 0.02  # of its work that any request takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """``rate``: for a second that a publisher works on events; ``length``: s, on average; ``spread``: the
    standard deviation of the logarithm of the noise. ``seen``: how many requests met a pause, and in how much
    of such work, s, that was ``watched``.
    """

    rate: float = 1.0
    length: float = 5e-3
    spread: float = 0.5
    seen: float = 0.0
    watched: float = 0.0

    @property
    def rates(self) -> tuple[float, float]:
        """95 % interval of the rate, as of a Poisson count."""
        root = math.sqrt(self.seen)
        low, high = max(0.0, root - _NORMAL / 2) ** 2, (math.sqrt(self.seen + 1) + _NORMAL / 2) ** 2
        return min(self.rate, low / self.watched), max(self.rate, high / self.watched)

    @property
    def lengths(self) -> tuple[float, float]:
        """Of the length, as of a mean of so many exponential ones."""
        off = min(_NORMAL / math.sqrt(max(self.seen, 1.0)), 0.9)
        return self.length / (1 + off), self.length / (1 - off)


def separate(
    brokers: Sequence[Equations], costs: Mapping[str, float], before: Pauses
) -> tuple[Pauses, list[Floats]]:
    """(better than ``before``, by request of each the probability that it met none)."""
    y, wait, work, idle = (
        np.concatenate(column)
        for column in zip(
            *((its.y, _waits(its, costs), its.work(costs), its.idle) for its in brokers), strict=True
        )
    )
    work = np.maximum(work, 1e-9)
    spent = np.maximum(y - wait, _LEAST * work)
    logs = np.log(spent / work)
    idle = np.minimum(idle, 1e3)
    busy = np.repeat([its.busy for its in brokers], [len(its.y) for its in brokers])
    now, none = before, np.ones(len(y))
    # Where the costs of a run are off by some factor, that is neither noise nor a pause: each has its middle.
    run = np.repeat(np.arange(len(brokers)), [len(its.y) for its in brokers])
    logs -= _means(run, logs, none)
    # Never much narrower at once: while the costs are not right yet, what is off would be taken for pauses.
    least, most = max(_SPREAD[0], before.spread / 2), _SPREAD[1]
    for _ in range(_STEPS):
        # One that begins while the broker is idle is met by the request that comes next, if it lasts so long.
        exposed = work - now.length * np.expm1(-idle / now.length)
        met = np.minimum(-np.expm1(-now.rate * busy * exposed), 0.9)
        excess = spent * -np.expm1(-logs)
        with_ = np.where(excess > 0, met * np.exp(-excess / now.length) / now.length, 0.0)
        without = (1 - met) * np.exp(-((logs / now.spread) ** 2) / 2)
        without /= now.spread * math.sqrt(2 * math.pi) * spent
        none = 1 - with_ / np.maximum(with_ + without, 1e-300)
        seen, watched = float((1 - none).sum()), float(busy @ exposed)
        logs -= _means(run, logs, none)
        spread = float(np.quantile(np.abs(logs[none > _HALF]), _INNER)) / _WIDTH
        length = float((1 - none) @ excess / seen) if seen > 1e-3 else now.length
        now = Pauses(
            rate=seen / watched, length=max(length, 1e-6), seen=seen, watched=watched,
            spread=min(max(spread, least), most),
        )  # fmt: skip
    return now, np.split(none, np.cumsum([len(its.y) for its in brokers])[:-1])


def _means(run: Integers, values: Floats, weights: Floats) -> Floats:
    """Of each run, at each of its values."""
    sums = np.bincount(run, weights * values) / np.maximum(np.bincount(run, weights), 1e-300)
    return np.asarray(sums[run])


def _waits(its: Equations, costs: Mapping[str, float]) -> Floats:
    """Where the trip is only guessed it may be longer than whole requests: not here."""
    return np.minimum(its.waits(costs), 0.9 * float(np.quantile(its.y, 0.01)))
