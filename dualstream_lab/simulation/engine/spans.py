"""Kernels on spans of time, sorted and apart from each other: (begins, ends)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["delay_at", "done_at", "inside", "spread"]


@kernel
def inside(begins: Floats, ends: Floats, at: float) -> bool:
    """Whether a span covers ``at``; its begin belongs to it, its end does not."""
    place = np.searchsorted(ends, at, side="right")
    return bool(place < len(ends) and begins[place] <= at)


@kernel
def done_at(begins: Floats, ends: Floats, begin: float, work: float) -> float:
    """When ``work`` seconds of work are done that begin at ``begin``, as nothing is done within the spans."""
    place = np.searchsorted(ends, begin, side="right")
    now = begin
    while place < len(ends) and begins[place] < now + work:
        if begins[place] > now:
            work -= begins[place] - now
        now = ends[place]
        place += 1
    return now + work


@kernel
def delay_at(slow: Floats, at: float) -> float:
    """The delay of what leaves at ``at``; ``slow``: (n, 3), begin, end and delay."""
    for place in range(len(slow)):
        if slow[place, 0] <= at < slow[place, 1]:
            return float(slow[place, 2])
    return 0.0


@kernel
def spread(busy: Floats, begin: float, end: float, work: float) -> None:
    """Add ``work`` seconds, done evenly from ``begin`` to ``end``, to the seconds of ``busy``."""
    first, last = int(begin), int(end)
    if first >= len(busy):
        return
    if last == first:
        busy[first] += work
        return
    rate = work / (end - begin)
    for second in range(first, min(last, len(busy) - 1) + 1):
        busy[second] += rate * (min(end, second + 1.0) - max(begin, float(second)))
