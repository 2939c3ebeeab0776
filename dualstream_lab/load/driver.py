"""The open-loop driver: every call of a plan is sent when the plan says so, however slow the answers are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from dualstream_lab.errors import BufferFull, OutcomeUnknown, PublishError
from dualstream_lab.event import Event
from dualstream_lab.load.timer import Timer
from dualstream_lab.recording import Clocks, Outcome
from dualstream_lab.recording.rows import Int64
from dualstream_lab.workload import Catalogue, RunIds, Slots, Workload

if TYPE_CHECKING:
    from dualstream_lab.config import Settings

_COLUMNS = ("seq", "intended", "source", "type", "size")


def time_limit(workload: Workload, settings: Settings) -> float:
    """Seconds after which a plan that is still not done is given up.

    A generator that cannot keep up may take as long again, twice, and every call has its deadline.
    """
    return 3 * workload.duration + settings.delivery_timeout + 60


class Publisher(Protocol):
    """What the driver needs of a publisher."""

    async def publish(self, event: Event) -> Any:
        """Returns when it is durable; raises PublishError."""

    async def publish_batch(self, events: Sequence[Event]) -> Any:
        """Returns when all are durable; raises PublishError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One settled call: a batch of events that fell due together. Times are ns of the monotonic clock.

    ``acked`` is 0 unless every event is durable; ``outcome`` is that of the call; of a call that failed,
    ``error.outcomes`` may say more of each event. ``size``: bytes.
    """

    seq: Int64
    source: Int64
    size: Int64
    intended: int
    sent: int
    acked: int
    outcome: Outcome
    error: PublishError | None = None

    def __len__(self) -> int:
        return len(self.seq)


class Sink(Protocol):
    """Where the driver tells what it does; never blocks, never raises."""

    def sending(self, seq: Int64, intended: int, in_flight: int) -> None:
        """These events go out now, and so many calls are open."""

    def settled(self, call: Call) -> None:
        """A call ended, with an answer or without."""

    def unsent(self, count: int) -> None:
        """So many events were due and were not sent before the driver was stopped."""


class Driver:
    """Sends a workload's events through a publisher at their intended times.

    :meth:`call` is one call of the plan: wait for its time, send, wait for the answer. While as many as may
    be in flight wait for answers, the next calls go out late. Nothing is skipped, nothing is sent again, and
    latency counts from the intended time, so that waiting for a slow answer is not left out (coordinated
    omission).
    """

    def __init__(
        self, publisher: Publisher, workload: Workload, catalogue: Catalogue, sink: Sink, *,
        share: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        self._publisher = publisher
        self._workload = workload
        self._catalogue = catalogue
        self._sink = sink
        self._calls = _calls(workload.slots(share=share), workload.batch)
        self._closed_loop = workload.plan == "closed"
        self.in_flight = 0
        self.exhausted = False
        self._stopped = False
        self._timer = Timer()
        self._clocks = Clocks.now()
        self.started = 0

    def start(self, at: int | None = None) -> None:
        """Set the plan's zero: ns of the monotonic clock, now if left out."""
        self._clocks = Clocks.now()
        self.started = self._clocks.monotonic if at is None else at
        self._end = self.started + round(self._workload.duration * 1e9)

    def stop(self) -> None:
        """Begin no new calls. What was due by now and is not sent is told to the sink."""
        if self._stopped:
            return
        self._stopped = True
        self._timer.wake_all()
        if not self._closed_loop and self.started:
            now = time.monotonic_ns() - self.started
            left = 0
            for slots in self._calls:
                if slots.intended[0] > now:
                    break
                left += len(slots)
            self._sink.unsent(left)

    async def run(self, concurrency: int) -> None:
        """The whole plan, with at most so many calls open; every wait is bounded by the publisher's."""

        async def call_on() -> None:
            while await self.call() is not None:
                pass

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(call_on())

    async def call(self) -> Call | None:
        """The next call, settled; None when the plan is over or the driver was stopped."""
        slots = None if self._stopped else next(self._calls, None)
        if slots is None:
            self.exhausted = True
            return None
        intended = int(slots.intended[0]) + self.started
        events = self._events(slots, intended)
        if self._closed_loop:
            if time.monotonic_ns() >= self._end:
                self.exhausted = True
                return None
        else:
            await self._timer.wait_until(intended)
            if self._stopped:
                return None
        self.in_flight += 1
        self._sink.sending(slots.seq, intended, self.in_flight)
        sent = time.monotonic_ns()
        acked, outcome, failure = 0, Outcome.PENDING, None
        try:
            if len(events) == 1:
                await self._publisher.publish(events[0])
            else:
                await self._publisher.publish_batch(events)
            acked, outcome = time.monotonic_ns(), Outcome.DURABLE
        except PublishError as error:
            failure, outcome = error, Outcome.REJECTED
            if isinstance(error, BufferFull):
                outcome = Outcome.NO_ROOM
            elif isinstance(error, OutcomeUnknown):
                outcome = Outcome.UNKNOWN
        finally:
            self.in_flight -= 1
            done = Call(
                seq=slots.seq, source=slots.source, size=slots.size,
                intended=sent if self._closed_loop else intended,
                sent=sent, acked=acked, outcome=outcome, error=failure,
            )  # fmt: skip
            self._sink.settled(done)
        return done

    def _events(self, slots: Slots, intended: int) -> list[Event]:
        """Made ahead of their time, so that making them does not delay the sending."""
        zero = time.monotonic_ns() if self._closed_loop else intended
        when = datetime.fromtimestamp((zero - self._clocks.monotonic + self._clocks.wall) / 1e9, UTC)
        columns = (slots.seq.tolist(), slots.source.tolist(), slots.type.tolist(), slots.size.tolist())
        return self._catalogue.events(*columns, when)


def _calls(plan: Iterator[Slots], batch: int) -> Iterator[Slots]:
    """A plan, one call at a time."""
    for slots in plan:
        for first in range(0, len(slots), batch):
            part = slice(first, first + batch)
            yield type(slots)(**{name: getattr(slots, name)[part] for name in _COLUMNS})


def load_headers(run: str) -> list[tuple[str, bytes]]:
    """A publisher's ``headers`` for load: ``dualstream_load`` and the run, so that consumers can tell it."""
    return [("dualstream_load", run.encode())]


class _Flushed(Publisher, Protocol):
    async def flush(self) -> Any:
        """Returns when nothing waits any more."""


class _Unrecorded:
    """The sink of a warm-up: only counts."""

    def __init__(self) -> None:
        self.events = 0

    def sending(self, seq: Int64, intended: int, in_flight: int) -> None:  # noqa: ARG002
        self.events += len(seq)

    def settled(self, call: Call) -> None:
        pass

    def unsent(self, count: int) -> None:
        pass


async def warm_up(publisher: _Flushed, workload: Workload, seconds: float, concurrency: int) -> int:
    """The workload for so long, with ids of another run, recorded by nobody. Returns how many events.

    Load before the load: a fresh JVM answers slowly for some seconds.
    """
    if not seconds:
        return 0
    sent = _Unrecorded()
    driver = Driver(publisher, workload, workload.catalogue(RunIds.of_run(uuid4())), sent)
    driver.start()
    # Also where the plan asks for more than can be sent: it is no part of the plan.
    ending = asyncio.get_running_loop().call_later(seconds, driver.stop)
    try:
        await driver.run(concurrency)
    finally:
        ending.cancel()
    await publisher.flush()
    return sent.events
