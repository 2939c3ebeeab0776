"""Publishing: calls enter the buffer, connections take requests from it, brokers serve them. One kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dualstream_lab.simulation.engine import publisher as queue
from dualstream_lab.simulation.kernels import delay_at, done_at, inside, kernel, next_begin, pop, push, spread

if TYPE_CHECKING:
    from dualstream_lab.simulation.engine.publisher import Buffer, Loops
    from dualstream_lab.simulation.kernels import Floats, Integers
    from dualstream_lab.simulation.outages import Outages
    from dualstream_lab.simulation.random_draws import Noise

__all__ = ["Brokers", "deliver"]

_ANSWER, _AGAIN, _ARRIVAL, _BEGIN, _ENCODED = range(5)  # what comes next: of a connection; of a publisher
_PAUSE: Final = 0.1  # s before what failed is sent again


class Brokers(NamedTuple):
    """The servers. Times in s.

    ``request``, ``batch``, ``record``, ``byte``: costs; ``way``: half the trip; ``replica``: the wait for
    copies. ``stops``: of all brokers, ``bounds``: where each broker's begin. ``free``: when each has done all
    that it has; ``served``: how many requests it has begun; ``ends``: by partition, records in its log;
    ``busy``: (brokers, seconds).
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
    busy: Floats


@kernel
def arrive(buffer: Buffer, brokers: Brokers, connection: int, now: float) -> tuple[bool, float]:
    """A request reaches its broker: (whether it comes into the log, when the answer or failure is known)."""
    server = connection % buffer.brokers
    if server == 0 and inside(brokers.outages.moved, now):
        server = 1 % buffer.brokers
    modes = brokers.outages.brokers if server else brokers.outages.first_broker
    lost = max(now, next_begin(modes.down, now))
    begin = max(now, brokers.free[server])
    if begin >= lost:
        return False, lost
    table, number = brokers.noise.table, brokers.noise.starts[server] + brokers.served[server]
    brokers.served[server] += 1
    work = table[number % len(table)] * (
        brokers.request
        + brokers.batch * buffer.parts[connection]
        + brokers.record * buffer.events[connection]
        + brokers.byte * buffer.bytes[connection]
    )
    end = done_at(brokers.stops[brokers.bounds[server] : brokers.bounds[server + 1]], begin, work)
    brokers.free[server] = min(end, lost)
    if end > lost:
        return False, lost
    spread(brokers.busy[server], begin, end, work)
    event = buffer.request[connection]
    while event >= 0:
        buffer.logged[event] = end
        partition = buffer.partition[event]
        buffer.offset[event] = brokers.ends[partition]
        brokers.ends[partition] += 1
        event = buffer.after[event]
    return True, end + brokers.way + delay_at(modes.slow, end) + brokers.replica


