"""Publishing: calls enter the buffer, connections take requests from it, brokers serve them. One kernel."""

from __future__ import annotations

from heapq import heappop, heappush
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
    spread,
)
from dualstream_lab.simulation.outages import Outages
from dualstream_lab.simulation.random_draws import Noise

_ANSWER, _AGAIN, _ARRIVAL, _BEGIN, _ENCODED = range(5)  # what comes next: of a connection; of a publisher
_PAUSE: Final = 0.1  # s before what failed is sent again


class Brokers(NamedTuple):
    """The brokers of a cluster. A request takes a server the sum of its costs, in s."""

    request: float  # for each request
    batch: float  # for each partition in it
    record: float  # for each event in it
    byte: float  # for each byte of its events
    way: float  # s from a publisher to a broker, and as many back
    replica: float  # s that an ack waits for copies
    noise: Noise
    outages: Outages
    stops: Floats  # spans of all brokers in which they stand still
    bounds: Integers  # where each broker's begin among these
    free: Floats  # by broker, when it has done all that it has
    served: Integers  # by broker, how many requests it has begun
    ends: Integers  # by partition, how many records its log has
    utilization: Floats  # (brokers, seconds): s of work


@kernel
def arrive(state: Publishers, brokers: Brokers, connection: int, now: float) -> tuple[bool, float]:
    """A request reaches its broker: (whether it comes into the log, when the answer or failure is known)."""
    server, request = connection % state.brokers, state.connections[connection]
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
        + brokers.batch * request.parts
        + brokers.record * request.events
        + brokers.byte * request.bytes
    )
    end = done_at(brokers.stops[brokers.bounds[server] : brokers.bounds[server + 1]], begin, work)
    brokers.free[server] = min(end, lost)
    if end > lost:
        return False, lost
    spread(brokers.utilization[server], begin, end, work)
    event = request.request
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
    event = state.connections[connection].request
    while event >= 0:
        if state.outcome[event] == 0:
            state.acked[event] = now
            queue.settle(state, event, queue.DURABLE, now)
        event = state.after[event]
    state.connections[connection].flying = False
    queue.ring(state, connection)
    queue.admit(state, connection // state.brokers, now)


@kernel
def give_up(state: Publishers, call: int, now: float) -> None:
    """Settle what is open of a call whose deadline is over, or that has waited too long for room."""
    publisher = call % state.publishers
    loop = state.loops[publisher]
    refused = call >= loop.waits
    for event in range(call * state.batch, (call + 1) * state.batch):
        if refused:
            state.outcome[event] = queue.NO_ROOM
            state.settled[event] = now
        elif state.outcome[event] == 0:
            queue.settle(state, event, queue.UNKNOWN if state.taken[event] else queue.REJECTED, now)
    if refused:
        state.calls[call].open = 0
        loop.calling -= 1
        loop.waits = call + state.publishers
    queue.admit(state, publisher, now)


@kernel
def depart(brokers: Brokers, now: float) -> float:
    """When a request that leaves now reaches its broker."""
    return now + brokers.way + delay_at(brokers.outages.brokers.slow, now)


@kernel
def proceed(state: Publishers, brokers: Brokers, connection: int, act: int, now: float) -> tuple[int, float]:
    """Do what was due of a connection, or of its publisher: (what comes next, when); -1 for nothing."""
    publisher = connection // state.brokers
    if act == _BEGIN:
        loop = state.loops[publisher]
        if loop.free > now:  # it got something to do meanwhile
            return _BEGIN, loop.free
        loop.calling += 1
        return _ENCODED, queue.begin(state, publisher, now)
    if act == _ENCODED:
        queue.encoded(state, publisher, now)
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
def due(state: Publishers) -> tuple[float, float]:
    """When the next deadline is, and when a call has waited too long for room; inf for never. Calls of which
    that is over are passed.
    """
    progress, ends, waits = state.progress[0], np.inf, np.inf
    while progress.expired < progress.entered and not state.calls[state.entries[progress.expired]].open:
        progress.expired += 1
    if progress.expired < progress.entered:
        ends = state.entered[state.entries[progress.expired] * state.batch] + state.deadline
    while progress.waited < progress.ready:
        call = state.asked[progress.waited]
        if state.loops[call % state.publishers].waits <= call:
            waits = state.calls[call].ready + state.patience
            break
        progress.waited += 1
    return ends, waits


@kernel
def deliver(state: Publishers, brokers: Brokers) -> None:
    """Run it all, until every event is settled and no request is on its way; fills ``state``."""
    connections = state.publishers * state.brokers
    # (time, what and of which connection): a heap, as the first calls are in order.
    coming = [
        (state.calls[call].intended, _BEGIN * connections + call * state.brokers)
        for call in range(min(state.publishers, len(state.calls)))
    ]
    while True:
        ends, waits = due(state)
        now = min(ends, waits)
        if coming and coming[0][0] <= now:
            now, code = heappop(coming)
            action, connection = divmod(code, connections)
            action, at = proceed(state, brokers, connection, action, now)
            if action >= 0:
                heappush(coming, (at, action * connections + connection))
            publisher = connection // state.brokers
        elif now == np.inf:
            return
        else:
            progress = state.progress[0]
            call = state.entries[progress.expired] if ends == now else state.asked[progress.waited]
            give_up(state, call, now)
            publisher = call % state.publishers
        loop, before = state.loops[publisher], len(coming)
        for connection in queue.rung(state):
            if queue.take(state, connection):
                heappush(coming, (depart(brokers, now), _ARRIVAL * connections + connection))
        if len(coming) > before and loop.turned < now:
            loop.turned = now
            queue.work(state, publisher, state.turn, now)
        if loop.full:
            at = queue.following(state, publisher, now)
            if at < np.inf:
                heappush(coming, (at, _BEGIN * connections + publisher * state.brokers))
