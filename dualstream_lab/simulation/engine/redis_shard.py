"""A Redis shard: it serves one exchange after the other. Kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.engine.spans import delay_at, done_at, inside, spread
from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["FAILED", "LATE", "REFUSED", "SUCCESS", "Joined", "Shard", "serve_exchange"]

REFUSED: Final = DROPS.index("redis refused")
SUCCESS, FAILED, LATE = range(3)  # how an exchange ends


class Shard(NamedTuple):
    """The server. Times in s.

    ``exchange``: cost; ``each``: of a notification, with all its receivers; ``way``: half the trip; ``hear``:
    from the write to the read; ``repair``: from an announcement to the event; ``timeout``: of an exchange.
    ``table``, ``start``: factors of service times. ``down``, ``mute``, ``refusing``, ``away``: begins and
    ends. ``free``: when it has done all that it has; ``served``: exchanges that it has begun. ``busy``: by
    second.
    """

    exchange: float
    each: float
    way: float
    hear: float
    repair: float
    timeout: float
    table: Floats
    start: int
    down_begins: Floats
    down_ends: Floats
    mute_begins: Floats
    mute_ends: Floats
    refusing_begins: Floats
    refusing_ends: Floats
    away_begins: Floats
    away_ends: Floats
    slow: Floats
    free: Floats
    served: Integers
    busy: Floats


class Joined(NamedTuple):
    """Durable events in the order in which they join, notifier by notifier; ``bounds``: where each begins.

    ``heard`` is live, ``late`` by repair, ``dropped`` when it was given up, and ``reason`` why; NaN and -1
    for never.
    """

    acked: Floats
    bounds: Integers
    heard: Floats
    late: Floats
    dropped: Floats
    reason: npt.NDArray[np.int8]


@kernel
def serve_exchange(
    shard: Shard, joined: Joined, begin: int, end: int, sent: float, now: float
) -> tuple[int, float]:
    """An exchange reaches the shard: (how it ends, when)."""
    lost = np.inf
    place = np.searchsorted(shard.down_ends, now, side="right")
    if place < len(shard.down_ends):
        lost = shard.down_begins[place]
    timeout = sent + shard.timeout
    failure = (FAILED, lost) if lost <= timeout else (LATE, timeout)
    start = max(now, shard.free[0])
    if start >= lost:
        return failure
    factor = shard.table[(shard.start + shard.served[0]) % len(shard.table)]
    shard.served[0] += 1
    work = factor * (shard.exchange + shard.each * (end - begin))
    done = done_at(shard.mute_begins, shard.mute_ends, start, work)
    shard.free[0] = min(done, lost)
    spread(shard.busy, start, shard.free[0], work)
    straight = done == start + work
    place = np.searchsorted(shard.away_ends, start, side="right")
    alone = place < len(shard.away_ends) and shard.away_begins[place] <= done
    for event in range(begin, end):
        part = factor * (shard.exchange + shard.each * (event - begin + 1))
        write = start + part if straight else done_at(shard.mute_begins, shard.mute_ends, start, part)
        if write > lost:
            break
        if inside(shard.refusing_begins, shard.refusing_ends, write):
            if joined.reason[event] < 0:  # else it has been given up
                joined.reason[event] = REFUSED
        elif not (alone and inside(shard.away_begins, shard.away_ends, write)):
            joined.heard[event] = write + shard.hear + delay_at(shard.slow, write)
    if done > lost:
        return failure
    answer = done + shard.way + delay_at(shard.slow, done)
    return (SUCCESS, answer) if answer <= timeout else (LATE, timeout)