@kernel
def answered(buffer: Buffer, connection: int, now: float) -> None:
    """The ack of a request: its events are durable, those who wait may enter, the connection is free."""
    event = buffer.request[connection]
    while event >= 0:
        if buffer.outcome[event] == 0:
            buffer.acked[event] = now
            queue.settle(buffer, event, queue.DURABLE, now)
        event = buffer.after[event]
    buffer.flying[connection] = False
    queue.ring(buffer, connection)
    queue.admit(buffer, connection // buffer.brokers, now)


@kernel
def give_up(buffer: Buffer, call: int, now: float) -> None:
    """What is open of it: its deadline is over, or it has waited too long for room."""
    publisher = call % buffer.publishers
    refused = call >= buffer.waits[publisher]
    for event in range(call * buffer.batch, (call + 1) * buffer.batch):
        if refused:
            buffer.outcome[event] = queue.NO_ROOM
            buffer.settled[event] = now
        elif buffer.outcome[event] == 0:
            queue.settle(buffer, event, queue.UNKNOWN if buffer.taken[event] else queue.REJECTED, now)
    if refused:
        buffer.open[call] = 0
        buffer.calling[publisher] -= 1
        buffer.waits[publisher] = call + buffer.publishers
    queue.admit(buffer, publisher, now)


@kernel
def depart(brokers: Brokers, now: float) -> float:
    """When a request that leaves now reaches its broker."""
    return now + brokers.way + delay_at(brokers.outages.brokers.slow, now)


@kernel
def proceed(
    buffer: Buffer, loops: Loops, brokers: Brokers, connection: int, what: int, now: float
) -> tuple[int, float]:
    """What was next of a connection, or of its publisher's loop, happens: (what is next, when); -1 for
    nothing.
    """
    publisher = connection // buffer.brokers
    if what == _BEGIN:
        if loops.free[publisher] > now:  # it got something to do meanwhile
            return _BEGIN, loops.free[publisher]
        buffer.calling[publisher] += 1
        return _ENCODED, queue.begin(loops, publisher, now)
    if what == _ENCODED:
        buffer.last[publisher] = queue.encoded(loops, publisher, now)
        queue.admit(buffer, publisher, now)
        at = queue.following(loops, publisher, buffer.calling[publisher], now)
        return (_BEGIN, at) if at < np.inf else (-1, now)
    if what == _ANSWER:
        queue.work(loops, publisher, loops.turn, now)
        answered(buffer, connection, now)
    elif what == _ARRIVAL:
        well, at = arrive(buffer, brokers, connection, now)
        return (_ANSWER, at) if well else (_AGAIN, at + _PAUSE)
    elif queue.again(buffer, connection):
        return _ARRIVAL, depart(brokers, now)
    else:
        queue.ring(buffer, connection)
    return -1, now


@kernel
def due(buffer: Buffer, loops: Loops, places: Integers) -> tuple[float, float]:
    """When the next deadline is, and when a call has waited too long; inf for never.

    ``places``: of these in ``buffer.entries`` and in ``loops.asked``; they go on to what is not over yet.
    """
    expired, waited = places
    while expired < buffer.numbers[0] and buffer.open[buffer.entries[expired]] == 0:
        expired += 1
    asked = loops.asked
    while waited < loops.number[0] and buffer.waits[asked[waited] % buffer.publishers] > asked[waited]:
        waited += 1
    places[0], places[1] = expired, waited
    ends = waits = np.inf
    if expired < buffer.numbers[0]:
        ends = buffer.entered[buffer.entries[expired] * buffer.batch] + buffer.deadline
    if waited < loops.number[0]:
        waits = loops.ready[asked[waited]] + buffer.patience
    return ends, waits


@kernel
def deliver(buffer: Buffer, loops: Loops, brokers: Brokers) -> None:
    """Run it all, until every event is settled and no request is on its way; fills ``buffer``."""
    connections = buffer.publishers * buffer.brokers
    most = connections + buffer.publishers + 1
    times, codes = np.empty(most), np.empty(most, np.int64)
    places = np.zeros(2, np.int64)
    coming = min(buffer.publishers, len(loops.intended))  # in order, and so a heap
    times[:coming] = loops.intended[:coming]
    codes[:coming] = _BEGIN * connections + np.arange(coming) * buffer.brokers
    while True:
        ends, waits = due(buffer, loops, places)
        now = min(ends, waits)
        if coming and times[0] <= now:
            now, connection, what = times[0], codes[0] % connections, codes[0] // connections
            coming = pop(times, codes, coming)
            what, at = proceed(buffer, loops, brokers, connection, what, now)
            if what >= 0:
                coming = push(times, codes, coming, at, what * connections + connection)
            publisher = connection // buffer.brokers
        elif now == np.inf:
            return
        else:
            call = buffer.entries[places[0]] if ends == now else loops.asked[places[1]]
            give_up(buffer, call, now)
            publisher = call % buffer.publishers
        before = coming
        for connection in queue.rung(buffer):
            if queue.take(buffer, connection):
                coming = push(times, codes, coming, depart(brokers, now), _ARRIVAL * connections + connection)
        if coming > before and loops.turned[publisher] < now:
            loops.turned[publisher] = now
            queue.work(loops, publisher, loops.turn, now)
        if loops.full[publisher]:
            at = queue.following(loops, publisher, buffer.calling[publisher], now)
            if at < np.inf:
                coming = push(times, codes, coming, at, _BEGIN * connections + publisher * buffer.brokers)
