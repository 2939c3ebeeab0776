"""A publisher: its loop, one call after the other; and what it holds, a bounded buffer, and a queue of events
for each partition. Kernels.

A connection is (publisher, broker), numbered publisher x brokers + broker; it has one request in flight. A
queue is a chain of events, and so is a request: an event is in one of them at most.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from dualstream_lab.simulation.kernels import Flags, Floats, Int8, Integers, Records, kernel
from dualstream_lab.simulation.parameters import Costs, Deployment

DURABLE, REJECTED, UNKNOWN, NO_ROOM = range(1, 5)  # as recording.Outcome, whose members are no numbers here


_CALL: Final = np.dtype([
    ("intended", "f8"),  # when the plan wants it sent; never falling
    ("sent", "f8"),  # when its service began
    ("ready", "f8"),  # when its events were encoded
    ("open", "i8"),  # how many of its events are not settled
])  # fmt: skip
_QUEUE: Final = np.dtype([
    ("head", "i8"),  # the first event that waits
    ("tail", "i8"),  # the last one
    ("other", "i8"),  # the next queue of the same connection that has events
])  # fmt: skip
_CONNECTION: Final = np.dtype([
    ("some", "i8"),  # its first queue that has events
    ("request", "i8"),  # the first event of the request in flight
    ("events", "i8"),  # how many events that request has
    ("bytes", "i8"),
    ("parts", "i8"),  # of how many partitions they are
    ("flying", "?"),  # whether a request is in flight
    ("rung", "?"),  # whether it may take a request, and is in ``ringing``
])  # fmt: skip
_LOOP: Final = np.dtype([
    ("used", "i8"),  # events in the buffer
    ("waits", "i8"),  # its first call that is not in the buffer
    ("last", "i8"),  # its last call that is ready
    ("next", "i8"),  # the call after that one
    ("full", "?"),  # whether the next call waits for an open one to end
    ("calling", "i8"),  # calls that have begun and not ended
    ("free", "f8"),  # when it has done all that it has to do
    ("turned", "f8"),  # when requests left last
])  # fmt: skip
_PROGRESS: Final = np.dtype([
    ("entered", "i8"),  # calls in ``entries``
    ("expired", "i8"),  # the first of them that may be open
    ("ready", "i8"),  # calls in ``asked``
    ("waited", "i8"),  # the first of them that may wait for room
    ("ringing", "i8"),  # connections in ``ringing``
])  # fmt: skip


class Publishers(NamedTuple):
    """All publishers of a run. Call k has the events from k x ``batch`` on, and is served by the loop of
    publisher k mod ``publishers``. Times are s of the plan, NaN for never; what is a number is -1 for none.
    """

    batch: int  # events of a call
    publishers: int
    brokers: int
    partitions: int
    batch_bytes: int  # the most of a partition in a request
    buffer_events: int  # the most that a publisher holds
    callers: int  # the most calls that a publisher has open
    service: float  # s that a loop serves a call
    turn: float  # s that a loop is busy with requests that leave together, and with an answer
    patience: float  # s that a call waits for room
    deadline: float  # s from entering the buffer to the ack

    # By event, as in ``Outcome``; ``taken``: whether it was in a request; ``after``: the next in its chain.
    partition: Integers
    size: Integers
    entered: Floats
    settled: Floats
    acked: Floats
    logged: Floats
    outcome: Int8
    offset: Integers
    taken: Flags
    after: Integers

    calls: Records
    queues: Records  # publisher x partitions + partition
    connections: Records
    loops: Records  # by publisher
    asked: Integers  # calls in the order in which they became ready
    entries: Integers  # calls in the order in which they entered the buffer
    ringing: Integers  # connections that may take a request, in order
    progress: Records  # one row
    utilization: Floats  # (publishers, seconds): s of work


def publishers_of(
    deployment: Deployment, costs: Costs, intended: Floats, batch: int, partition: Integers, size: Integers,
    seconds: int,
) -> Publishers:  # fmt: skip
    """Publishers to whom nothing has come yet. ``intended``: of each call; ``partition``, ``size``: of each
    event; ``seconds``: how long ``utilization`` is.
    """
    events, calls, publishers = len(partition), np.zeros(len(intended), _CALL), deployment.publishers
    calls["intended"], calls["sent"], calls["ready"], calls["open"] = intended, np.nan, np.nan, batch
    loops = np.zeros(publishers, _LOOP)
    loops["waits"] = loops["next"] = np.arange(publishers)
    loops["last"] = loops["next"] - publishers
    loops["turned"] = -1
    queues = np.full(publishers * deployment.partitions, -1, _QUEUE)
    connections = np.zeros(publishers * deployment.brokers, _CONNECTION)
    connections["some"] = connections["request"] = -1
    entered, settled, acked, logged = (np.full(events, np.nan) for _ in range(4))
    return Publishers(
        batch=batch, publishers=publishers, brokers=deployment.brokers, partitions=deployment.partitions,
        batch_bytes=deployment.batch_bytes, buffer_events=deployment.buffer_events,
        callers=deployment.callers or len(calls), service=float(costs.call + costs.event * batch),
        turn=float(costs.turn), patience=float(deployment.buffer_timeout),
        deadline=float(deployment.delivery_timeout), partition=partition, size=size, entered=entered,
        settled=settled, acked=acked, logged=logged, outcome=np.zeros(events, np.int8),
        offset=np.full(events, -1), taken=np.zeros(events, np.bool_), after=np.full(events, -1), calls=calls,
        queues=queues, connections=connections, loops=loops, asked=np.full(len(calls), -1),
        entries=np.full(len(calls), -1), ringing=np.full(len(connections), -1),
        progress=np.zeros(1, _PROGRESS), utilization=np.zeros((publishers, seconds)),
    )  # fmt: skip


@kernel
def settle(state: Publishers, event: int, outcome: int, now: float) -> None:
    """Note the outcome of an event; its room in the buffer is free from now on."""
    number = event // state.batch
    call, loop = state.calls[number], state.loops[number % state.publishers]
    state.outcome[event] = outcome
    state.settled[event] = now
    loop.used -= 1
    call.open -= 1
    if call.open == 0:
        loop.calling -= 1


@kernel
def ring(state: Publishers, connection: int) -> None:
    """Note that a connection may take a request, unless it has one in flight."""
    one, progress = state.connections[connection], state.progress[0]
    if not one.flying and not one.rung:
        one.rung = True
        state.ringing[progress.ringing] = connection
        progress.ringing += 1


@kernel
def rung(state: Publishers) -> Integers:
    """The connections that may take a request, in order; from now on none is noted."""
    connections = state.ringing[: state.progress[0].ringing]
    for connection in connections:
        state.connections[connection].rung = False
    state.progress[0].ringing = 0
    return connections


@kernel
def enter(state: Publishers, call: int, now: float) -> None:
    """All events of a call join their queues."""
    publisher = call % state.publishers
    state.loops[publisher].used += state.batch
    state.entries[state.progress[0].entered] = call
    state.progress[0].entered += 1
    for event in range(call * state.batch, (call + 1) * state.batch):
        state.entered[event] = now
        partition = state.partition[event]
        place = publisher * state.partitions + partition
        connection = publisher * state.brokers + partition % state.brokers
        queue = state.queues[place]
        state.after[event] = -1
        if queue.head < 0:
            queue.head = event
            queue.other = state.connections[connection].some
            state.connections[connection].some = place
        else:
            state.after[queue.tail] = event
        queue.tail = event
        ring(state, connection)


@kernel
def admit(state: Publishers, publisher: int, now: float) -> None:
    """The calls that wait enter, in order, as long as the first of them fits."""
    loop = state.loops[publisher]
    while loop.waits <= loop.last and loop.used + state.batch <= state.buffer_events:
        enter(state, loop.waits, now)
        loop.waits += state.publishers


@kernel
def chain(state: Publishers, connection: int, last: int, event: int) -> int:
    """Make ``event`` the one after ``last`` of a request, or its first where that is -1; ``event``."""
    if last < 0:
        state.connections[connection].request = event
    else:
        state.after[last] = event
    return event


@kernel
def take(state: Publishers, connection: int) -> bool:
    """Make the connection's next request, of every partition that has events; False if there is none."""
    count = total = parts = 0
    last = left = -1
    place = state.connections[connection].some
    while place >= 0:
        queue = state.queues[place]
        following = queue.other
        bytes_, taken = 0, 0
        event = queue.head
        while event >= 0:
            after = state.after[event]
            if state.outcome[event] == 0:  # or its deadline has passed
                if taken and bytes_ + state.size[event] > state.batch_bytes:
                    break
                bytes_ += state.size[event]
                taken += 1
                state.taken[event] = True
                last = chain(state, connection, last, event)
            event = after
        queue.head = event
        if event >= 0:
            queue.other = left
            left = place
        count += taken
        total += bytes_
        parts += 1 if taken else 0
        place = following
    state.connections[connection].some = left
    return fly(state, connection, last, count, total, parts)


