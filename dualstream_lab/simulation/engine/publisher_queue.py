"""What a publisher holds: a bounded buffer, and a queue of events for each partition, by lane. Kernels.

A lane is (publisher, broker), numbered publisher x brokers + broker; it has one request in flight. A queue is
a chain of events, and so is a request: an event is in one of them at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dualstream_lab.simulation.kernels import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

__all__ = ["Calls", "Held", "Ways", "admit", "again", "held", "ring", "rung", "settle", "take"]

DURABLE, REJECTED, UNKNOWN, NO_ROOM = (
    1,
    2,
    3,
    4,
)  # as recording.Outcome; an enum's members are no numbers here


class Calls(NamedTuple):
    """What is published. Call k has the events from k x ``batch`` on, of publisher k mod ``publishers``."""

    partition: Integers
    size: Integers
    batch: int
    publishers: int
    brokers: int
    partitions: int
    batch_bytes: int
    buffer_events: int


class Ways(NamedTuple):
    """What becomes of each event; times are NaN for never. ``taken``: it was in a request."""

    entered: Floats
    settled: Floats
    acked: Floats
    logged: Floats
    outcome: npt.NDArray[np.int8]
    offset: Integers
    taken: Flags


class Held(NamedTuple):
    """The publishers' state. ``-1`` ends every chain.

    By event: ``after``, the next in its chain. By publisher and partition: ``head``, ``tail`` of its queue,
    ``other``: the next partition of the lane that has events. By lane: ``some``: the first of those;
    ``request``: the first event in flight; ``events``, ``bytes`` and ``parts`` of it; ``flying``.
    By publisher: ``used`` room; ``waits``: its first call that is not in the buffer; ``last``: its last one
    that is ready; ``calling``: its calls that have begun and not ended. ``open``: by call, its events that
    are not settled. ``entries``: calls as they entered.
    ``ringing``: lanes that may take, ``rung``: whether they are among them; ``numbers``: how many entries and
    how many ringing lanes there are.
    """

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


def held(calls: Calls) -> Held:
    """Nothing yet."""
    events = len(calls.partition)
    number = events // calls.batch
    lanes, queues = calls.publishers * calls.brokers, calls.publishers * calls.partitions
    publishers = np.arange(calls.publishers)

    def none(count: int) -> Integers:
        return np.full(count, -1, np.int64)

    return Held(
        after=none(events), head=none(queues), tail=none(queues), other=none(queues), some=none(lanes),
        request=none(lanes), events=none(lanes), bytes=none(lanes), parts=none(lanes),
        flying=np.zeros(lanes, np.bool_), used=np.zeros(calls.publishers, np.int64), waits=publishers.copy(),
        last=publishers - calls.publishers, calling=np.zeros(calls.publishers, np.int64),
        open=np.full(number, calls.batch), entries=none(number), ringing=none(lanes),
        rung=np.zeros(lanes, np.bool_), numbers=np.zeros(2, np.int64),
    )  # fmt: skip


@kernel
def settle(calls: Calls, ways: Ways, held: Held, event: int, outcome: int, now: float) -> None:
    """Its outcome is known, and its room is free."""
    call = event // calls.batch
    ways.outcome[event] = outcome
    ways.settled[event] = now
    held.used[call % calls.publishers] -= 1
    held.open[call] -= 1
    if held.open[call] == 0:
        held.calling[call % calls.publishers] -= 1


@kernel
def ring(held: Held, lane: int) -> None:
    """It may take, unless it has something in flight."""
    if not held.flying[lane] and not held.rung[lane]:
        held.rung[lane] = True
        held.ringing[held.numbers[1]] = lane
        held.numbers[1] += 1


@kernel
def rung(held: Held) -> Integers:
    """Those that may take, in the order of their ringing; the next ones begin anew."""
    lanes = held.ringing[: held.numbers[1]]
    held.rung[lanes] = False
    held.numbers[1] = 0
    return lanes


@kernel
def enter(calls: Calls, ways: Ways, held: Held, call: int, now: float) -> None:
    """All events of a call join their queues."""
    publisher = call % calls.publishers
    held.used[publisher] += calls.batch
    held.entries[held.numbers[0]] = call
    held.numbers[0] += 1
    for event in range(call * calls.batch, (call + 1) * calls.batch):
        ways.entered[event] = now
        partition = calls.partition[event]
        queue = publisher * calls.partitions + partition
        lane = publisher * calls.brokers + partition % calls.brokers
        held.after[event] = -1
        if held.head[queue] < 0:
            held.head[queue] = event
            held.other[queue], held.some[lane] = held.some[lane], queue
        else:
            held.after[held.tail[queue]] = event
        held.tail[queue] = event
        ring(held, lane)


@kernel
def admit(calls: Calls, ways: Ways, held: Held, publisher: int, now: float) -> None:
    """The calls that wait enter, in order, as long as the first of them fits."""
    call = held.waits[publisher]
    while call <= held.last[publisher] and held.used[publisher] + calls.batch <= calls.buffer_events:
        enter(calls, ways, held, call, now)
        call += calls.publishers
    held.waits[publisher] = call


@kernel
def take(calls: Calls, ways: Ways, held: Held, lane: int) -> bool:
    """Make the lane's next request, of every partition that has events; False if there is none."""
    count = total = parts = 0
    last = left = -1
    queue = held.some[lane]
    while queue >= 0:
        following = held.other[queue]
        bytes_, taken = 0, 0
        event = held.head[queue]
        while event >= 0:
            after = held.after[event]
            if ways.outcome[event] == 0:  # or its deadline has passed
                if taken and bytes_ + calls.size[event] > calls.batch_bytes:
                    break
                bytes_ += calls.size[event]
                taken += 1
                ways.taken[event] = True
                if last < 0:
                    held.request[lane] = event
                else:
                    held.after[last] = event
                last = event
            event = after
        held.head[queue] = event
        if event >= 0:
            held.other[queue] = left
            left = queue
        count += taken
        total += bytes_
        parts += 1 if taken else 0
        queue = following
    held.some[lane] = left
    if last < 0:
        return False
    held.after[last] = -1
    held.events[lane], held.bytes[lane], held.parts[lane] = count, total, parts
    held.flying[lane] = True
    return True


@kernel
def again(calls: Calls, ways: Ways, held: Held, lane: int) -> bool:
    """Make the lane's request anew, of those of its events that are not settled; False if there is none."""
    count = total = parts = 0
    last = partition = -1
    event = held.request[lane]
    while event >= 0:
        if ways.outcome[event] == 0:
            if last < 0:
                held.request[lane] = event
            else:
                held.after[last] = event
            last = event
            count += 1
            total += calls.size[event]
            if calls.partition[event] != partition:  # those of a partition follow each other
                parts += 1
                partition = calls.partition[event]
        event = held.after[event]
    if last < 0:
        held.flying[lane] = False
        return False
    held.after[last] = -1
    held.events[lane], held.bytes[lane], held.parts[lane] = count, total, parts
    return True
