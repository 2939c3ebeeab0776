"""A Redis shard: it serves one exchange after the other. Kernels."""

from __future__ import annotations

from typing import Final, NamedTuple

from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.kernels import (
    Floats,
    Int8,
    Integers,
    delay_at,
    done_at,
    inside,
    kernel,
    next_begin,
    spread,
)
from dualstream_lab.simulation.outages import Modes, Spans
from dualstream_lab.simulation.random_draws import Noise

REFUSED: Final = DROPS.index("redis refused")
SUCCESS, FAILED, LATE = range(3)  # how an exchange ends


class Shard(NamedTuple):
    """A Redis server. Times are s."""

    number: int
    exchange: float  # work for each exchange
    each: float  # work for each notification, with all its receivers
    way: float  # from a notifier to the server, and as long back
    receive_delay: float  # from the server's write to a subscriber's read
    repair: float  # from an announcement until those who missed the event have it
    timeout: float  # of an exchange
    noise: Noise
    modes: Modes
    away: Spans  # when no subscriber is connected
    free: Floats  # one value: when it has done all that it has
    served: Integers  # one value: how many exchanges it has begun
    utilization: Floats  # by second, s of work


class Notified(NamedTuple):
    """Durable events in the order of their acks, notifier by notifier. Times are s of the plan, NaN for
    never.
    """

    acked: Floats
    bounds: Integers  # where each notifier's events begin
    delivered: Floats  # live
    recovered: Floats  # by repair
    dropped: Floats  # when the notification was given up
    reason: Int8  # why, as in ``Outcome``; -1 where it was not


@kernel
def serve_exchange(
    shard: Shard, events: Notified, begin: int, end: int, sent: float, now: float
) -> tuple[int, float]:
    """An exchange reaches the shard: (how it ends, when)."""
    modes = shard.modes
    lost, timeout = next_begin(modes.down, now), sent + shard.timeout
    failure = (FAILED, lost) if lost <= timeout else (LATE, timeout)
    start = max(now, shard.free[0])
    if start >= lost:
        return failure
    table, number = shard.noise.table, shard.noise.starts[shard.number] + shard.served[0]
    factor = table[number % len(table)]
    shard.served[0] += 1
    work = factor * (shard.exchange + shard.each * (end - begin))
    done = done_at(modes.mute, start, work)
    shard.free[0] = min(done, lost)
    spread(shard.utilization, start, shard.free[0], work)
    straight = done == start + work
    alone = next_begin(shard.away, start) <= done
    for event in range(begin, end):
        part = factor * (shard.exchange + shard.each * (event - begin + 1))
        write = start + part if straight else done_at(modes.mute, start, part)
        if write > lost:
            break
        if inside(modes.refusing, write):
            if events.reason[event] < 0:  # else it has been given up
                events.reason[event] = REFUSED
        elif not (alone and inside(shard.away, write)):
            events.delivered[event] = write + shard.receive_delay + delay_at(modes.slow, write)
    if done > lost:
        return failure
    answer = done + shard.way + delay_at(modes.slow, done)
    return (SUCCESS, answer) if answer <= timeout else (LATE, timeout)
