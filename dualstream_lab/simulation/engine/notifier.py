"""The notifiers that publish to a Redis shard, one a publisher. One kernel.

A notifier's events come to it in a known order, their acks, and leave it from the front: so its queue is a
stretch of that order, from ``first`` to ``joined``.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple

import numpy as np

from dualstream_lab import notifier_policy as policy
from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.engine.redis_shard import (
    FAILED,
    LATE,
    REFUSED,
    SUCCESS,
    Notified,
    Shard,
    serve_exchange,
)
from dualstream_lab.simulation.kernels import (
    Floats,
    Integers,
    Records,
    delay_at,
    inside,
    kernel,
    next_begin,
)

_CONNECTION, _TIMEOUT = DROPS.index("redis connection"), DROPS.index("redis timeout")
_DOWN, _FULL = DROPS.index("redis down"), DROPS.index("queue full")
_CONNECT, _CONNECTED, _MUTE, _JOIN, _PAUSED, _ARRIVAL = range(3, 9)  # what comes next, besides an end


_NOTIFIER: Final = np.dtype([
    ("first", "i8"),  # the oldest event in the queue
    ("joined", "i8"),  # the event after the newest one in the queue
    ("last", "i8"),  # the event after all that ever come
    ("begin", "i8"),  # the first event of the exchange in flight
    ("end", "i8"),  # the event after its last one
    ("sent", "f8"),  # when it was sent
    ("failures", "i8"),  # in a row
    ("recovering", "f8"),  # until when little is sent at once
    ("asks", "f8"),  # from when on it may announce what was dropped
    ("open", "?"),  # whether what joins the queue is dropped
    ("skipped", "i8"),  # the first event dropped since the last announcement, -1 for none
    ("resyncs", "i8"),  # announcements
])  # fmt: skip


class Notifiers(NamedTuple):
    """The notifiers of a shard, and what became of their events. Times are s of the plan."""

    events: Notified
    notifiers: Records  # one a publisher
    limit: int  # the most events in a queue
    queued: Integers  # by second, the longest queue


def notifiers(acked: Floats, bounds: Integers, limit: int, seconds: int) -> Notifiers:
    """Notifiers that have nothing to send yet. ``acked``: of events, by notifier; each one's begin at
    ``bounds``.
    """
    delivered, recovered, dropped = (np.full(len(acked), np.nan) for _ in range(3))
    events = Notified(acked, bounds, delivered, recovered, dropped, np.full(len(acked), -1, np.int8))
    rows = np.zeros(len(bounds) - 1, _NOTIFIER)
    rows["first"] = rows["joined"] = bounds[:-1]
    rows["last"], rows["skipped"] = bounds[1:], -1
    return Notifiers(events, rows, limit, np.zeros(seconds, np.int64))


@kernel
def drop(events: Notified, one: Any, begin: int, end: int, reason: int, now: float) -> None:
    """Give up a stretch of the events of notifier ``one``."""
    if begin < end and one.skipped < 0:
        one.skipped = begin
    events.dropped[begin:end] = now
    events.reason[begin:end] = reason


@kernel
def join(who: Notifiers, one: Any, now: float) -> None:
    """All events that are acknowledged by now come into the queue, or are dropped."""
    events, place = who.events, one.joined
    while place < one.last and events.acked[place] <= now:
        at = events.acked[place]
        place += 1
        if one.open:
            drop(events, one, place - 1, place, _DOWN, at)
            one.first = place
        elif place - one.first > who.limit:
            drop(events, one, one.first, one.first + 1, _FULL, at)
            one.first += 1
        second = int(at)
        if second < len(who.queued):
            who.queued[second] = max(who.queued[second], place - one.first)
    one.joined = place


@kernel
def begin_exchange(shard: Shard, one: Any, now: float) -> tuple[float, float, bool]:
    """Send the oldest events: (when they reach the shard, inf for never; when they are given up before that,
    inf for not; whether that is because the connection is lost).
    """
    queue = one.joined - one.first
    few = now < one.recovering
    usual = min(max(policy.LEAST_IN_EXCHANGE, queue // 4), policy.MOST_IN_EXCHANGE)
    one.begin = one.first
    one.first += min(policy.RECOVERING_IN_EXCHANGE if few else usual, queue)
    one.end, one.sent = one.first, now
    arrival = now + shard.way + delay_at(shard.modes.slow, now)
    timeout = now + shard.timeout
    lost = max(now, next_begin(shard.modes.down, now))
    if lost <= min(arrival, timeout):
        return np.inf, lost, True
    if lost <= arrival:
        return np.inf, timeout, False
    return arrival, timeout if timeout < arrival else np.inf, False


@kernel
def announce(shard: Shard, events: Notified, one: Any, now: float) -> None:
    """Name the sources of what was dropped: whoever has not received it gets it by repair."""
    if one.skipped < 0 or now < one.asks:
        return
    if inside(shard.modes.refusing, now):
        one.asks = now + policy.ANNOUNCE_PAUSE
        return
    one.resyncs += 1
    deaf = inside(shard.away, now)
    for event in range(one.skipped, one.first):
        if events.reason[event] >= 0 and not deaf:
            events.recovered[event] = now + shard.repair
    one.skipped = -1


@kernel
def on_failure(who: Notifiers, one: Any, now: float) -> tuple[int, float]:
    """Count one more failure: (what comes next, which is to connect; when)."""
    one.failures += 1
    one.recovering = np.inf
    join(who, one, now)
    if one.failures < policy.MAX_FAILURES:
        return _CONNECT, now + policy.RETRY_PAUSE
    drop(who.events, one, one.first, one.joined, _DOWN, now)
    one.first = one.joined
    one.open = True
    return _CONNECT, now + policy.OPEN_FOR


@kernel
def connect(shard: Shard, who: Notifiers, one: Any, now: float) -> tuple[int, float]:
    """Try to connect: (what comes next, when)."""
    modes = shard.modes
    if inside(modes.down, now):
        return on_failure(who, one, now)
    if inside(modes.mute, now):
        return _MUTE, now + shard.timeout
    there = now + shard.way + delay_at(modes.slow, now)
    return _CONNECTED, there + shard.way + delay_at(modes.slow, there)


@kernel
def proceed(shard: Shard, who: Notifiers, one: Any, action: int, now: float) -> tuple[int, float]:
    """Do what was due of a notifier, which has no exchange in flight then: (what comes next, when); -1 if it
    may send one.
    """
    events = who.events
    if action == _CONNECT:
        return connect(shard, who, one, now)
    if action in (FAILED, LATE, _MUTE):
        if action != _MUTE:
            drop(events, one, one.begin, one.end, _CONNECTION if action == FAILED else _TIMEOUT, now)
        return on_failure(who, one, now)
    join(who, one, now)
    one.open = False
    if action == SUCCESS:
        few = one.sent < one.recovering
        if one.failures:
            one.failures, one.recovering = 0, now + policy.RECOVERING_FOR
        for place in range(one.begin, one.end):
            if events.reason[place] == REFUSED:
                drop(events, one, place, place + 1, REFUSED, now)
        announce(shard, events, one, now)
        if few:
            return _PAUSED, now + min(now - one.sent, policy.RECOVERING_PAUSE)
    return -1, now


@kernel
def notify(shard: Shard, who: Notifiers) -> None:
    """Run it all, until nothing is queued or on its way; fills ``who.events``."""
    events, exchanges = who.events, 0
    # (time; what; which notifier, or of exchanges that arrive, which in turn; its notifier, events and time
    # of sending).
    coming = [
        (events.acked[one.first], _JOIN, number, number, 0, 0, 0.0)
        for number, one in enumerate(who.notifiers)
        if one.first < one.last
    ]
    heapify(coming)
    while coming:
        now, action, _, number, begin, end, sent = heappop(coming)
        one = who.notifiers[number]
        if action == _ARRIVAL:
            how, at = serve_exchange(shard, events, begin, end, sent, now)
            if sent + shard.timeout >= now:  # else it has been given up
                heappush(coming, (at, how, number, number, 0, 0, 0.0))
            continue
        action, at = proceed(shard, who, one, action, now)
        if action >= 0:
            heappush(coming, (at, action, number, number, 0, 0, 0.0))
        elif one.first < one.joined:
            at, given_up, lost = begin_exchange(shard, one, now)
            if given_up < np.inf:
                heappush(coming, (given_up, FAILED if lost else LATE, number, number, 0, 0, 0.0))
            if at < np.inf:
                heappush(coming, (at, _ARRIVAL, exchanges, number, one.begin, one.end, now))
                exchanges += 1
        elif one.joined < one.last:
            heappush(coming, (events.acked[one.joined], _JOIN, number, number, 0, 0, 0.0))
