"""The notifiers that publish to a Redis shard, one a publisher. One kernel.

A notifier's events come to it in a known order, their acks, and leave it from the front: so its queue is a
stretch of that order, from ``first`` to ``joined``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.engine.heap import pop, push
from dualstream_lab.simulation.engine.redis_shard import (
    FAILED,
    LATE,
    REFUSED,
    SUCCESS,
    Joined,
    Shard,
    serve_exchange,
)
from dualstream_lab.simulation.engine.spans import delay_at, inside
from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

__all__ = ["Notifiers", "notifiers", "notify"]

_CONNECTION: Final = DROPS.index("redis connection")
_TIMEOUT: Final = DROPS.index("redis timeout")
_DOWN: Final = DROPS.index("redis down")
_FULL: Final = DROPS.index("queue full")
_LEAST, _MOST = 1000, 4000  # notifications in one exchange
_FAILURES = 5
_BREAK = 1.5  # s
_RETRY = 0.05  # s after a failure
_ASK = 0.5  # s after an announcement was refused
_GENTLE, _GENTLE_FOR, _REST = 250, 1.0, 0.005  # in trouble and so long after it: so many, and then a rest
_CONNECT, _CONNECTED, _MUTE, _JOIN, _RESTED, _ARRIVAL = range(3, 9)  # what comes next, besides an end


class Notifiers(NamedTuple):
    """Their state. ``first``, ``joined``: the queue. ``begin``, ``end``, ``sent``: the exchange in flight.

    ``failures`` in a row; ``gentle``: until when little is sent at once; ``asks``: from when on it may
    announce; ``broken``: what joins is dropped; ``skipped``: the first that was dropped since the last
    announcement, -1 for none; ``resyncs``: announcements. By second: ``queued``, the longest queue.
    """

    first: Integers
    joined: Integers
    begin: Integers
    end: Integers
    sent: Floats
    failures: Integers
    gentle: Floats
    asks: Floats
    broken: Flags
    skipped: Integers
    resyncs: Integers
    limit: int
    queued: Integers


def notifiers(bounds: Integers, limit: int, seconds: int) -> Notifiers:
    """Nothing yet."""
    number = len(bounds) - 1

    def zeros(count: int) -> Integers:
        return np.zeros(count, np.int64)

    return Notifiers(
        first=bounds[:-1].copy(), joined=bounds[:-1].copy(), begin=zeros(number), end=zeros(number),
        sent=np.zeros(number), failures=zeros(number), gentle=np.zeros(number), asks=np.zeros(number),
        broken=np.zeros(number, np.bool_), skipped=zeros(number) - 1, resyncs=zeros(number), limit=limit,
        queued=zeros(seconds),
    )  # fmt: skip


@kernel
def drop(joined: Joined, who: Notifiers, number: int, begin: int, end: int, reason: int, now: float) -> None:
    """Give up a stretch."""
    if begin < end and who.skipped[number] < 0:
        who.skipped[number] = begin
    for place in range(begin, end):
        joined.dropped[place] = now
        joined.reason[place] = reason


@kernel
def join(joined: Joined, who: Notifiers, number: int, now: float) -> None:
    """All that are acknowledged by now."""
    place, last = who.joined[number], joined.bounds[number + 1]
    while place < last and joined.acked[place] <= now:
        at = joined.acked[place]
        place += 1
        if who.broken[number]:
            drop(joined, who, number, place - 1, place, _DOWN, at)
            who.first[number] = place
        elif place - who.first[number] > who.limit:
            drop(joined, who, number, who.first[number], who.first[number] + 1, _FULL, at)
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
    gently = now < who.gentle[number]
    count = min(_GENTLE if gently else min(max(_LEAST, queue // 4), _MOST), queue)
    who.begin[number] = who.first[number]
    who.first[number] += count
    who.end[number], who.sent[number] = who.first[number], now
    arrival = now + shard.way + delay_at(shard.slow, now)
    timeout = now + shard.timeout
    place = np.searchsorted(shard.down_ends, now, side="right")
    if place < len(shard.down_ends):
        lost = max(now, shard.down_begins[place])
        if lost <= min(arrival, timeout):
            return np.inf, lost, True
        if lost <= arrival:
            return np.inf, timeout, False
    return arrival, timeout if timeout < arrival else np.inf, False


@kernel
def announce(shard: Shard, joined: Joined, who: Notifiers, number: int, now: float) -> None:
    """Name the sources of what was dropped: whoever has not heard it gets it by repair."""
    if who.skipped[number] < 0 or now < who.asks[number]:
        return
    if inside(shard.refusing_begins, shard.refusing_ends, now):
        who.asks[number] = now + _ASK
        return
    who.resyncs[number] += 1
    deaf = inside(shard.away_begins, shard.away_ends, now)
    for event in range(who.skipped[number], who.first[number]):
        if joined.reason[event] >= 0 and not deaf:
            joined.late[event] = now + shard.repair
    who.skipped[number] = -1


@kernel
def trouble(joined: Joined, who: Notifiers, number: int, now: float) -> bool:
    """One more failure; whether the breaker is open now."""
    who.failures[number] += 1
    who.gentle[number] = np.inf
    join(joined, who, number, now)
    if who.failures[number] < _FAILURES:
        return False
    drop(joined, who, number, who.first[number], who.joined[number], _DOWN, now)
    who.first[number] = who.joined[number]
    who.broken[number] = True
    return True


@kernel
def connect(shard: Shard, joined: Joined, who: Notifiers, number: int, now: float) -> tuple[int, float]:
    """Try to connect: (what comes next, when)."""
    if inside(shard.down_begins, shard.down_ends, now):
        return _CONNECT, now + (_BREAK if trouble(joined, who, number, now) else _RETRY)
    if inside(shard.mute_begins, shard.mute_ends, now):
        return _MUTE, now + shard.timeout
    there = now + shard.way + delay_at(shard.slow, now)
    return _CONNECTED, there + shard.way + delay_at(shard.slow, there)


@kernel
def proceed(
    shard: Shard, joined: Joined, who: Notifiers, one: int, what: int, now: float
) -> tuple[int, float]:
    """What was next of a notifier happens, no exchange is in flight then: (what is next, when); -1 if it may
    send one.
    """
    if what == _CONNECT:
        return connect(shard, joined, who, one, now)
    if what in (FAILED, LATE, _MUTE):
        if what != _MUTE:
            reason = _CONNECTION if what == FAILED else _TIMEOUT
            drop(joined, who, one, who.begin[one], who.end[one], reason, now)
        return _CONNECT, now + (_BREAK if trouble(joined, who, one, now) else _RETRY)
    join(joined, who, one, now)
    who.broken[one] = False
    if what == SUCCESS:
        gently = who.sent[one] < who.gentle[one]
        if who.failures[one]:
            who.failures[one], who.gentle[one] = 0, now + _GENTLE_FOR
        for place in range(who.begin[one], who.end[one]):
            if joined.reason[place] == REFUSED:
                drop(joined, who, one, place, place + 1, REFUSED, now)
        announce(shard, joined, who, one, now)
        if gently:
            return _RESTED, now + min(now - who.sent[one], _REST)
    return -1, now


@kernel
def notify(shard: Shard, joined: Joined, who: Notifiers) -> None:
    """Run it all, until nothing is queued or on its way; fills ``joined``."""
    number = len(who.first)
    # Of exchanges on their way, in turn: many are only where they are given up long before they arrive.
    turns = number * 64
    whose, begins, ends = np.empty(turns, np.int64), np.empty(turns, np.int64), np.empty(turns, np.int64)
    sents = np.empty(turns)
    times, codes = np.empty(turns + number), np.empty(turns + number, np.int64)
    turn = coming = 0
    for one in np.flatnonzero(joined.bounds[:-1] < joined.bounds[1:]):
        code = int(_JOIN * number + one)
        coming = push(times, codes, coming, joined.acked[joined.bounds[one]], code)
    while coming:
        now, what, one = times[0], codes[0] // number, codes[0] % number
        exchange = codes[0] - _ARRIVAL * number
        coming = pop(times, codes, coming)
        if exchange >= 0:
            how, at = serve_exchange(shard, joined, begins[exchange], ends[exchange], sents[exchange], now)
            if sents[exchange] + shard.timeout >= now:  # else it has been given up
                coming = push(times, codes, coming, at, how * number + whose[exchange])
            continue
        what, at = proceed(shard, joined, who, one, what, now)
        if what >= 0:
            coming = push(times, codes, coming, at, what * number + one)
        elif who.first[one] < who.joined[one]:
            at, given_up, lost = begin_exchange(shard, who, one, now)
            if given_up < np.inf:
                coming = push(times, codes, coming, given_up, (FAILED if lost else LATE) * number + one)
            if at < np.inf:
                whose[turn], begins[turn], ends[turn], sents[turn] = one, who.begin[one], who.end[one], now
                coming = push(times, codes, coming, at, _ARRIVAL * number + turn)
                turn = (turn + 1) % turns
        elif who.joined[one] < joined.bounds[one + 1]:
            at = joined.acked[who.joined[one]]
            coming = push(times, codes, coming, at, _JOIN * number + one)