@kernel
def again(state: Publishers, connection: int) -> bool:
    """Make its request anew, of those of its events that are not settled; False if there is none."""
    count = total = parts = 0
    last = partition = -1
    event = state.connections[connection].request
    while event >= 0:
        if state.outcome[event] == 0:
            last = chain(state, connection, last, event)
            count += 1
            total += state.size[event]
            if state.partition[event] != partition:  # those of a partition follow each other
                parts += 1
                partition = state.partition[event]
        event = state.after[event]
    return fly(state, connection, last, count, total, parts)


@kernel
def fly(state: Publishers, connection: int, last: int, count: int, total: int, parts: int) -> bool:
    """Send a request that ends with event ``last`` and is so large; whether there is one."""
    one = state.connections[connection]
    one.flying = last >= 0
    if last >= 0:
        state.after[last] = -1
        one.events, one.bytes, one.parts = count, total, parts
    return last >= 0


# The loop


@kernel
def following(state: Publishers, publisher: int, now: float) -> float:
    """When the next call can be served, with those that are open; inf for not before one of these ends."""
    loop = state.loops[publisher]
    left = loop.next < len(state.calls)
    loop.full = left and loop.calling >= state.callers
    if not left or loop.full:
        return np.inf
    return float(max(now, state.calls[loop.next].intended, loop.free))


@kernel
def work(state: Publishers, publisher: int, seconds: float, now: float) -> None:
    """Give a publisher's loop so many seconds of work, besides what it has."""
    loop = state.loops[publisher]
    loop.free = max(loop.free, now) + seconds
    second = int(now)
    if second < state.utilization.shape[1]:
        state.utilization[publisher, second] += seconds


@kernel
def begin(state: Publishers, publisher: int, now: float) -> float:
    """Begin the service of its next call: when that is done."""
    state.calls[state.loops[publisher].next].sent = now
    work(state, publisher, state.service, now)
    return now + state.service


@kernel
def encoded(state: Publishers, publisher: int, now: float) -> None:
    """The service of its next call is done: the call is ready to enter the buffer."""
    loop, progress = state.loops[publisher], state.progress[0]
    state.calls[loop.next].ready = now
    state.asked[progress.ready] = loop.next
    progress.ready += 1
    loop.last = loop.next
    loop.next += state.publishers
