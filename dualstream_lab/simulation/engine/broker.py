"""Publishing: calls enter the buffer, connections take requests from it, brokers serve them. One kernel."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from dualstream_lab.simulation.engine import publisher as queue
from dualstream_lab.simulation.engine.publisher import Publishers
from dualstream_lab.simulation.kernels import (
    Floats,
    Integers,
    delay_at,
    done_at,
    inside,
    kernel,
    next_begin,
    pop,
    push,
    spread,
)
from dualstream_lab.simulation.outages import Outages
from dualstream_lab.simulation.random_draws import Noise

_ANSWER, _AGAIN, _ARRIVAL, _BEGIN, _ENCODED = range(5)  # what comes next: of a connection; of a publisher
_PAUSE: Final = 0.1  # s before what failed is sent again


class Brokers(NamedTuple):
    """The servers. Times in s.

    ``request``, ``batch``, ``record``, ``byte``: costs; ``way``: half the trip; ``replica``: the wait for
    copies. ``stops``: of all brokers, ``bounds``: where each broker's begin. ``free``: when each has done all
    that it has; ``served``: how many requests it has begun; ``ends``: by partition, records in its log;
    ``utilization``: (brokers, seconds).
    """

    request: float
    batch: float
    record: float
    byte: float
    way: float
    replica: float
    noise: Noise
    outages: Outages
    stops: Floats
    bounds: Integers
    free: Floats
    served: Integers
    ends: Integers
    utilization: Floats


@kernel
def arrive(state: Publishers, brokers: Brokers, connection: int, now: float) -> tuple[bool, float]:
    """A request reaches its broker: (whether it comes into the log, when the answer or failure is known)."""
    server = connection % state.brokers
    if server == 0 and inside(brokers.outages.moved, now):
        server = 1 % state.brokers
    modes = brokers.outages.brokers if server else brokers.outages.first_broker
    lost = max(now, next_begin(modes.down, now))
    begin = max(now, brokers.free[server])
    if begin >= lost:
        return False, lost
    table, number = brokers.noise.table, brokers.noise.starts[server] + brokers.served[server]
    brokers.served[server] += 1
    work = table[number % len(table)] * (
        brokers.request
        + brokers.batch * state.parts[connection]
        + brokers.record * state.events[connection]
        + brokers.byte * state.bytes[connection]
    )
    end = done_at(brokers.stops[brokers.bounds[server] : brokers.bounds[server + 1]], begin, work)
    brokers.free[server] = min(end, lost)
    if end > lost:
        return False, lost
    spread(brokers.utilization[server], begin, end, work)
    event = state.request[connection]
    while event >= 0:
        state.logged[event] = end
        partition = state.partition[event]
        state.offset[event] = brokers.ends[partition]
        brokers.ends[partition] += 1
        event = state.after[event]
    return True, end + brokers.way + delay_at(modes.slow, end) + brokers.replica


@kernel
def answered(state: Publishers, connection: int, now: float) -> None:
    """The ack of a request: its events are durable, those who wait may enter, the connection is free."""
    event = state.request[connection]
    while event >= 0:
        if state.outcome[event] == 0:
            state.acked[event] = now
            queue.settle(state, event, queue.DURABLE, now)
        event = state.after[event]
    state.flying[connection] = False
    queue.ring(state, connection)
    queue.admit(state, connection // state.brokers, now)


@kernel
def give_up(state: Publishers, call: int, now: float) -> None:
    """What is open of it: its deadline is over, or it has waited too long for room."""
    publisher = call % state.publishers
    refused = call >= state.waits[publisher]
    for event in range(call * state.batch, (call + 1) * state.batch):
        if refused:
            state.outcome[event] = queue.NO_ROOM
            state.settled[event] = now
        elif state.outcome[event] == 0:
            queue.settle(state, event, queue.UNKNOWN if state.taken[event] else queue.REJECTED, now)
    if refused:
        state.open[call] = 0
        state.calling[publisher] -= 1
        state.waits[publisher] = call + state.publishers
    queue.admit(state, publisher, now)


@kernel
def depart(brokers: Brokers, now: float) -> float:
    """When a request that leaves now reaches its broker."""
    return now + brokers.way + delay_at(brokers.outages.brokers.slow, now)


@kernel
def proceed(state: Publishers, brokers: Brokers, connection: int, act: int, now: float) -> tuple[int, float]:
    """What was next of a connection, or of its publisher's loop, happens: (what is next, when); -1 for
    nothing.
    """
    publisher = connection // state.brokers
    if act == _BEGIN:
        if state.free[publisher] > now:  # it got something to do meanwhile
            return _BEGIN, state.free[publisher]
        state.calling[publisher] += 1
        return _ENCODED, queue.begin(state, publisher, now)
    if act == _ENCODED:
        state.last[publisher] = queue.encoded(state, publisher, now)
        queue.admit(state, publisher, now)
        at = queue.following(state, publisher, now)
        return (_BEGIN, at) if at < np.inf else (-1, now)
    if act == _ANSWER:
        queue.work(state, publisher, state.turn, now)
        answered(state, connection, now)
    elif act == _ARRIVAL:
        well, at = arrive(state, brokers, connection, now)
        return (_ANSWER, at) if well else (_AGAIN, at + _PAUSE)
    elif queue.again(state, connection):
        return _ARRIVAL, depart(brokers, now)
    else:
        queue.ring(state, connection)
    return -1, now


@kernel
def due(state: Publishers, places: Integers) -> tuple[float, float]:
    """When the next deadline is, and when a call has waited too long; inf for never.

    ``places``: of these in ``state.entries`` and in ``state.asked``; they go on to what is not over yet.
    """
    expired, waited = places
    while expired < state.numbers[0] and state.open[state.entries[expired]] == 0:
        expired += 1
    asked = state.asked
    while waited < state.numbers[2] and state.waits[asked[waited] % state.publishers] > asked[waited]:
        waited += 1
    places[0], places[1] = expired, waited
    ends = waits = np.inf
    if expired < state.numbers[0]:
        ends = state.entered[state.entries[expired] * state.batch] + state.deadline
    if waited < state.numbers[2]:
        waits = state.ready[asked[waited]] + state.patience
    return ends, waits


@kernel
def deliver(state: Publishers, brokers: Brokers) -> None:
    """Run it all, until every event is settled and no request is on its way; fills ``state``."""
    connections = state.publishers * state.brokers
    most = connections + state.publishers + 1
    times, codes = np.empty(most), np.empty(most, np.int64)
    places = np.zeros(2, np.int64)
    coming = min(state.publishers, len(state.intended))  # in order, and so a heap
    times[:coming] = state.intended[:coming]
    codes[:coming] = _BEGIN * connections + np.arange(coming) * state.brokers
    while True:
        ends, waits = due(state, places)
        now = min(ends, waits)
        if coming and times[0] <= now:
            now, connection, action = times[0], codes[0] % connections, codes[0] // connections
            coming = pop(times, codes, coming)
            action, at = proceed(state, brokers, connection, action, now)
            if action >= 0:
                coming = push(times, codes, coming, at, action * connections + connection)
            publisher = connection // state.brokers
        elif now == np.inf:
            return
        else:
            call = state.entries[places[0]] if ends == now else state.asked[places[1]]
            give_up(state, call, now)
            publisher = call % state.publishers
        before = coming
        for connection in queue.rung(state):
            if queue.take(state, connection):
                coming = push(times, codes, coming, depart(brokers, now), _ARRIVAL * connections + connection)
        if coming > before and state.turned[publisher] < now:
            state.turned[publisher] = now
            queue.work(state, publisher, state.turn, now)
        if state.full[publisher]:
            at = queue.following(state, publisher, now)
            if at < np.inf:
                coming = push(times, codes, coming, at, _BEGIN * connections + publisher * state.brokers)
