"""A publisher's loop: one call after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dualstream_lab.simulation.compiled import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["serve"]


@kernel
def serve(
    intended: Floats, publishers: int, service: float, after: float, busy: Floats
) -> tuple[Floats, Floats]:
    """(when each call's service begins, when it ends). Call k belongs to publisher k mod ``publishers``.

    ``intended``: never falling, s. ``service``: s a call; ``after``: s that the loop is held up after it.
    ``busy``: (publishers, seconds); work is added, s.
    """
    begin, end = np.empty(len(intended)), np.empty(len(intended))
    free = np.zeros(publishers)
    for call in range(len(intended)):
        publisher = call % publishers
        begin[call] = max(intended[call], free[publisher])
        end[call] = begin[call] + service
        free[publisher] = end[call] + after
        second = int(begin[call])
        if second < busy.shape[1]:
            busy[publisher, second] += service + after
    return begin, end
