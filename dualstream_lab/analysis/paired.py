"""Is it slower? Paired blocks of load, an interval that holds at few pairs, and when to stop. Pure.

The unit is the pair: a block of load with a fault, beside the healthy blocks before and after it. Events of a
block are alike, and resampling them would give an interval that is far too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dualstream_lab.recording.rows import Floats, Int64

if TYPE_CHECKING:
    import numpy.typing as npt


LOOKS: Final = (6, 9, 13, 19, 28, 40, 60, 90)
"""After so many pairs it may be found good. Each time half as many again, as every look has its price."""

EARLIEST: Final = 3
"""From so many pairs on it may be found bad: that is far from being a matter of chance."""

LEVEL: Final = 0.99
"""Of each look's interval, so that the upper ends of all looks together are good with about 95 %. Resampling
of recorded blocks, two in 32 of which have a stall of Kafka's, shows it in the tests.
"""

_RESAMPLES: Final = 200
_SMALLEST: Final = 0.01  # ms
_PER_DECADE: Final = 116  # bins 2 % wide
_DECADES: Final = 8
_NEVER: Final = _PER_DECADE * _DECADES  # the bin of what never ended
_VALUES: Final = np.append(_SMALLEST * 10 ** ((np.arange(_NEVER) + 0.5) / _PER_DECADE), np.inf)


class Decision(StrEnum):
    """What the pairs say of a difference and its margin."""

    HOLDS = "holds"
    EXCEEDS = "exceeds"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A difference in ms, and where its expectation is; without limits at fewer than two pairs."""

    value: float
    low: float
    high: float
    pairs: int


def log_bins(values: npt.NDArray[Any], smallest: float, per_decade: float, bins: int) -> Int64:
    """The bin of each value, of so many a decade; the last of ``bins`` for what is larger; ``bins`` itself
    for +inf and NaN.
    """
    found = np.full(len(values), bins, np.int64)
    finite = np.isfinite(values)
    decades = np.log10(np.maximum(values[finite], smallest) / smallest)
    found[finite] = np.minimum((decades * per_decade).astype(np.int64), bins - 1)
    return found


def counts_of(latencies: Floats) -> Floats:
    """How many of these latencies (ms, +inf for "never") are in each bin, 2 % wide."""
    bins = log_bins(latencies, _SMALLEST, _PER_DECADE, _NEVER)
    return np.bincount(bins, minlength=_NEVER + 1).astype(np.float64)


def neighbours(healthy: Sequence[bool], place: int) -> list[int]:
    """The nearest healthy blocks: up to two before ``place``, one after it; none where a side has none.

    Only one after it, so that a pair does not change when blocks are added.
    """
    before = [number for number in range(place) if healthy[number]][-2:]
    after = [number for number in range(place + 1, len(healthy)) if healthy[number]][:1]
    return [*before, *after] if before and after else []


def interval(
    pairs: Sequence[tuple[Floats, Floats]], share: float, *, level: float = LEVEL, seed: int = 1
) -> Interval:
    """The difference of a percentile: of all blocks with the fault together, less all beside them together.

    A pair is (with the fault, healthy beside it), as counted by :func:`counts_of`. Together, because one
    stall of anybody's is 1 % of a short block. The limits are Student's t times the standard error of a
    bootstrap over pairs: its percentiles would be far too narrow for few pairs, which are never further
    apart than they are. Where a resample is infinite there are no limits.
    """
    n = len(pairs)
    if not n:
        return Interval(value=math.nan, low=-math.inf, high=math.inf, pairs=0)
    faulty, healthy = (np.array(side) for side in zip(*pairs, strict=True))

    def difference(weights: Floats) -> Floats:
        return _quantile(weights, faulty, share) - _quantile(weights, healthy, share)

    value = float(difference(np.ones((1, n)))[0])
    if n == 1 or math.isnan(value):
        return Interval(value=value, low=-math.inf, high=math.inf, pairs=n)
    resampled = difference(resamples(n, _RESAMPLES, seed))
    if not np.isfinite(resampled).all():
        low = math.inf if np.isposinf(resampled).all() else -math.inf
        return Interval(value=value, low=low, high=math.inf, pairs=n)
    half = student((1 + level) / 2, n - 1) * standard_error(resampled, n)
    return Interval(value=value, low=value - half, high=value + half, pairs=n)


def decide(interval: Interval, margin: float) -> Decision:
    """Whether the difference is at most ``margin``.

    Looked at again and again until it is decided: a difference that is the margin or more is taken for less
    in about 5 % of cases.
    """
    if interval.pairs in LOOKS and interval.high <= margin:
        return Decision.HOLDS
    if interval.pairs >= EARLIEST and interval.low > margin:
        return Decision.EXCEEDS
    return Decision.OPEN


@cache
def resamples(blocks: int, times: int, seed: int = 1) -> Floats:
    """How often each block is in a resample of as many; a resample a row."""
    drawn = np.random.default_rng(seed).integers(0, blocks, (times, blocks))
    return np.array([np.bincount(row, minlength=blocks) for row in drawn], np.float64)


def standard_error(resampled: Floats, blocks: int) -> float:
    """The standard error of a value of so many blocks, from the values of their resamples, whose variance is
    too small by (n - 1) / n.
    """
    return float(resampled.std(ddof=1)) * math.sqrt(blocks / (blocks - 1))


def _quantile(weights: Floats, counts: Floats, share: float) -> Floats:
    """A quantile of all blocks together, by each row of weights.

    By bisection, not by a product of these matrices: BLAS spreads that over threads, which wait for each
    other, and take ten times as long where the cores are busy.
    """
    used = np.flatnonzero(counts.any(axis=0))
    if not len(used):
        return np.full(len(weights), np.nan)
    within = np.cumsum(counts[:, used], axis=1).T
    wanted = share * (weights * within[-1]).sum(axis=1) - 1e-9
    low, high = np.zeros(len(weights), np.int64), np.full(len(weights), len(used) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        reached = (weights * within[middle]).sum(axis=1) >= wanted
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return np.asarray(_VALUES[used][low])


@cache
def student(share: float, freedom: int) -> float:
    """The quantile of Student's t for 0.5 <= ``share`` < 1, by bisection of its distribution function."""
    low, high = 0.0, 1.0
    while student_share(high, freedom) < share:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_share(middle, freedom) < share else (low, middle)
    return high


def student_share(t: float, freedom: int) -> float:
    """Student's distribution function, for ``t`` >= 0.

    Abramowitz and Stegun 26.7.3 and 26.7.4: finite sums for whole degrees of freedom.
    """
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    within = 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
    return (1 + (within if odd else math.sin(angle) * total)) / 2
