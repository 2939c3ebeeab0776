"""A binary heap of what comes next: (time, code), earliest first; at one time the smaller code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["pop", "push"]


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
