"""Those who read, one after the other: a gateway's loop with its beat, and a consumer's polls. Kernels."""

from __future__ import annotations

from typing import Final

import numpy as np

from dualstream_lab.simulation.kernels import Floats, kernel

AWAY: Final = 0.5  # seconds until a gateway whose connection was closed has another one
_MOST: Final = 10_000  # records a poll


@kernel
def hand_out(
    arrived: Floats, service: float, tick: float, limit: float, utilization: Floats
) -> tuple[Floats, Floats]:
    """When clients have each notification, NaN for never; and for those, when the gateway is connected again.

    ``arrived``: when the gateway can have it, ascending. ``service``: s of its loop for each; ``tick``: they
    are written at its multiples, or at once if it is 0. With ``limit`` that it has not taken, Redis closes
    its connection: all of these are lost, and what comes until it has another one. ``utilization``: by
    second; s are added.
    """
    read, back = np.full(len(arrived), np.nan), np.full(len(arrived), np.nan)
    taken, begin = np.empty(len(arrived), np.int64), np.empty(len(arrived))
    count = first = 0
    free = again = 0.0
    for place in range(len(arrived)):
        now = arrived[place]
        while first < count and begin[first] <= now:
            first += 1
        if now >= again and count - first >= limit:
            again = now + AWAY
            back[taken[first:count]] = again
            count = first
            free = begin[first - 1] + service if first else 0.0
        if now < again:
            back[place] = again
            continue
        taken[count], begin[count] = place, max(free, now)
        free = begin[count] + service
        count += 1
    for turn in range(count):
        end = begin[turn] + service
        read[taken[turn]] = np.ceil(end / tick) * tick if tick > 0 else end
        if int(begin[turn]) < len(utilization):
            utilization[int(begin[turn])] += service
    return read, back


@kernel
def poll(readable: Floats, cost: float, record: float, utilization: Floats) -> Floats:
    """When each record is consumed. ``readable``: when it can be, ascending. A poll of n takes ``cost`` +
    n x ``record`` s, after it has them. ``utilization``: by second; s of work are added.
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
        if int(now) < len(utilization):
            utilization[int(now)] += free - now
        first = last
    return consumed
