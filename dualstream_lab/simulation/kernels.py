"""What the model's loops are made of: machine code, and spans of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Int8: TypeAlias = npt.NDArray[np.int8]
Counts: TypeAlias = npt.NDArray[np.uint32]
Array: TypeAlias = npt.NDArray[Any]
Records: TypeAlias = Array  # structured: within kernels, a row's fields are its attributes
F = TypeVar("F", bound="Callable[..., object]")


def kernel(function: F) -> F:
    """Compile a plain function of arrays and numbers. What it gives is the same on every machine: no fast
    mathematics, one thread. The code is kept beside the module, so only the first run compiles.

    Whoever changes a kernel removes ``__pycache__`` here: one that is called from another module is
    compiled into its caller, which does not notice.
    """
    # numba has no types: the function keeps its own, which is what it is called with
    return numba.njit(function, cache=True, fastmath=False)  # type: ignore[no-any-return]


# Spans of time, (n, 2): begins and ends, sorted and apart from each other


@kernel
def next_end(spans: Floats, at: float) -> int:
    """The place of the first span that ends after ``at``; ``len(spans)`` for none."""
    return int(np.searchsorted(spans[:, 1], at, side="right"))


@kernel
def inside(spans: Floats, at: float) -> bool:
    """Whether a span covers ``at``; its begin belongs to it, its end does not."""
    place = next_end(spans, at)
    return bool(place < len(spans) and spans[place, 0] <= at)


@kernel
def next_begin(spans: Floats, at: float) -> float:
    """When the span that covers ``at``, or the one after it, begins; inf for none."""
    place = next_end(spans, at)
    return float(spans[place, 0]) if place < len(spans) else np.inf


@kernel
def done_at(spans: Floats, begin: float, work: float) -> float:
    """When ``work`` seconds of work are done that begin at ``begin``, as nothing is done within the spans."""
    now = begin
    for place in range(next_end(spans, begin), len(spans)):
        if spans[place, 0] >= now + work:
            break
        if spans[place, 0] > now:
            work -= spans[place, 0] - now
        now = spans[place, 1]
    return now + work


@kernel
def delay_at(slow: Floats, at: float) -> float:
    """The delay of what leaves at ``at``; ``slow``: (n, 3), begin, end and delay."""
    for place in range(len(slow)):
        if slow[place, 0] <= at < slow[place, 1]:
            return float(slow[place, 2])
    return 0.0


@kernel
def spread(utilization: Floats, begin: float, end: float, work: float) -> None:
    """Add ``work`` seconds, done evenly from ``begin`` to ``end``, to the seconds of ``utilization``."""
    first, last = int(begin), int(end)
    if first >= len(utilization):
        return
    if last == first:
        utilization[first] += work
        return
    rate = work / (end - begin)
    for second in range(first, min(last, len(utilization) - 1) + 1):
        utilization[second] += rate * (min(end, second + 1.0) - max(begin, float(second)))
