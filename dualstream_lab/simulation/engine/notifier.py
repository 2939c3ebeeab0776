"""The notifiers that publish to a Redis shard, one a publisher. One kernel.

A notifier's events come to it in a known order, their acks, and leave it from the front: so its queue is a
stretch of that order, from ``first`` to ``joined``.
"""

from __future__ import annotations

from typing import NamedTuple

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
    Flags,
    Floats,
    Integers,
    delay_at,
    inside,
    kernel,
    next_begin,
    pop,
    push,
)

_CONNECTION, _TIMEOUT = DROPS.index("redis connection"), DROPS.index("redis timeout")
_DOWN, _FULL = DROPS.index("redis down"), DROPS.index("queue full")
_CONNECT, _CONNECTED, _MUTE, _JOIN, _PAUSED, _ARRIVAL = range(3, 9)  # what comes next, besides an end


class Notifiers(NamedTuple):
    """Their state. ``first``, ``joined``: the queue. ``begin``, ``end``, ``sent``: the exchange in flight.

    ``failures`` in a row; ``recovering``: until when little is sent at once; ``asks``: from when on it may
    announce; ``open``: what joins is dropped; ``skipped``: the first that was dropped since the last
    announcement, -1 for none; ``resyncs``: announcements. By second: ``queued``, the longest queue.
    """

    events: Notified
    first: Integers
    joined: Integers
    begin: Integers
    end: Integers
    sent: Floats
    failures: Integers
    recovering: Floats
    asks: Floats
    open: Flags
    skipped: Integers
    resyncs: Integers
    limit: int
    queued: Integers


def notifiers(events: Notified, limit: int, seconds: int) -> Notifiers:
    """Notifiers that have nothing to send yet."""
    number = len(events.bounds) - 1
    begin, end, failures, resyncs = np.zeros((4, number), np.int64)
    sent, recovering, asks = np.zeros((3, number))
    return Notifiers(
        events=events, first=events.bounds[:-1].copy(), joined=events.bounds[:-1].copy(), begin=begin,
        end=end, sent=sent, failures=failures, recovering=recovering, asks=asks,
        open=np.zeros(number, np.bool_), skipped=np.full(number, -1), resyncs=resyncs, limit=limit,
        queued=np.zeros(seconds, np.int64),
    )  # fmt: skip


@kernel
def drop(who: Notifiers, number: int, begin: int, end: int, reason: int, now: float) -> None:
    """Give up a stretch."""
    if begin < end and who.skipped[number] < 0:
        who.skipped[number] = begin
    who.events.dropped[begin:end] = now
    who.events.reason[begin:end] = reason


@kernel
def join(who: Notifiers, number: int, now: float) -> None:
    """All that are acknowledged by now."""
    acked = who.events.acked
    place, last = who.joined[number], who.events.bounds[number + 1]
    while place < last and acked[place] <= now:
        at = acked[place]
        place += 1
        if who.open[number]:
            drop(who, number, place - 1, place, _DOWN, at)
            who.first[number] = place
        elif place - who.first[number] > who.limit:
            drop(who, number, who.first[number], who.first[number] + 1, _FULL, at)
            who.first[number] += 1
        second = int(at)
        if second < len(who.queued):
            who.queued[second] = max(who.queued[second], place - who.first[number])
    who.joined[number] = place


