"""A member of the group that reads Kafka: poll after poll."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["poll"]

_MOST: Final = 10_000  # records a poll


@kernel
def poll(readable: Floats, cost: float, record: float, busy: Floats) -> Floats:
    """When each record is consumed. ``readable``: when it can be, ascending. A poll of n takes ``cost`` +
    n x ``record`` s, after it has them. ``busy``: by second; s of work are added.
    """
    consumed = np.empty(len(readable))
    free, first = 0.0, 0
    while first < len(readable):
        now = max(free, readable[first])
        last = first
        while last < len(readable) and readable[last] <= now and last - first < _MOST:
            consumed[last] = now
            last += 1
        free = now + cost + (last - first) * record
        if int(now) < len(busy):
            busy[int(now)] += free - now
        first = last
    return consumed
