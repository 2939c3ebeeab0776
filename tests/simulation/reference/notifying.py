"""The live half of the reference: notifiers, Redis's shards, and those who receive."""

from __future__ import annotations

from collections import deque
from functools import partial
from math import ceil, inf
from typing import TYPE_CHECKING, Any

import numpy as np

from dualstream_lab import notifier_policy as policy
from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.engine.gateway import AWAY
from tests.simulation.reference.world import Job, Station, delay, within

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import simpy

    from tests.simulation.reference.world import World


class Audience:
    """Subscribers, all alike; where there are gateways, they are these, and their clients receive."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._arrived: deque[int] = deque()
        self._wake = world.env.event()
        self._back = 0.0  # when a connection that was closed is replaced
        if world.deployment.gateways:
            world.env.process(self._fan_out())
        if world.deployment.repairs:
            for _, end in world.draws.away.tolist():
                world.after(end, self._catch_up)

    def write(self, seq: int) -> None:
        """Redis writes it to whoever is connected."""
        now = self._world.env.now
        if self._world.deployment.receivers and not within(self._world.draws.away, now):
            receive_delay = self._world.costs.receive_delay + delay(self._world.outages.redis.slow, now)
            self._world.after(receive_delay, lambda: self._receive(seq))

    def _receive(self, seq: int) -> None:
        if not self._world.deployment.gateways:
            self._world.notes.live[seq] = self._world.env.now
            return
        now = self._world.env.now
        if now >= self._back and len(self._arrived) >= self._world.deployment.output_buffer:
            self._back = now + AWAY
            for lost in self._arrived:
                self._world.repair(lost, self._back)
            self._arrived.clear()
        if now < self._back:
            self._world.repair(seq, self._back)
            return
        self._arrived.append(seq)
        if not self._wake.triggered:
            self._wake.succeed()

    def _catch_up(self) -> None:
        """They are connected again, and read whatever they have not received."""
        notes, now = self._world.notes, self._world.env.now
        for seq in np.flatnonzero((notes.acked <= now) & np.isnan(notes.live)).tolist():
            self._world.repair(seq, now)

    def _fan_out(self) -> Generator[simpy.Event, Any, None]:
        """One gateway stands for all."""
        env, costs, deployment = self._world.env, self._world.costs, self._world.deployment
        while True:
            while not self._arrived:
                self._wake = env.event()
                yield self._wake
            seq = self._arrived.popleft()
            yield env.timeout(costs.receive + costs.write * deployment.clients / deployment.gateways)
            tick = deployment.tick
            self._world.notes.live[seq] = ceil(env.now / tick) * tick if tick else env.now


class Shard:
    """A Redis, and the connections to it."""

    def __init__(self, world: World, number: int, audience: Audience) -> None:
        self._world = world
        self._audience = audience
        self.refused: set[int] = set()
        self._coming: list[Job] = []
        self._station = Station(
            world.env, number=number, noise=world.draws.exchanges, stops=world.outages.redis.mute
        )
        world.lose(world.outages.redis.down, self._lose)

    def exchange(self, publisher: int, events: list[int]) -> simpy.Event:
        """The answer is True once all are written; False at once, when the shard is or goes down."""
        answer, costs = self._world.env.event(), self._world.costs
        if within(self._world.outages.redis.down, self._world.env.now):
            return answer.succeed(False)
        each = costs.publish + costs.deliver * self._world.deployment.receivers
        steps: list[tuple[float, Callable[[], object]]] = [
            (costs.exchange, lambda: None),
            *((each, partial(self._write, seq)) for seq in events),
            (0.0, lambda: self._world.after(self._way(), lambda: answer.succeed(True))),
        ]
        job = Job(publisher, steps, lost=lambda: answer.succeed(False))
        self._coming.append(job)
        self._world.after(self._way(), lambda: self._arrive(job))
        return answer

    def refuses(self) -> bool:
        """Whether it answers, and does nothing."""
        return within(self._world.outages.redis.refusing, self._world.env.now)

    def _write(self, seq: int) -> None:
        if self.refuses():
            self.refused.add(seq)
        else:
            self._audience.write(seq)

    def connect(self) -> Generator[simpy.Event, Any, bool]:
        """Whether it succeeded: it does if the shard is there when it begins."""
        redis, env = self._world.outages.redis, self._world.env
        if within(redis.down, env.now):
            return False
        if within(redis.mute, env.now):
            yield env.timeout(self._world.deployment.redis_timeout)
            return False
        yield env.timeout(self._way())
        yield env.timeout(self._way())
        return True

    def _way(self) -> float:
        return self._world.costs.redis_rtt / 2 + delay(self._world.outages.redis.slow, self._world.env.now)

    def _arrive(self, job: Job) -> None:
        if job in self._coming:
            self._coming.remove(job)
            self._station.put(job)

    def _lose(self) -> list[Job]:
        lost, self._coming = self._coming, []
        return lost + self._station.lose()


class Notifier:
    """Of one publisher to one shard: a bounded queue, one exchange at a time, a breaker."""

    def __init__(self, world: World, publisher: int, shard: Shard) -> None:
        self._world = world
        self._publisher = publisher
        self._shard = shard
        self._queue: deque[int] = deque()
        self._busy = False
        self._failures = 0
        self._recovering_until = 0.0
        self._open = False
        self._announce_from = 0.0  # from when on it may announce
        self._skipped: list[int] = []

    def join(self, events: list[int]) -> None:
        """Acknowledged together, in order."""
        if self._open:
            self._drop(events, "redis down")
            return
        self._queue.extend(events)
        over = len(self._queue) - self._world.deployment.notify_queue
        self._drop([self._queue.popleft() for _ in range(over)], "queue full")
        self._send()

    def _send(self) -> None:
        if self._busy or not self._queue:
            return
        few = self._world.env.now < self._recovering_until
        usual = min(max(policy.LEAST_IN_EXCHANGE, len(self._queue) // 4), policy.MOST_IN_EXCHANGE)
        most = policy.RECOVERING_IN_EXCHANGE if few else usual
        events = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self._busy = True
        self._world.env.process(self._exchange(events, few=few))

    def _exchange(self, events: list[int], *, few: bool) -> Generator[simpy.Event, Any, None]:
        env = self._world.env
        began = env.now
        answer = self._shard.exchange(self._publisher, events)
        yield answer | env.timeout(self._world.deployment.redis_timeout)
        if answer.triggered and answer.value:
            if self._failures:
                self._failures, self._recovering_until = 0, env.now + policy.RECOVERING_FOR
            self._drop([seq for seq in events if seq in self._shard.refused], "redis refused")
            self._announce()
            if few:
                yield env.timeout(min(env.now - began, policy.RECOVERING_PAUSE))
        else:
            self._drop(events, "redis connection" if answer.triggered else "redis timeout")
            self._on_failure()
            yield from self._connect()
        self._busy = False
        self._send()

    def _connect(self) -> Generator[simpy.Event, Any, None]:
        """Again and again, until it succeeds."""
        env = self._world.env
        while True:
            if self._failures >= policy.MAX_FAILURES:
                self._open = True
                self._drop(list(self._queue), "redis down")
                self._queue.clear()
                yield env.timeout(policy.OPEN_FOR)
            else:
                yield env.timeout(policy.RETRY_PAUSE)
            if (yield from self._shard.connect()):
                break
            self._on_failure()
        self._open = False

    def _on_failure(self) -> None:
        self._failures += 1
        self._recovering_until = inf

    def _drop(self, events: list[int], reason: str) -> None:
        self._world.notes.dropped[events] = self._world.env.now
        self._world.notes.reason[events] = DROPS.index(reason)
        self._skipped += events

    def _announce(self) -> None:
        """What was skipped, so that subscribers repair it."""
        if not self._skipped or self._world.env.now < self._announce_from:
            return
        if self._shard.refuses():
            self._announce_from = self._world.env.now + policy.ANNOUNCE_PAUSE
            return
        self._world.notes.resyncs += 1
        if not within(self._world.draws.away, self._world.env.now):
            for seq in self._skipped:
                self._world.repair(seq, self._world.env.now)
        self._skipped = []
