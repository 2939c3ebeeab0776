"""A publisher: its loop, one call after the other; and what it holds, a bounded buffer, and a queue of events
for each partition. Kernels.

A connection is (publisher, broker), numbered publisher x brokers + broker; it has one request in flight. A
queue is a chain of events, and so is a request: an event is in one of them at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from dualstream_lab.simulation.kernels import Flags, Floats, Integers, kernel

if TYPE_CHECKING:
    from dualstream_lab.simulation.parameters import Deployment

__all__ = [
    "Buffer", "Loops", "admit", "again", "begin", "buffer_of", "encoded", "following", "loops", "ring",
    "rung", "settle", "take", "work",
]  # fmt: skip

DURABLE, REJECTED, UNKNOWN, NO_ROOM = range(1, 5)  # as recording.Outcome, whose members are no numbers here


class Buffer(NamedTuple):
    """Of all publishers. Call k has the events from k x ``batch`` on, of publisher k mod ``publishers``;
    ``patience``: s that it waits for room; ``deadline``: s from entering to the ack.

    By event, what becomes of it (times are NaN for never): ``entered``, ``settled``, ``acked``, ``logged``,
    ``outcome``, ``offset``; ``taken``: it was in a request; ``after``: the next in its chain, -1 for none. By
    publisher and partition: ``head``, ``tail`` of its queue, ``other``: the next partition of the connection
    that has events. By connection: ``some``: the first of those; ``request``: the first event in flight;
    ``events``, ``bytes`` and ``parts`` of it; ``flying``. By publisher: ``used`` room; ``waits``: its first
    call that is not in the buffer; ``last``: its last one that is ready; ``calling``: its calls that have
    begun and not ended. ``open``: by call, its events that are not settled. ``entries``: calls as they
    entered. ``ringing``: connections that may take, ``rung``: whether they are among them; ``numbers``: how
    many entries and how many ringing connections there are.
    """

    partition: Integers
    size: Integers
    batch: int
    publishers: int
    brokers: int
    partitions: int
    batch_bytes: int
    buffer_events: int
    patience: float
    deadline: float
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
    used: Integers
    waits: Integers
    last: Integers
    calling: Integers
    open: Integers
    entries: Integers
    ringing: Integers
    rung: Flags
    numbers: Integers


def buffer_of(partition: Integers, size: Integers, batch: int, deployment: Deployment) -> Buffer:
    """Nothing in it yet. ``partition``, ``size``: of each event."""
    events, publishers = len(partition), deployment.publishers
    calls, connections = events // batch, publishers * deployment.brokers
    queues = publishers * deployment.partitions
    of_event, of_queue = ("after", "offset"), ("head", "tail", "other")
    of_connection = ("some", "request", "events", "bytes", "parts", "ringing")
    sizes = dict.fromkeys(of_event, events) | dict.fromkeys(of_queue, queues) | {"entries": calls}
    sizes |= dict.fromkeys(of_connection, connections)
    return Buffer(
        partition=partition, size=size, batch=batch, publishers=publishers, brokers=deployment.brokers,
        partitions=deployment.partitions, batch_bytes=deployment.batch_bytes,
        buffer_events=deployment.buffer_events, patience=float(deployment.buffer_timeout),
        deadline=float(deployment.delivery_timeout), outcome=np.zeros(events, np.int8),
        **{name: np.full(events, np.nan) for name in ("entered", "settled", "acked", "logged")},
        **{name: np.full(count, -1) for name, count in sizes.items()},
        taken=np.zeros(events, np.bool_), flying=np.zeros(connections, np.bool_),
        rung=np.zeros(connections, np.bool_), used=np.zeros(publishers, np.int64),
        waits=np.arange(publishers), last=np.arange(publishers) - publishers,
        calling=np.zeros(publishers, np.int64), open=np.full(calls, batch), numbers=np.zeros(2, np.int64),
    )  # fmt: skip


@kernel
def settle(buffer: Buffer, event: int, outcome: int, now: float) -> None:
    """Its outcome is known, and its room is free."""
    call = event // buffer.batch
    buffer.outcome[event] = outcome
    buffer.settled[event] = now
    buffer.used[call % buffer.publishers] -= 1
    buffer.open[call] -= 1
    if buffer.open[call] == 0:
        buffer.calling[call % buffer.publishers] -= 1


@kernel
def ring(buffer: Buffer, connection: int) -> None:
    """It may take, unless it has something in flight."""
    if not buffer.flying[connection] and not buffer.rung[connection]:
        buffer.rung[connection] = True
        buffer.ringing[buffer.numbers[1]] = connection
        buffer.numbers[1] += 1


@kernel
def rung(buffer: Buffer) -> Integers:
    """Those that may take, in the order of their ringing; the next ones begin anew."""
    connections = buffer.ringing[: buffer.numbers[1]]
    buffer.rung[connections] = False
    buffer.numbers[1] = 0
    return connections


@kernel
def enter(buffer: Buffer, call: int, now: float) -> None:
    """All events of a call join their queues."""
    publisher = call % buffer.publishers
    buffer.used[publisher] += buffer.batch
    buffer.entries[buffer.numbers[0]] = call
    buffer.numbers[0] += 1
    for event in range(call * buffer.batch, (call + 1) * buffer.batch):
        buffer.entered[event] = now
        partition = buffer.partition[event]
        queue = publisher * buffer.partitions + partition
        connection = publisher * buffer.brokers + partition % buffer.brokers
        buffer.after[event] = -1
        if buffer.head[queue] < 0:
            buffer.head[queue] = event
            buffer.other[queue], buffer.some[connection] = buffer.some[connection], queue
        else:
            buffer.after[buffer.tail[queue]] = event
        buffer.tail[queue] = event
        ring(buffer, connection)


@kernel
def admit(buffer: Buffer, publisher: int, now: float) -> None:
    """The calls that wait enter, in order, as long as the first of them fits."""
    call = buffer.waits[publisher]
    while call <= buffer.last[publisher] and buffer.used[publisher] + buffer.batch <= buffer.buffer_events:
        enter(buffer, call, now)
        call += buffer.publishers
    buffer.waits[publisher] = call


@kernel
def chain(buffer: Buffer, connection: int, last: int, event: int) -> int:
    """Make ``event`` the one after ``last`` of a request, or its first where that is -1; ``event``."""
    if last < 0:
        buffer.request[connection] = event
    else:
        buffer.after[last] = event
    return event


@kernel
def take(buffer: Buffer, connection: int) -> bool:
    """Make the connection's next request, of every partition that has events; False if there is none."""
    count = total = parts = 0
    last = left = -1
    queue = buffer.some[connection]
    while queue >= 0:
        following = buffer.other[queue]
        bytes_, taken = 0, 0
        event = buffer.head[queue]
        while event >= 0:
            after = buffer.after[event]
            if buffer.outcome[event] == 0:  # or its deadline has passed
                if taken and bytes_ + buffer.size[event] > buffer.batch_bytes:
                    break
                bytes_ += buffer.size[event]
                taken += 1
                buffer.taken[event] = True
                last = chain(buffer, connection, last, event)
            event = after
        buffer.head[queue] = event
        if event >= 0:
            buffer.other[queue] = left
            left = queue
        count += taken
        total += bytes_
        parts += 1 if taken else 0
        queue = following
    buffer.some[connection] = left
    return fly(buffer, connection, last, count, total, parts)


