"""Publishing: calls enter the buffer, lanes take requests from it, brokers serve them. One kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dualstream_lab.simulation.engine.event_loop import Loops, begin, encoded, following, work
from dualstream_lab.simulation.engine.heap import pop, push
from dualstream_lab.simulation.engine.publisher_queue import (
    DURABLE,
    NO_ROOM,
    REJECTED,
    UNKNOWN,
    Calls,
    Held,
    Ways,
    admit,
    again,
    ring,
    rung,
    settle,
    take,
)
from dualstream_lab.simulation.engine.spans import delay_at, done_at, inside, spread
from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["Brokers", "deliver"]

_ANSWER, _AGAIN, _ARRIVAL, _BEGIN, _ENCODED = range(5)  # what comes next: of a lane; of a publisher
_PAUSE: Final = 0.1  # s before what failed is sent again


class Brokers(NamedTuple):
    """The servers. Times in s.

    ``request``, ``batch``, ``record``, ``byte``: costs; ``way``: half the trip; ``replica``: the wait for
    copies. ``table``, ``starts``: factors of service times. ``stops``: begins and ends of those of all
    brokers, ``bounds``: where each broker's begin. ``down``, ``moved``: spans of broker 0; ``others``:
    when the other ones are down; ``slow``: of all.
    ``free``: when each has done all that it has; ``served``: how many requests it has begun; ``ends``: by
    partition, records in its log; ``busy``: (brokers, seconds).
    """

    request: float
    batch: float
    record: float
    byte: float
    way: float
    replica: float
    table: Floats
    starts: Integers
    stop_begins: Floats
    stop_ends: Floats
    bounds: Integers
    down_begins: Floats
    down_ends: Floats
    others_begins: Floats
    others_ends: Floats
    moved_begins: Floats
    moved_ends: Floats
    slow: Floats
    free: Floats
    served: Integers
    ends: Integers
    busy: Floats


@kernel
def arrive(
    calls: Calls, ways: Ways, held: Held, brokers: Brokers, lane: int, now: float
) -> tuple[bool, float]:
    """A request reaches its broker: (whether it comes into the log, when the answer or failure is known)."""
    server = lane % calls.brokers
    lost = np.inf
    if server == 0 and inside(brokers.moved_begins, brokers.moved_ends, now):
        server = 1 % calls.brokers
    begins, ends = brokers.down_begins, brokers.down_ends
    if server:
        begins, ends = brokers.others_begins, brokers.others_ends
    place = np.searchsorted(ends, now, side="right")
    if place < len(ends):
        lost = max(now, begins[place])
    begin = max(now, brokers.free[server])
    if begin >= lost:
        return False, lost
    number = brokers.starts[server] + brokers.served[server]
    brokers.served[server] += 1
    work = brokers.table[number % len(brokers.table)] * (
        brokers.request
        + brokers.batch * held.parts[lane]
        + brokers.record * held.events[lane]
        + brokers.byte * held.bytes[lane]
    )
    its = slice(brokers.bounds[server], brokers.bounds[server + 1])
    end = done_at(brokers.stop_begins[its], brokers.stop_ends[its], begin, work)
    brokers.free[server] = min(end, lost)
    if end > lost:
        return False, lost
    spread(brokers.busy[server], begin, end, work)
    event = held.request[lane]
    while event >= 0:
        ways.logged[event] = end
        partition = calls.partition[event]
        ways.offset[event] = brokers.ends[partition]
        brokers.ends[partition] += 1
        event = held.after[event]
    return True, end + brokers.way + delay_at(brokers.slow, end) + brokers.replica


@kernel
def answered(calls: Calls, ways: Ways, held: Held, lane: int, now: float) -> None:
    """The ack of a request: its events are durable, those who wait may enter, the lane is free."""
    event = held.request[lane]
    while event >= 0:
        if ways.outcome[event] == 0:
            ways.acked[event] = now
            settle(calls, ways, held, event, DURABLE, now)
        event = held.after[event]
    held.flying[lane] = False
    ring(held, lane)
    admit(calls, ways, held, lane // calls.brokers, now)


@kernel
def refuse(calls: Calls, ways: Ways, held: Held, call: int, now: float) -> None:
    """A call has waited too long for room."""
    for event in range(call * calls.batch, (call + 1) * calls.batch):
        ways.outcome[event] = NO_ROOM
        ways.settled[event] = now
    held.open[call] = 0
    publisher = call % calls.publishers
    held.calling[publisher] -= 1
    held.waits[publisher] = call + calls.publishers
    admit(calls, ways, held, publisher, now)


@kernel
def give_up(calls: Calls, ways: Ways, held: Held, call: int, now: float) -> None:
    """What is open of it: its deadline is over, or it has waited too long for room."""
    if call >= held.waits[call % calls.publishers]:
        refuse(calls, ways, held, call, now)
        return
    for event in range(call * calls.batch, (call + 1) * calls.batch):
        if ways.outcome[event] == 0:
            settle(calls, ways, held, event, UNKNOWN if ways.taken[event] else REJECTED, now)
    admit(calls, ways, held, call % calls.publishers, now)


@kernel
def depart(brokers: Brokers, now: float) -> float:
    """When a request that leaves now reaches its broker."""
    return now + brokers.way + delay_at(brokers.slow, now)


@kernel
def proceed(
    calls: Calls, loops: Loops, ways: Ways, held: Held, brokers: Brokers, lane: int, what: int, now: float
) -> tuple[int, float]:
    """What was next of a lane, or of its publisher's loop, happens: (what is next then, when); -1 for
    nothing.
    """
    publisher = lane // calls.brokers
    if what == _BEGIN:
        if loops.free[publisher] > now:  # it got something to do meanwhile
            return _BEGIN, loops.free[publisher]
        held.calling[publisher] += 1
        return _ENCODED, begin(loops, publisher, now)
    if what == _ENCODED:
        held.last[publisher] = encoded(loops, publisher, now)
        admit(calls, ways, held, publisher, now)
        at = following(loops, publisher, held.calling[publisher], now)
        return (_BEGIN, at) if at < np.inf else (-1, now)
    if what == _ANSWER:
        work(loops, publisher, loops.turn, now)
        answered(calls, ways, held, lane, now)
    elif what == _ARRIVAL:
        well, at = arrive(calls, ways, held, brokers, lane, now)
        return (_ANSWER, at) if well else (_AGAIN, at + _PAUSE)
    elif again(calls, ways, held, lane):
        return _ARRIVAL, depart(brokers, now)
    else:
        ring(held, lane)
    return -1, now


@kernel
def due(
    calls: Calls, loops: Loops, ways: Ways, held: Held, places: Integers, patience: float, deadline: float
) -> tuple[float, float]:
    """When the next deadline is, and when a call has waited too long; inf for never.

    ``places``: of these in ``held.entries`` and in ``loops.asked``; they go on to what is not over yet.
    """
    expired, waited = places
    while expired < held.numbers[0] and held.open[held.entries[expired]] == 0:
        expired += 1
    asked = loops.asked
    while waited < loops.number[0] and held.waits[asked[waited] % calls.publishers] > asked[waited]:
        waited += 1
    places[0], places[1] = expired, waited
    ends = waits = np.inf
    if expired < held.numbers[0]:
        ends = ways.entered[held.entries[expired] * calls.batch] + deadline
    if waited < loops.number[0]:
        waits = loops.ready[asked[waited]] + patience
    return ends, waits


@kernel
def deliver(
    calls: Calls, loops: Loops, ways: Ways, held: Held, brokers: Brokers, patience: float, deadline: float
) -> None:
    """Run it all, until every event is settled and no request is on its way; fills ``ways``.

    ``patience``: s that a call waits for room; ``deadline``: s from entering the buffer to the ack.
    """
    lanes = calls.publishers * calls.brokers
    most = lanes + calls.publishers + 1
    times, codes = np.empty(most), np.empty(most, np.int64)
    places = np.zeros(2, np.int64)
    coming = min(calls.publishers, len(loops.intended))  # in order, and so a heap
    times[:coming] = loops.intended[:coming]
    codes[:coming] = _BEGIN * lanes + np.arange(coming) * calls.brokers
    while True:
        ends, waits = due(calls, loops, ways, held, places, patience, deadline)
        now = min(ends, waits)
        if coming and times[0] <= now:
            now, lane, what = times[0], codes[0] % lanes, codes[0] // lanes
            coming = pop(times, codes, coming)
            what, at = proceed(calls, loops, ways, held, brokers, lane, what, now)
            if what >= 0:
                coming = push(times, codes, coming, at, what * lanes + lane)
            publisher = lane // calls.brokers
        elif now == np.inf:
            return
        else:
            call = held.entries[places[0]] if ends == now else loops.asked[places[1]]
            give_up(calls, ways, held, call, now)
            publisher = call % calls.publishers
        before = coming
        for lane in rung(held):
            if take(calls, ways, held, lane):
                coming = push(times, codes, coming, depart(brokers, now), _ARRIVAL * lanes + lane)
        if coming > before and loops.turned[publisher] < now:
            loops.turned[publisher] = now
            work(loops, publisher, loops.turn, now)
        if loops.full[publisher]:
            at = following(loops, publisher, held.calling[publisher], now)
            if at < np.inf:
                coming = push(times, codes, coming, at, _BEGIN * lanes + publisher * calls.brokers)
