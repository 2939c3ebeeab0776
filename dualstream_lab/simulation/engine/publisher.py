"""A publisher: its loop, one call after the other; and what it holds, a bounded buffer, and a queue of events
for each partition. Kernels.

A connection is (publisher, broker), numbered publisher x brokers + broker; it has one request in flight. A
queue is a chain of events, and so is a request: an event is in one of them at most.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dualstream_lab.simulation.kernels import Flags, Floats, Integers, kernel
from dualstream_lab.simulation.parameters import Costs, Deployment

DURABLE, REJECTED, UNKNOWN, NO_ROOM = range(1, 5)  # as recording.Outcome, whose members are no numbers here


class Publishers(NamedTuple):
    """All publishers of a run, as arrays. Call k has the events from k x ``batch`` on, of publisher k mod
    ``publishers``, whose loop serves one after the other; ``turn``: s of it for requests that leave together,
    and for an answer. ``patience``: s that a call waits for room; ``deadline``: s from entering to the ack.
    Times are NaN for never, what is a number -1 for none.

    By call: ``intended``, never falling; ``sent``, when its service began, which takes ``service`` s;
    ``ready``, when its events were encoded; ``open``, its events that are not settled. ``asked``,
    ``entries``: calls as they became ready, and as they entered. By event: ``entered``, ``settled``,
    ``acked``, ``logged``, ``outcome``, ``offset``; ``taken``: it was in a request; ``after``: the next in its
    chain. By publisher and partition: ``head``, ``tail`` of its queue, ``other``: the next partition of the
    connection that has events. By connection: ``some``: the first of those; ``request``: the first event in
    flight; ``events``, ``bytes`` and ``parts`` of it; ``flying``; ``rung``: it may take, and is in
    ``ringing``. By publisher: ``used`` room; ``waits``: its first call that is not in the buffer; ``last``:
    its last one that is ready; ``next``: the one after it; ``full``: whether that waits for another one to
    end; ``calling``: calls that have begun and not ended, at most ``callers``; ``free``, when its loop is;
    ``turned``, when requests left last; ``utilization``, by second. ``numbers``: of ``entries``, ``ringing``
    and ``asked``.
    """

    partition: Integers
    size: Integers
    batch: int
    publishers: int
    brokers: int
    partitions: int
    batch_bytes: int
    buffer_events: int
    callers: int
    service: float
    turn: float
    patience: float
    deadline: float
    intended: Floats
    sent: Floats
    ready: Floats
    open: Integers
    asked: Integers
    entries: Integers
    entered: Floats
    settled: Floats
    acked: Floats
    logged: Floats
    outcome: npt.NDArray[np.int8]
    offset: Integers
    taken: Flags
    after: Integers
    head: Integers
    tail: Integers
    other: Integers
    some: Integers
    request: Integers
    events: Integers
    bytes: Integers
    parts: Integers
    flying: Flags
    rung: Flags
    ringing: Integers
    used: Integers
    waits: Integers
    last: Integers
    next: Integers
    full: Flags
    calling: Integers
    free: Floats
    turned: Floats
    utilization: Floats
    numbers: Integers


def publishers_of(
    deployment: Deployment, costs: Costs, intended: Floats, batch: int, partition: Integers, size: Integers,
    seconds: int,
) -> Publishers:  # fmt: skip
    """Publishers to whom nothing has come yet. ``intended``: of each call; ``partition``, ``size``: of each
    event; ``seconds``: how long ``utilization`` is.
    """
    events, publishers, calls = len(partition), deployment.publishers, len(intended)
    connections, queues = publishers * deployment.brokers, publishers * deployment.partitions
    numbers = np.arange(publishers)
    none = dict.fromkeys(("asked", "entries"), calls) | dict.fromkeys(("offset", "after"), events)
    none |= dict.fromkeys(("head", "tail", "other"), queues)
    none |= dict.fromkeys(("some", "request", "events", "bytes", "parts", "ringing"), connections)
    never = dict.fromkeys(("entered", "settled", "acked", "logged"), events)
    never |= dict.fromkeys(("sent", "ready"), calls)
    flags = {"taken": events, "flying": connections, "rung": connections, "full": publishers}
    arrays: dict[str, Any] = {name: np.full(count, np.nan) for name, count in never.items()}
    arrays |= {name: np.full(count, -1) for name, count in none.items()}
    arrays |= {name: np.zeros(count, np.bool_) for name, count in flags.items()}
    return Publishers(
        partition=partition, size=size, batch=batch, publishers=publishers, brokers=deployment.brokers,
        partitions=deployment.partitions, batch_bytes=deployment.batch_bytes,
        buffer_events=deployment.buffer_events, callers=deployment.callers or calls,
        service=float(costs.call + costs.event * batch), turn=float(costs.turn),
        patience=float(deployment.buffer_timeout), deadline=float(deployment.delivery_timeout),
        **arrays, intended=intended, open=np.full(calls, batch), outcome=np.zeros(events, np.int8),
        used=np.zeros(publishers, np.int64), waits=numbers.copy(), last=numbers - publishers,
        next=numbers.copy(), calling=np.zeros(publishers, np.int64), free=np.zeros(publishers),
        turned=np.full(publishers, -1.0), utilization=np.zeros((publishers, seconds)),
        numbers=np.zeros(3, np.int64),
    )  # fmt: skip


@kernel
def settle(state: Publishers, event: int, outcome: int, now: float) -> None:
    """Its outcome is known, and its room is free."""
    call = event // state.batch
    state.outcome[event] = outcome
    state.settled[event] = now
    state.used[call % state.publishers] -= 1
    state.open[call] -= 1
    if state.open[call] == 0:
        state.calling[call % state.publishers] -= 1


@kernel
def ring(state: Publishers, connection: int) -> None:
    """It may take, unless it has something in flight."""
    if not state.flying[connection] and not state.rung[connection]:
        state.rung[connection] = True
        state.ringing[state.numbers[1]] = connection
        state.numbers[1] += 1


@kernel
def rung(state: Publishers) -> Integers:
    """Those that may take, in the order of their ringing; the next ones begin anew."""
    connections = state.ringing[: state.numbers[1]]
    state.rung[connections] = False
    state.numbers[1] = 0
    return connections


@kernel
def enter(state: Publishers, call: int, now: float) -> None:
    """All events of a call join their queues."""
    publisher = call % state.publishers
    state.used[publisher] += state.batch
    state.entries[state.numbers[0]] = call
    state.numbers[0] += 1
    for event in range(call * state.batch, (call + 1) * state.batch):
        state.entered[event] = now
        partition = state.partition[event]
        queue = publisher * state.partitions + partition
        connection = publisher * state.brokers + partition % state.brokers
        state.after[event] = -1
        if state.head[queue] < 0:
            state.head[queue] = event
            state.other[queue], state.some[connection] = state.some[connection], queue
        else:
            state.after[state.tail[queue]] = event
        state.tail[queue] = event
        ring(state, connection)


@kernel
def admit(state: Publishers, publisher: int, now: float) -> None:
    """The calls that wait enter, in order, as long as the first of them fits."""
    call = state.waits[publisher]
    while call <= state.last[publisher] and state.used[publisher] + state.batch <= state.buffer_events:
        enter(state, call, now)
        call += state.publishers
    state.waits[publisher] = call


@kernel
def chain(state: Publishers, connection: int, last: int, event: int) -> int:
    """Make ``event`` the one after ``last`` of a request, or its first where that is -1; ``event``."""
    if last < 0:
        state.request[connection] = event
    else:
        state.after[last] = event
    return event


@kernel
def take(state: Publishers, connection: int) -> bool:
    """Make the connection's next request, of every partition that has events; False if there is none."""
    count = total = parts = 0
    last = left = -1
    queue = state.some[connection]
    while queue >= 0:
        following = state.other[queue]
        bytes_, taken = 0, 0
        event = state.head[queue]
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
        state.head[queue] = event
        if event >= 0:
            state.other[queue] = left
            left = queue
        count += taken
        total += bytes_
        parts += 1 if taken else 0
        queue = following
    state.some[connection] = left
    return fly(state, connection, last, count, total, parts)


