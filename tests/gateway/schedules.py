"""Random schedules of the handover's world, by seed, in virtual time (ms)."""

from __future__ import annotations

import heapq
import itertools
from functools import partial
from random import Random
from typing import Any

from tests.gateway.model import Act, World
from tests.gateway.oracle import Client, Outcome

# ms: at least, and at most so much more. Most are fast: the median is an eighth of the way.
_DELAYS = {
    "replicate": (0.1, 2.0),
    "ack": (0.1, 1.0),
    "announce": (0.0, 30.0),
    "heard": (0.1, 1.0),
    "subscribe": (0.2, 12.0),
    "patience": (14.0, 20.0),
    "drop": (0.0, 15.0),
    "ask": (0.1, 1.5),
    "read": (0.1, 1.5),
    "pause": (1.0, 4.0),
    "notice": (0.5, 60.0),
}
_RECORDS = 90
_BUSY = 150.0  # ms in which they are published
_CALM = 200.0  # ms after which every client stays
_CHECK = 60.0  # ms between position checks, +- 50 %
_OUTAGE = 50.0
_END = 3000.0


class Timed:
    """Wires in virtual time."""

    def __init__(self, random: Random, delays: dict[str, tuple[float, float]]) -> None:
        self.now = 0.0
        self._delays = delays
        self._random = random.random
        self._order = itertools.count()
        self._line: list[tuple[float, int, Act]] = []
        self._last: dict[tuple[str, object], float] = {}

    def send(self, kind: str, key: object, act: Act) -> None:
        least, more = self._delays[kind]
        when = self.now + least + more * self._random() ** 3
        if key is not None:
            when = self._last[kind, key] = max(when, self._last.get((kind, key), 0.0))
        self.at(when, act)

    def at(self, when: float, act: Act) -> None:
        heapq.heappush(self._line, (when, next(self._order), act))

    def run(self, end: float) -> None:
        """All that happens before ``end``: there is no end to it where something is waited for in vain."""
        line, pop = self._line, heapq.heappop
        while line and self.now < end:
            self.now, _, act = pop(line)
            act()


