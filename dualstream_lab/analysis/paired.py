"""Is it slower? Paired differences, an interval that holds at few pairs, and when to stop. Pure.

The unit is the pair: a block of load with a fault, beside the healthy blocks before and after it. Events of a
block are alike, and resampling them would give an interval that is far too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LOOKS", "Decision", "Interval", "beside", "decide", "interval", "student"]

LOOKS: Final = range(3, 13)
"""After so many pairs it may be decided: ten times."""

LEVEL: Final = 0.99
"""Of each look's interval. By Bonferroni, ten upper ends are all good with 95 %: 1 - 10 x 0.01 / 2."""

_RESAMPLES: Final = 4000


class Decision(StrEnum):
    """What the pairs say."""

    HOLDS = "holds"
    EXCEEDS = "exceeds"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The mean of so many differences and where its expectation is; without limits at fewer than two."""

    mean: float
    low: float
    high: float
    pairs: int


def beside(
    places: Sequence[int], values: Sequence[float], healthy: Sequence[bool]
) -> list[tuple[float, float]]:
    """For each of ``places``: its value, and the mean of the nearest healthy ones before and after it.

    ``values`` are in the order of time. A place without a healthy neighbour on each side is left out.
    """
    found = []
    well = [place for place, is_healthy in enumerate(healthy) if is_healthy]
    for place in places:
        for before, after in pairwise(well):
            if before < place < after:
                found.append((values[place], (values[before] + values[after]) / 2))
                break
    return found


def interval(differences: Sequence[float], *, level: float = LEVEL, seed: int = 1) -> Interval:
    """Bootstrap over pairs (percentiles of the resampled means), and not narrower than Student's interval.

    Few pairs resampled are never further apart than they are, so the bootstrap alone is too narrow; Student's
    holds its level there. With many pairs that are skewed, the bootstrap is the wider one. A difference that
    is infinite leaves no limits.
    """
    values = np.asarray(differences, np.float64)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < 2 or not np.isfinite(values).all():
        low = math.inf if n and np.isposinf(values).all() else -math.inf
        return Interval(mean=mean, low=low, high=math.inf, pairs=n)
    half = student((1 + level) / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    draws = np.random.default_rng(seed).integers(0, n, (_RESAMPLES, n))
    tail = (1 - level) / 2
    low, high = np.quantile(values[draws].mean(axis=1), [tail, 1 - tail])
    return Interval(mean=mean, low=min(float(low), mean - half), high=max(float(high), mean + half), pairs=n)


def decide(found: Interval, margin: float) -> Decision:
    """Whether the difference is at most ``margin``, if this is one of the ``LOOKS``.

    Looked at after every pair, until it is decided: a difference that is the margin or more is taken for less
    with at most 5 %.
    """
    if found.pairs not in LOOKS:
        return Decision.OPEN
    if found.high <= margin:
        return Decision.HOLDS
    return Decision.EXCEEDS if found.low > margin else Decision.OPEN


def student(share: float, freedom: int) -> float:
    """The quantile of Student's t for 0.5 <= ``share`` < 1, by bisection of its distribution function."""
    low, high = 0.0, 1.0
    while _student_share(high, freedom) < share:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, freedom) < share else (low, middle)
    return high


def _student_share(t: float, freedom: int) -> float:
    """Abramowitz and Stegun 26.7.3 and 26.7.4: finite sums for whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    within = 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
    return (1 + (within if odd else math.sin(angle) * total)) / 2
