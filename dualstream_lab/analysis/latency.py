"""Latency statistics of rows. Times in are ns, statistics out are ms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Latency", "latency", "latency_ms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles of a latency, ms; NaN where there is none."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


def latency(begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Latency:
    """From ``begin`` to ``end`` in ns, of the rows that have an end (not 0)."""
    there = end > 0
    return latency_ms((end[there] - begin[there]) / 1e6)


def latency_ms(values: npt.NDArray[np.floating]) -> Latency:
    """Of these values in ms; NaN, "never", is left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Latency(count=0, p50=np.nan, p99=np.nan, p999=np.nan, max=np.nan)
    p50, p99, p999 = (float(value) for value in np.quantile(values, [0.5, 0.99, 0.999], method="higher"))
    return Latency(count=len(values), p50=p50, p99=p99, p999=p999, max=float(values.max()))
