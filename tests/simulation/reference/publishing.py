"""The durable half of the reference: publishers with buffers and connections, brokers, and consumers."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import simpy

from dualstream_lab.recording import Outcome
from tests.simulation.reference.world import Job, Station, delay, within

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from tests.simulation.reference.world import World

_AGAIN: Final = 0.1  # s from a request's failure until it is sent again
_MOST: Final = 10_000  # records that one poll takes
_CALLERS: Final = 10**9  # more than a small run has calls


class Brokers:
    """Each serves one request after the other; ``appended`` is told what came into the log."""

    def __init__(self, world: World, appended: Callable[[list[int]], None]) -> None:
        self._world = world
        self._appended = appended
        self._ends: Counter[int] = Counter()
        self._stations = [
            Station(world.env, number=number, noise=world.draws.requests, stops=stops)
            for number, stops in enumerate(world.draws.stops)
        ]
        for number, station in enumerate(self._stations):
            world.lose(world.outages.broker(number).down, station.lose)

    def arrive(self, publisher: int, broker: int, events: list[int]) -> simpy.Event:
        """A request of these events. The answer is True once they are in the log, False when it is lost."""
        answer, outages, now = self._world.env.event(), self._world.outages, self._world.env.now
        if broker == 0 and within(outages.moved, now):
            broker = 1
        if within(outages.broker(broker).down, now):
            return answer.succeed(False)
        costs, notes = self._world.costs, self._world.notes
        partitions = len({notes.partition[seq] for seq in events})
        size = sum(int(notes.size[seq]) for seq in events)
        copied = costs.record * len(events) + costs.record_byte * size
        work = costs.request + costs.batch * partitions + self._world.deployment.replication_factor * copied
        steps = [(work, lambda: self._log(events, answer))]
        self._stations[broker].put(Job(publisher, steps, lost=lambda: answer.succeed(False)))
        return answer

    def _log(self, events: list[int], answer: simpy.Event) -> None:
        notes = self._world.notes
        for seq in events:
            notes.logged[seq] = self._world.env.now
            partition = int(notes.partition[seq])
            notes.offset[seq] = self._ends[partition]
            self._ends[partition] += 1
        answer.succeed(True)
        self._appended(events)


class Publisher:
    """Its callers, its loop, its buffer with the line before it, and a connection to each broker.

    A call is the range of its events. ``acknowledged`` is told of durable ones, in order.
    """

    def __init__(
        self, world: World, number: int, brokers: Brokers, acknowledged: Callable[[int, list[int]], None]
    ) -> None:
        self._world = world
        self._number = number
        self._brokers = brokers
        self._acknowledged = acknowledged
        self._callers = simpy.Container(world.env, init=world.deployment.callers or _CALLERS)
        self._free = 0.0  # when its loop is
        self._turned = -1.0  # when requests left last
        self._room = world.deployment.buffer_events
        self._line: deque[range] = deque()
        self._waiting: defaultdict[int, deque[int]] = defaultdict(deque)  # by partition
        self._open: dict[int, range] = {}  # entered and not settled, with its call
        self._asked: set[int] = set()  # were in a request
        self._taken = [False] * world.deployment.brokers

    def loop(self, calls: Iterable[range]) -> Generator[simpy.Event, Any, None]:
        """Serves calls in order, none before its time, nor before it has a caller and nothing else to do."""
        env, costs, notes = self._world.env, self._world.costs, self._world.notes
        for call in calls:
            yield env.timeout(max(0.0, notes.intended[call.start] - env.now))
            yield self._callers.get(1)
            while self._free > env.now:
                yield env.timeout(self._free - env.now)
            notes.sent[call] = env.now
            service = costs.call + costs.event * len(call)
            self._work(service)
            yield env.timeout(service)
            self._ask(call)

    def _work(self, seconds: float) -> None:
        """For so long its loop has something to do, besides what it has."""
        self._free = max(self._free, self._world.env.now) + seconds

    # The buffer

    def _ask(self, call: range) -> None:
        """For room; nobody overtakes those who wait for it."""
        self._line.append(call)
        self._admit()
        if call in self._line:
            self._world.after(self._world.deployment.buffer_timeout, partial(self._give_up, call))

    def _give_up(self, call: range) -> None:
        if call in self._line:
            self._line.remove(call)
            self._world.notes.outcome[call] = Outcome.NO_ROOM
            self._world.notes.settled[call] = self._world.env.now
            self._callers.put(1)
            self._admit()

    def _admit(self) -> None:
        """All that have room; then what is waiting is looked for."""
        entered: set[int] = set()
        while self._line and len(self._line[0]) <= self._room:
            call = self._line.popleft()
            self._room -= len(call)
            self._open.update(dict.fromkeys(call, call))
            self._world.notes.entered[call] = self._world.env.now
            for seq in call:
                self._waiting[int(self._world.notes.partition[seq])].append(seq)
            self._world.after(self._world.deployment.delivery_timeout, partial(self._expire, call))
            entered.update(self._world.notes.partition[call] % self._world.deployment.brokers)
        for broker in sorted(entered):
            self._send(broker)

    def _expire(self, call: range) -> None:
        notes, events = self._world.notes, [seq for seq in call if seq in self._open]
        for seq in events:
            if seq in self._asked:
                notes.outcome[seq] = Outcome.UNKNOWN
            else:
                notes.outcome[seq] = Outcome.REJECTED
                self._waiting[int(notes.partition[seq])].remove(seq)
        self._settle(events)

    def _settle(self, events: list[int]) -> None:
        self._world.notes.settled[events] = self._world.env.now
        self._room += len(events)
        for call in {self._open.pop(seq) for seq in events}:
            if not any(seq in self._open for seq in call):
                self._callers.put(1)
        self._admit()

    # Connections

    def _send(self, broker: int) -> None:
        """A free connection takes what waits."""
        if not self._taken[broker] and (events := self._take(broker)):
            self._taken[broker] = True
            if self._turned < self._world.env.now:  # those that leave together are one turn
                self._turned = self._world.env.now
                self._work(self._world.costs.turn)
            self._world.env.process(self._fly(broker, events))

    def _take(self, broker: int) -> list[int]:
        """Of each of its partitions the oldest, at least one, and as many as a batch may have bytes."""
        notes, deployment, taken = self._world.notes, self._world.deployment, list[int]()
        for partition in sorted(self._waiting):
            queue, size = self._waiting[partition], 0
            while queue and partition % deployment.brokers == broker:
                if size and size + notes.size[queue[0]] > deployment.batch_bytes:
                    break
                size += notes.size[queue[0]]
                taken.append(queue.popleft())
        self._asked.update(taken)
        return taken

    def _fly(self, broker: int, events: list[int]) -> Generator[simpy.Event, Any, None]:
        """One request, until it is acknowledged or none of its events is open any more."""
        env, costs = self._world.env, self._world.costs
        slow = self._world.outages.broker(broker).slow
        replica = costs.until_copied(self._world.deployment.replication_factor)
        while events:
            yield env.timeout(costs.kafka_rtt / 2 + delay(slow, env.now))
            if (yield self._brokers.arrive(self._number, broker, events)):
                yield env.timeout(costs.kafka_rtt / 2 + delay(slow, env.now) + replica)
                self._work(costs.turn)
                durable = sorted(seq for seq in events if seq in self._open)
                self._world.notes.outcome[durable] = Outcome.DURABLE
                self._world.notes.acked[durable] = env.now
                self._acknowledged(self._number, durable)
                self._settle(durable)
                break
            yield env.timeout(_AGAIN)
            events = [seq for seq in events if seq in self._open]
        self._taken[broker] = False  # only now, with what was let in
        self._send(broker)


class Consumers:
    """Members of a group, each with its partitions; they poll, and are busy with what they got."""

    def __init__(self, world: World) -> None:
        self._world = world
        members = range(world.deployment.consumers)
        self._readable: list[deque[int]] = [deque() for _ in members]
        self._wake = [world.env.event() for _ in members]
        for member in members:
            world.env.process(self._read(member))

    def append(self, events: list[int]) -> None:
        """They came into the log, partition by partition; consumers see them when their copies are there."""
        costs = self._world.costs
        readable = costs.until_copied(self._world.deployment.replication_factor) + costs.fetch_delay
        if self._wake:
            self._world.after(readable, lambda: self._show(events))

    def _show(self, events: list[int]) -> None:
        for seq in events:
            member = int(self._world.notes.partition[seq]) % len(self._wake)
            self._readable[member].append(seq)
            if not self._wake[member].triggered:
                self._wake[member].succeed()

    def _read(self, member: int) -> Generator[simpy.Event, Any, None]:
        env, costs, readable = self._world.env, self._world.costs, self._readable[member]
        while True:
            while not readable:
                self._wake[member] = env.event()
                yield self._wake[member]
            taken = [readable.popleft() for _ in range(min(_MOST, len(readable)))]
            self._world.notes.consumed[taken] = env.now
            yield env.timeout(costs.poll + costs.consume * len(taken))
