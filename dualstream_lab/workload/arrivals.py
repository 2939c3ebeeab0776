"""When events are intended, in ns after the start. The plan never slips: a late generator sends late.

Every plan but Poisson's is the inverse of its cumulative rate: the n-th event is due when the integral of the
rate reaches n. So rounding never adds up, and any stretch of a plan can be computed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

PLANS: Final = ("constant", "poisson", "ramp", "step", "burst", "sine", "closed")
"""``rate`` is the highest rate of each (of ``poisson``, the mean).

``ramp`` rises from ``low`` x rate over the whole duration; ``step`` has ``steps`` equal steps, the last at
``rate``; ``burst`` is at ``rate`` for a fifth of every ``period`` and at ``low`` x rate else; ``sine`` swings
between both once a ``period``. ``closed`` has no times: the next is due when an answer makes room (a closed
model, for the highest throughput; its latencies say nothing about waiting).
"""

_SECOND = 1_000_000_000
_DUTY = 0.2
_GRID = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A rate over time."""

    plan: str  # one of ``PLANS``
    rate: float  # calls/s, at the highest
    duration: float  # s
    low: float = 0.1  # the lowest rate, as a share of ``rate``
    period: float = 10.0  # s
    steps: int = 5


def arrival_times(curve: Curve, *, rng: np.random.Generator, chunk: int) -> Iterator[Integers]:
    """Intended times in [0, duration), in chunks of at most ``chunk``. The plan is the same for any chunk."""
    if curve.plan == "closed":
        while True:
            yield np.zeros(chunk, np.int64)
    end = round(curve.duration * _SECOND)
    times = _poisson(curve.rate, rng, chunk) if curve.plan == "poisson" else _shaped(_inverse(curve), chunk)
    for block in times:
        within = block[: np.searchsorted(block, end)]
        if len(within):
            yield within
        if len(within) < len(block):
            return


def expected_count(curve: Curve) -> int:
    """How many arrivals there are; for Poisson, on average; none are known of ``closed``."""
    if curve.plan == "closed":
        return 0
    ramp, step = (1 + curve.low) / 2, (curve.steps + 1) / curve.steps / 2
    mean = {"constant": 1.0, "poisson": 1.0, "ramp": ramp, "step": step}
    if curve.plan in mean:
        return int(np.ceil(np.round(curve.rate * curve.duration * mean[curve.plan], 6)))
    grid = np.linspace(0, curve.duration, _GRID + 1)
    return int(np.ceil(np.trapezoid(intended_rate(curve, grid), grid)))


def intended_rate(curve: Curve, seconds: Floats) -> Floats:
    """The rate, arrivals/s, at these seconds after the start."""
    rate, low = curve.rate, curve.low
    phase = np.mod(seconds, curve.period) / curve.period
    match curve.plan:
        case "ramp":
            return np.asarray(rate * (low + (1 - low) * seconds / curve.duration))
        case "step":
            step = np.floor(seconds / curve.duration * curve.steps) + 1
            return np.asarray(rate * np.clip(step, 1, curve.steps) / curve.steps)
        case "burst":
            return np.where(phase < _DUTY, rate, rate * low)
        case "sine":
            return np.asarray(rate * ((1 + low) / 2 - (1 - low) / 2 * np.cos(2 * np.pi * phase)))
        case _:
            return np.full(len(seconds), rate)


def _inverse(curve: Curve) -> Callable[[Integers], Floats]:
    """A function from the number of an arrival to its time in s."""
    rate, low, length = curve.rate, curve.low, curve.duration
    match curve.plan:
        case "ramp":
            slope = rate * (1 - low) / length
            return lambda n: _root(slope, rate * low, n)
        case "step":
            knots = np.linspace(0, length, curve.steps + 1)
            rates = rate * np.arange(1, curve.steps + 1) / curve.steps
            return _repeated(knots, np.concatenate([[0.0], np.cumsum(rates * length / curve.steps)]))
        case "burst":
            period = curve.period
            in_burst, between = rate * _DUTY * period, rate * low * (1 - _DUTY) * period
            return _repeated(
                np.array([0, _DUTY * period, period]), np.array([0, in_burst, in_burst + between])
            )
        case "sine":
            times = np.linspace(0, curve.period, _GRID + 1)
            swing = np.sin(2 * np.pi * times / curve.period) * curve.period / (2 * np.pi)
            return _repeated(times, rate * ((1 + low) / 2 * times - (1 - low) / 2 * swing))
        case _:
            return lambda n: n / rate


def _root(slope: float, start: float, n: Integers) -> Floats:
    """The t at which slope t²/2 + start t = n, in the form that stays exact for a small slope."""
    return np.asarray(2 * n / np.maximum(start + np.sqrt(start * start + 2 * slope * n), 1e-300))


def _repeated(times: Floats, counts: Floats) -> Callable[[Integers], Floats]:
    """The inverse of a count that is linear between knots and repeats itself after the last one."""

    def inverse(n: Integers) -> Floats:
        rounds, rest = np.divmod(n, counts[-1])
        # A place within a flat stretch (a rate of zero) has no time of its own: the end of it is meant.
        return np.asarray(rounds * times[-1] + np.interp(rest, counts, times))

    return inverse


def _shaped(inverse: Callable[[Integers], Floats], chunk: int) -> Iterator[Integers]:
    first = 0
    while True:
        yield (inverse(np.arange(first, first + chunk)) * _SECOND).astype(np.int64)
        first += chunk


def _poisson(rate: float, rng: np.random.Generator, chunk: int) -> Iterator[Integers]:
    """Independent exponential gaps of mean 1/rate, rounded to whole ns before they are summed."""
    last = 0
    while True:
        gaps = rng.exponential(_SECOND / rate, size=chunk).astype(np.int64)
        times = last + np.cumsum(gaps)
        last = int(times[-1])
        yield times
