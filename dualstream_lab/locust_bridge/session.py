"""One process's part of a Locust test: a publisher, its share of the plan, subscribers, and their records.

Everything here runs in the bridge's loop; only ``intervals`` is read from the hub.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dualstream_lab.event import channel_of
from dualstream_lab.load.child import settle_memory
from dualstream_lab.load.driver import Driver
from dualstream_lab.load.hearing import Hearing
from dualstream_lab.load.probes import probe_kafka, probe_redis
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.load.subscriber import RedisSubscriber, all_ready, allow_connections
from dualstream_lab.locust_bridge.bridge import start_thread
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.workload import RunIds, source_name
from dualstream_lab.workload.popularity import cumulative_popularity

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from dualstream_lab.load.driver import Call
    from dualstream_lab.locust_bridge.options import Options
    from dualstream_lab.recording import Interval, Outcome

__all__ = ["Order", "Session"]

_PERIOD = 0.5
_KEPT = 1200  # intervals that may wait for a report to the master: five minutes
_QUIET, _DRAIN = 0.3, 5.0
_JOIN = 30.0
_EVERYTHING = ("events:*", -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is told: the run, where its rows go, the plan's zero (wall clock, ns), its share."""

    directory: str
    ids: str
    zero: int
    index: int
    of: int

    def as_dict(self) -> dict[str, Any]:
        """For a message."""
        return asdict(self)

    @classmethod
    def load(cls, values: dict[str, Any]) -> Self:
        """From a message."""
        return cls(**values)


class _Sink(PublishRecorder):
    """Tells the subscribers of this process what they may hear."""

    hearing: Hearing | None = None

    def sending(self, seq: npt.NDArray[np.int64], intended: int, in_flight: int) -> None:
        if self.hearing is not None:
            self.hearing.expect(seq.tolist(), intended, time.monotonic_ns())
        super().sending(seq, intended, in_flight)

    def settled(self, call: Call) -> None:
        if not call.acked and self.hearing is not None:
            self.hearing.forget(call.seq.tolist())
        super().settled(call)


class Session:
    """``intervals``: what was recorded and not yet taken, oldest first; bounded."""

    def __init__(self, options: Options, order: Order, *, listens: bool, hears_itself: bool) -> None:
        self._options = options
        self._order = order
        self._listens = listens or hears_itself
        self._hears_itself = hears_itself
        self._subscribers: list[RedisSubscriber] = []
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self.intervals: deque[Interval] = deque(maxlen=_KEPT)
        self.over = False
        self.failed: str | None = None

    async def start(self) -> None:
        """Connect. Raises ConfigError or StreamUnavailable."""
        options, order = self._options, self._order
        directory = Path(order.directory) if options.sample else None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)  # a worker may be on another machine
        common: dict[str, Any] = {
            "every": max(1, options.sample),
            "period": _PERIOD,
            "deliver": self.intervals.append,
            "start_thread": start_thread,
        }
        ids = RunIds(order.ids)
        self._sink = _Sink(directory, f"worker{order.index}", ids=ids, **common)
        self._hearing = Hearing(
            directory if self._listens else None, f"worker{order.index}", ids,
            details=not self._hears_itself, all_heard=self._hears_itself, **common,
        )  # fmt: skip
        self._hearing.subscribers = self._subscribers
        self._sink.hearing = self._hearing if self._listens else None
        self._publisher = DualPublisher(options.settings)
        await self._publisher.start()
        self._sink.watch(self._publisher)
        self._driver = Driver(
            self._publisher,
            options.workload,
            options.workload.catalogue(ids),
            self._sink,
            share=(order.index, order.of),
        )
        self._driver.start(time.monotonic_ns() + order.zero - time.time_ns())
        self._sink.started = self._driver.started
        self._keep("sink", self._sink.run())
        if self._hears_itself:
            await self._join([_EVERYTHING])
        if self._listens:
            self._keep("hearing", self._hearing.run())
        self._keep("end", self._watch())
        if order.index == 0:  # one process asks for all
            self._keep("kafka", probe_kafka(options.settings, self._sink.meter))
            if options.settings.redis_url is not None:
                self._keep("redis", probe_redis(options.settings.redis_url, self._sink.meter))
        settle_memory()

    def _keep(self, key: object, work: Any) -> None:
        self._tasks[key] = asyncio.create_task(work)

    async def publish_next(self) -> tuple[int, Outcome] | None:
        """One call of this process's share: (events, outcome); None when there are no more."""
        call = await self._driver.call()
        return None if call is None else (len(call), call.outcome)

    async def subscribe(self, user: int) -> None:
        """The connections of one more subscribing user. Raises StreamUnavailable, ConfigError."""
        count = self._options.connections
        await self._join([self._target(user * count + place) for place in range(count)])

    async def _join(self, targets: Sequence[tuple[str, int]]) -> None:
        """A connection for each target: a channel and the rank of its source, or a pattern and -1."""
        options = self._options
        allow_connections(len(self._subscribers) + len(targets))
        made = []
        for target, source in targets:
            number = len(self._subscribers)
            subscriber = RedisSubscriber(
                options.settings.redis_url or "",
                [target],
                self._hearing,
                number=number,
                pattern=source < 0,
                source=source,
                listening=self._hearing.listening,
                slow=options.slow_seconds if _spread(number) < options.slow else 0.0,
                stay=options.stay,
            )
            self._subscribers.append(subscriber)
            self._keep(("subscriber", number), subscriber.run())
            made.append(subscriber)
        await all_ready(made, _JOIN)

    def _target(self, place: int) -> tuple[str, int]:
        work = self._options.workload
        match self._options.channels:
            case "all":
                return _EVERYTHING
            case "hot":
                rank = 0
            case "uniform":
                rank = place % work.sources
            case _:
                shares = cumulative_popularity(
                    work.sources, work.zipf, hot=work.hot, hot_sources=work.hot_sources
                )
                rank = min(int(shares.searchsorted(_spread(place + 1))), work.sources - 1)
        return channel_of(*source_name(rank)), rank

    async def _watch(self) -> None:
        """Notes when the plan is over: its time is up, and every call that was made is settled."""
        end = self._driver.started + round(self._options.workload.duration * 1e9)
        while time.monotonic_ns() < end or self._driver.in_flight or not self._idle():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.over = True

    def _idle(self) -> bool:
        """Whether nobody will publish what is left: the plan is exhausted, or nobody publishes."""
        return self._driver.exhausted or not self._sink.used

    def _quiet(self) -> bool:
        return time.monotonic_ns() - self._hearing.last > _QUIET * 1e9

    async def finish(self) -> None:
        """Stop, wait for what is open, and record the rest. Bounded by the publisher's deadlines."""
        self._driver.stop()
        while self._driver.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await self._publisher.flush()
        deadline = time.monotonic() + _DRAIN
        while self._listens and not self._quiet() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            self._sink.close()
            self._hearing.close()
        except OSError as error:
            self.failed = str(error)
        await self._publisher.close()


def _spread(number: int) -> float:
    """In [0, 1), evenly spread for any stretch of numbers (the golden ratio's multiples)."""
    return number * 0.618033988749895 % 1.0