@kernel
def again(buffer: Buffer, connection: int) -> bool:
    """Make its request anew, of those of its events that are not settled; False if there is none."""
    count = total = parts = 0
    last = partition = -1
    event = buffer.request[connection]
    while event >= 0:
        if buffer.outcome[event] == 0:
            last = chain(buffer, connection, last, event)
            count += 1
            total += buffer.size[event]
            if buffer.partition[event] != partition:  # those of a partition follow each other
                parts += 1
                partition = buffer.partition[event]
        event = buffer.after[event]
    return fly(buffer, connection, last, count, total, parts)


@kernel
def fly(buffer: Buffer, connection: int, last: int, count: int, total: int, parts: int) -> bool:
    """The request ends with ``last``, so large is it; whether there is one."""
    buffer.flying[connection] = last >= 0
    if last >= 0:
        buffer.after[last] = -1
        buffer.events[connection], buffer.bytes[connection] = count, total
        buffer.parts[connection] = parts
    return last >= 0


# The loop


class Loops(NamedTuple):
    """Call k belongs to publisher k mod ``publishers``. Times in s.

    ``intended``: by call, never falling. ``service``: of a call; ``turn``: of requests that leave together,
    and of an answer; ``callers``: calls of a publisher that may be open. By call, NaN until then: ``sent``,
    when its service began; ``ready``, when its events were encoded. ``asked``: calls as they became ready,
    ``number`` of them. By publisher: ``next``, its first call that is not ready; ``free``, when its loop is;
    ``full``, whether that call waits for another one to end; ``turned``, when requests left last. ``busy``:
    (publishers, seconds).
    """

    intended: Floats
    service: float
    turn: float
    callers: int
    sent: Floats
    ready: Floats
    asked: Integers
    number: Integers
    next: Integers
    free: Floats
    full: Flags
    turned: Floats
    busy: Floats


def loops(intended: Floats, *, service: float, turn: float, callers: int, busy: Floats) -> Loops:
    """Nothing yet."""
    calls, publishers = len(intended), len(busy)
    return Loops(
        intended=intended, service=service, turn=turn, callers=callers, sent=np.full(calls, np.nan),
        ready=np.full(calls, np.nan), asked=np.full(calls, -1, np.int64), number=np.zeros(1, np.int64),
        next=np.arange(publishers), free=np.zeros(publishers), full=np.zeros(publishers, np.bool_),
        turned=np.full(publishers, -1.0), busy=busy,
    )  # fmt: skip


@kernel
def following(loops: Loops, publisher: int, calling: int, now: float) -> float:
    """When the next call can be served, with ``calling`` open ones; inf for not before one of these ends."""
    call = loops.next[publisher]
    left = call < len(loops.intended)
    loops.full[publisher] = left and calling >= loops.callers
    if not left or loops.full[publisher]:
        return np.inf
    return float(max(now, loops.intended[call], loops.free[publisher]))


@kernel
def work(loops: Loops, publisher: int, seconds: float, now: float) -> None:
    """For so long it has something to do, besides what it has."""
    loops.free[publisher] = max(loops.free[publisher], now) + seconds
    second = int(now)
    if second < loops.busy.shape[1]:
        loops.busy[publisher, second] += seconds


@kernel
def begin(loops: Loops, publisher: int, now: float) -> float:
    """The service of its next call begins: when that is done."""
    loops.sent[loops.next[publisher]] = now
    work(loops, publisher, loops.service, now)
    return now + loops.service


@kernel
def encoded(loops: Loops, publisher: int, now: float) -> int:
    """It is done: of which call."""
    call: int = loops.next[publisher]
    loops.ready[call] = now
    loops.asked[loops.number[0]] = call
    loops.number[0] += 1
    loops.next[publisher] += len(loops.next)
    return call