@kernel
def again(state: Publishers, connection: int) -> bool:
    """Make its request anew, of those of its events that are not settled; False if there is none."""
    count = total = parts = 0
    last = partition = -1
    event = state.request[connection]
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
    """The request ends with ``last``, so large is it; whether there is one."""
    state.flying[connection] = last >= 0
    if last >= 0:
        state.after[last] = -1
        state.events[connection], state.bytes[connection] = count, total
        state.parts[connection] = parts
    return last >= 0


# The loop


@kernel
def following(state: Publishers, publisher: int, now: float) -> float:
    """When the next call can be served, with those that are open; inf for not before one of these ends."""
    call = state.next[publisher]
    left = call < len(state.intended)
    state.full[publisher] = left and state.calling[publisher] >= state.callers
    if not left or state.full[publisher]:
        return np.inf
    return float(max(now, state.intended[call], state.free[publisher]))


@kernel
def work(state: Publishers, publisher: int, seconds: float, now: float) -> None:
    """For so long it has something to do, besides what it has."""
    state.free[publisher] = max(state.free[publisher], now) + seconds
    second = int(now)
    if second < state.utilization.shape[1]:
        state.utilization[publisher, second] += seconds


@kernel
def begin(state: Publishers, publisher: int, now: float) -> float:
    """The service of its next call begins: when that is done."""
    state.sent[state.next[publisher]] = now
    work(state, publisher, state.service, now)
    return now + state.service


@kernel
def encoded(state: Publishers, publisher: int, now: float) -> int:
    """It is done: of which call."""
    call: int = state.next[publisher]
    state.ready[call] = now
    state.asked[state.numbers[2]] = call
    state.numbers[2] += 1
    state.next[publisher] += len(state.next)
    return call