class Schedule:
    """What happens by chance in one world, from a seed.

    ``grows``: partitions are added. ``strays``: the share of events that are written elsewhere. ``noise``:
    the share of announcements that are not this log's, or not true. ``transactions``: some write in them.
    """

    def __init__(
        self,
        seed: int,
        *,
        lost: float = 0.0,
        outage: bool = False,
        retention: bool | None = None,
        stall: bool | None = None,
        grows: bool | None = None,
        strays: float = 0.1,
        noise: float = 0.05,
        transactions: bool | None = None,
        delays: dict[str, tuple[float, float]] | None = None,
        **world: Any,
    ) -> None:
        self.random = Random(seed)
        chance = self.random.random
        self.wires = Timed(self.random, _DELAYS | (delays or {}))
        self.world = World(
            self.wires,
            loses=(lambda: chance() < lost) if lost else lambda: False,
            repeats=lambda: chance() < 0.03,
            **world,
        )
        self._strays = strays
        self._noise = noise
        self._fetched: dict[int, int] = {}
        self._stalled = chance() * _BUSY if (chance() < 0.2 if stall is None else stall) else -_BUSY
        at, redis = self.wires.at, self.world.redis
        for _ in range(_RECORDS):
            at(chance() * _BUSY, self._publish)
        if outage:
            start = chance() * (_BUSY - _OUTAGE)
            at(start, redis.fail)
            at(start + _OUTAGE, partial(setattr, redis, "down", False))
        if self._happens(0.25, retention):
            self._several(4, _CALM, self._prune)
        if self._happens(0.5, grows):
            self._several(1 + int(3 * chance()), _BUSY, self.world.grow)
        if self._happens(0.4, transactions):
            self._several(1 + int(3 * chance()), 0.8 * _BUSY, self._transact)
        for _ in range(1 + int(6 * chance())):
            at(chance() * 0.8 * _BUSY, self._arrive)
        for gateway in self.world.gateways:
            when = _CHECK * chance()
            while when < 2 * _CALM:
                at(when, gateway.check)
                when += _CHECK * (0.5 + chance())
        at(0.0, self._fetch)

    def _happens(self, share: float, given: bool | None) -> bool:
        return self.random.random() < share if given is None else given

    def _several(self, count: int, until: float, act: Act) -> None:
        for _ in range(count):
            self.wires.at(self.random.random() * until, act)

    def run(self) -> Outcome:
        self.wires.run(_END)
        return self.world.finish()

    def _publish(self) -> None:
        chance, world = self.random.random, self.world
        number = int(chance() * 3)
        elsewhere = int(chance() * 4) if chance() < self._strays else None
        if elsewhere is not None:
            elsewhere %= world.publishers[number].count
        world.publish(number if chance() < 0.65 else None, elsewhere)
        if chance() < self._noise:
            self._disturb()
        if chance() < 0.01:
            world.publishers[number].restart()

    def _disturb(self) -> None:
        chance, kind = self.random.random, self.random.random()
        ahead, partition = int(chance() * 6) - 3, int(chance() * 5)
        if kind < 0.5:  # of another log, at a place that ours has, or will have
            self.world.disturb("theirs", partition, ahead, "")
        elif kind < 0.6:
            self.world.disturb(None, partition, ahead, "")
        elif kind < 0.9:  # in the name of our log, an event that is not there
            self.world.disturb("ours", partition, ahead, "forged")
        else:
            self.world.disturb("ours", partition, 10**6, "forged")

    def _transact(self) -> None:
        chance, world = self.random.random, self.world
        world.transact(int(chance() * 5), 1 + int(chance() * 4))
        self.wires.at(
            self.wires.now + 60.0 * chance() ** 2,
            partial(world.end_transaction, commit=chance() < 0.5),
        )

    def _fetch(self) -> None:
        """What the processor fetched at its last turn is in the store now, or a part of it."""
        store, log, now, chance = self.world.store, self.world.log, self.wires.now, self.random.random
        if not self._stalled <= now < self._stalled + 80.0:
            for partition, position in store.positions.items():
                part = 1.0 if chance() < 0.7 else chance()
                fetched = self._fetched.get(partition, 0)
                store.move(partition, position + int((fetched - position) * part))
                self._fetched[partition] = store.end(partition)
        behind = len(store.positions) < len(log.partitions) or any(
            store.positions[partition] < length for partition, length in log.lengths.items()
        )
        if now < _BUSY + 90.0 or behind:
            self.wires.at(now + 4.0 + 14.0 * chance(), self._fetch)

    def _prune(self) -> None:
        store = self.world.store
        for partition, position in store.positions.items():
            store.prune(partition, position - int(self.random.random() * 30))

    def _arrive(self) -> None:
        chance, log = self.random.random, self.world.log
        kind = chance()
        count = len(log.partitions)
        if kind < 0.4:
            cursor: dict[int, int] | None = None
        elif kind < 0.55:
            cursor = {}
        elif kind > 0.97:
            cursor = {0: log.ends[0] + 5}
        else:
            some = [partition for partition in range(count) if chance() < 0.5] or [0]
            cursor = {partition: int(chance() * (log.ends[partition] + 1)) - 1 for partition in some}
        self._connect(Client(cursor))

    def _connect(self, client: Client) -> None:
        chance, now = self.random.random, self.wires.now
        self.world.connect(client, self.world.gateways[int(chance() * 2)])
        if chance() < 0.6 and (until := now + 80.0 * chance() ** 2) < _CALM:
            self.wires.at(until, partial(self._disconnect, client))

    def _disconnect(self, client: Client) -> None:
        chance, world = self.random.random, self.world
        gateway = world.sessions[client][0]
        world.disconnect(client, unread=int(10 * chance() ** 2))
        if not gateway.sessions and chance() < 0.5:
            gateway.unsubscribe()
        self.wires.at(min(self.wires.now + 40.0 * chance() ** 2, _CALM), partial(self._connect, client))
