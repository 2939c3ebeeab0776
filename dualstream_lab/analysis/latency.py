"""Latency statistics of rows. Times in are ns, statistics out are ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Latency", "latency", "windows"]

Times = "npt.NDArray[np.int64]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles of a latency, ms; NaN where there is none."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


def latency(begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Latency:
    """From ``begin`` to ``end``, of the rows that have an end (not 0)."""
    there = end > 0
    if not there.any():
        return Latency(count=0, p50=np.nan, p99=np.nan, p999=np.nan, max=np.nan)
    values = (end[there] - begin[there]) / 1e6
    p50, p99, p999 = (float(value) for value in np.quantile(values, [0.5, 0.99, 0.999], method="higher"))
    return Latency(count=len(values), p50=p50, p99=p99, p999=p999, max=float(values.max()))


def windows(
    begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64], *, width: float, length: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(window starts in s, p50, p99 in ms) of the rows that began in each window of ``width`` s.

    ``begin`` and ``end`` are ns after the start of the run. A window without rows has NaN.
    """
    there = end > 0
    starts = np.arange(0, length, width)
    which = (begin[there] / 1e9 / width).astype(np.int64)
    values = (end[there] - begin[there]) / 1e6
    p50, p99 = np.full(len(starts), np.nan), np.full(len(starts), np.nan)
    for index in range(len(starts)):
        inside = values[which == index]
        if len(inside):
            p50[index], p99[index] = np.quantile(inside, [0.5, 0.99], method="higher")
    return starts, p50, p99
