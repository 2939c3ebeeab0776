"""A gateway's loop, and the beat at which its clients are written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dualstream_lab.simulation.compiled import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["hand_out"]


@kernel
def hand_out(heard: Floats, service: float, tick: float, busy: Floats) -> Floats:
    """When clients have each notification. ``heard``: when the gateway has it, ascending. ``service``: s of
    its loop for each; ``tick``: they are written at its multiples, or at once if it is 0.
    """
    read = np.empty(len(heard))
    free = 0.0
    for place in range(len(heard)):
        begin = max(free, heard[place])
        free = begin + service
        read[place] = np.ceil(free / tick) * tick if tick > 0 else free
        if int(begin) < len(busy):
            busy[int(begin)] += service
    return read