@kernel
def begin_exchange(shard: Shard, who: Notifiers, number: int, now: float) -> tuple[float, float, bool]:
    """Send the oldest: (when it reaches the shard, inf for never; when it is given up before, inf for not;
    whether that is for its connection's sake).
    """
    queue = who.joined[number] - who.first[number]
    few = now < who.recovering[number]
    usual = min(max(policy.LEAST_IN_EXCHANGE, queue // 4), policy.MOST_IN_EXCHANGE)
    count = min(policy.RECOVERING_IN_EXCHANGE if few else usual, queue)
    who.begin[number] = who.first[number]
    who.first[number] += count
    who.end[number], who.sent[number] = who.first[number], now
    arrival = now + shard.way + delay_at(shard.modes.slow, now)
    timeout = now + shard.timeout
    lost = max(now, next_begin(shard.modes.down, now))
    if lost <= min(arrival, timeout):
        return np.inf, lost, True
    if lost <= arrival:
        return np.inf, timeout, False
    return arrival, timeout if timeout < arrival else np.inf, False


@kernel
def announce(shard: Shard, who: Notifiers, number: int, now: float) -> None:
    """Name the sources of what was dropped: whoever has not received it gets it by repair."""
    if who.skipped[number] < 0 or now < who.asks[number]:
        return
    if inside(shard.modes.refusing, now):
        who.asks[number] = now + policy.ANNOUNCE_PAUSE
        return
    who.resyncs[number] += 1
    deaf = inside(shard.away, now)
    for event in range(who.skipped[number], who.first[number]):
        if who.events.reason[event] >= 0 and not deaf:
            who.events.recovered[event] = now + shard.repair
    who.skipped[number] = -1


@kernel
def on_failure(who: Notifiers, number: int, now: float) -> tuple[int, float]:
    """One more; when it connects: (what comes next, when)."""
    who.failures[number] += 1
    who.recovering[number] = np.inf
    join(who, number, now)
    if who.failures[number] < policy.MAX_FAILURES:
        return _CONNECT, now + policy.RETRY_PAUSE
    drop(who, number, who.first[number], who.joined[number], _DOWN, now)
    who.first[number] = who.joined[number]
    who.open[number] = True
    return _CONNECT, now + policy.OPEN_FOR


@kernel
def connect(shard: Shard, who: Notifiers, number: int, now: float) -> tuple[int, float]:
    """Try to: (what comes next, when)."""
    modes = shard.modes
    if inside(modes.down, now):
        return on_failure(who, number, now)
    if inside(modes.mute, now):
        return _MUTE, now + shard.timeout
    there = now + shard.way + delay_at(modes.slow, now)
    return _CONNECTED, there + shard.way + delay_at(modes.slow, there)


@kernel
def proceed(shard: Shard, who: Notifiers, one: int, action: int, now: float) -> tuple[int, float]:
    """What was next of a notifier happens, no exchange is in flight then: (what is next, when); -1 if it may
    send one.
    """
    if action == _CONNECT:
        return connect(shard, who, one, now)
    if action in (FAILED, LATE, _MUTE):
        if action != _MUTE:
            drop(who, one, who.begin[one], who.end[one], _CONNECTION if action == FAILED else _TIMEOUT, now)
        return on_failure(who, one, now)
    join(who, one, now)
    who.open[one] = False
    if action == SUCCESS:
        few = who.sent[one] < who.recovering[one]
        if who.failures[one]:
            who.failures[one], who.recovering[one] = 0, now + policy.RECOVERING_FOR
        for place in range(who.begin[one], who.end[one]):
            if who.events.reason[place] == REFUSED:
                drop(who, one, place, place + 1, REFUSED, now)
        announce(shard, who, one, now)
        if few:
            return _PAUSED, now + min(now - who.sent[one], policy.RECOVERING_PAUSE)
    return -1, now


@kernel
def notify(shard: Shard, who: Notifiers) -> None:
    """Run it all, until nothing is queued or on its way; fills ``who.events``."""
    events, number = who.events, len(who.first)
    # Of exchanges on their way, in turn: many are only where they are given up long before they arrive.
    turns = number * 64
    whose, begins, ends = np.empty(turns, np.int64), np.empty(turns, np.int64), np.empty(turns, np.int64)
    sents = np.empty(turns)
    times, codes = np.empty(turns + number), np.empty(turns + number, np.int64)
    turn = coming = 0
    for one in np.flatnonzero(events.bounds[:-1] < events.bounds[1:]):
        code = int(_JOIN * number + one)
        coming = push(times, codes, coming, events.acked[events.bounds[one]], code)
    while coming:
        now, action, one = times[0], codes[0] // number, codes[0] % number
        exchange = codes[0] - _ARRIVAL * number
        coming = pop(times, codes, coming)
        if exchange >= 0:
            how, at = serve_exchange(shard, events, begins[exchange], ends[exchange], sents[exchange], now)
            if sents[exchange] + shard.timeout >= now:  # else it has been given up
                coming = push(times, codes, coming, at, how * number + whose[exchange])
            continue
        action, at = proceed(shard, who, one, action, now)
        if action >= 0:
            coming = push(times, codes, coming, at, action * number + one)
        elif who.first[one] < who.joined[one]:
            at, given_up, lost = begin_exchange(shard, who, one, now)
            if given_up < np.inf:
                coming = push(times, codes, coming, given_up, (FAILED if lost else LATE) * number + one)
            if at < np.inf:
                whose[turn], begins[turn], ends[turn], sents[turn] = one, who.begin[one], who.end[one], now
                coming = push(times, codes, coming, at, _ARRIVAL * number + turn)
                turn = (turn + 1) % turns
        elif who.joined[one] < events.bounds[one + 1]:
            at = events.acked[who.joined[one]]
            coming = push(times, codes, coming, at, _JOIN * number + one)
