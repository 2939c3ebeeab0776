"""What the model's loops are made of: machine code, a heap of what comes next, spans of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
F = TypeVar("F", bound="Callable[..., object]")


def kernel(function: F) -> F:
    """Compile a plain function of arrays and numbers. What it gives is the same on every machine: no fast
    mathematics, one thread. The code is kept beside the module, so only the first run compiles.

    Whoever changes a kernel removes ``__pycache__`` here: one that is called from another module is
    compiled into its caller, which does not notice.
    """
    # numba has no types: the function keeps its own, which is what it is called with
    return numba.njit(function, cache=True, fastmath=False)  # type: ignore[no-any-return]


# A binary heap of what comes next: (time, code), earliest first; at one time the smaller code


@kernel
def push(times: Floats, codes: Integers, count: int, time: float, code: int) -> int:
    """Add one to the ``count`` that there are; their number then."""
    place = count
    while place > 0:
        above = (place - 1) >> 1
        if times[above] < time or (times[above] == time and codes[above] <= code):
            break
        times[place], codes[place] = times[above], codes[above]
        place = above
    times[place], codes[place] = time, code
    return count + 1


@kernel
def pop(times: Floats, codes: Integers, count: int) -> int:
    """Remove the first, ``times[0]`` and ``codes[0]``; how many are left."""
    count -= 1
    time, code = times[count], codes[count]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        right = below + 1
        if right < count and (
            times[right] < times[below] or (times[right] == times[below] and codes[right] < codes[below])
        ):
            below = right
        if time < times[below] or (time == times[below] and code <= codes[below]):
            break
        times[place], codes[place] = times[below], codes[below]
        place = below
    times[place], codes[place] = time, code
    return count


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
