"""The open-loop driver: events are sent when the plan says so, however slow the answers are."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dualstream_lab.errors import BufferFull, OutcomeUnknown, PublishError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dualstream_lab.event import Event
    from dualstream_lab.workload import Catalogue, Slots, Workload

__all__ = ["DURABLE", "Driver", "Rows"]

_TICK = 0.001
PENDING, DURABLE, REJECTED, UNKNOWN, NO_ROOM = range(5)


class Publisher(Protocol):
    """What the driver needs of a publisher."""

    async def publish_batch(self, events: Sequence[Event]) -> Any:
        """Returns when all are durable; raises PublishError."""


class Rows:
    """One row an event of the plan, as columns of int64. Times are ns of the monotonic clock, 0 for "not".

    ``intended``: when the plan wants it sent; ``sent``: when it was; ``acked``: when the publisher said
    so; ``outcome``: durable (1), rejected (2), unknown (3), no room (4), pending (0).
    """

    def __init__(self, count: int) -> None:
        self.intended = np.zeros(count, np.int64)
        self.sent = np.zeros(count, np.int64)
        self.acked = np.zeros(count, np.int64)
        self.outcome = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.intended)

    def columns(self) -> dict[str, npt.NDArray[np.int64]]:
        """By name."""
        return {"intended": self.intended, "sent": self.sent, "acked": self.acked, "outcome": self.outcome}


class Driver:
    """Sends a workload's events through a publisher at their intended times.

    What is due in one tick of a millisecond goes as one batch. A late driver sends late and never skips;
    latency is to be counted from ``rows.intended``, so that waiting for a slow answer is not left out
    (coordinated omission).
    """

    def __init__(self, publisher: Publisher, workload: Workload, catalogue: Catalogue) -> None:
        self._publisher = publisher
        self._plan = list(workload.slots())
        self._catalogue = catalogue
        self._calls: set[asyncio.Task[None]] = set()
        self.rows = Rows(sum(len(slots) for slots in self._plan))
        self.started = 0

    async def run(self) -> None:
        """Send everything and wait for every answer (bounded by the publisher's deadlines)."""
        self.started = time.monotonic_ns()
        try:
            for slots in self._plan:
                await self._send(slots)
            if self._calls:
                await asyncio.wait(self._calls)
        finally:
            for call in self._calls:
                call.cancel()

    async def _send(self, slots: Slots) -> None:
        self.rows.intended[slots.first : slots.first + len(slots)] = slots.intended + self.started
        at = 0
        plan = list(zip(slots.source.tolist(), slots.type.tolist(), slots.size.tolist(), strict=True))
        while at < len(slots):
            due = int(np.searchsorted(slots.intended, time.monotonic_ns() - self.started, "right"))
            if due > at:
                now = datetime.now(UTC)
                events = [
                    self._catalogue.event(slots.first + place, source, kind, size, now)
                    for place, (source, kind, size) in enumerate(plan[at:due], at)
                ]
                call = asyncio.create_task(self._publish(slots.first + at, events))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
                at = due
            await asyncio.sleep(_TICK)

    async def _publish(self, first: int, events: list[Event]) -> None:
        rows, last = self.rows, first + len(events)
        rows.sent[first:last] = time.monotonic_ns()
        try:
            await self._publisher.publish_batch(events)
        except PublishError as error:
            rows.outcome[first:last] = _code(error)
            return
        rows.acked[first:last] = time.monotonic_ns()
        rows.outcome[first:last] = DURABLE


def _code(error: PublishError) -> int:
    if isinstance(error, BufferFull):
        return NO_ROOM
    return UNKNOWN if isinstance(error, OutcomeUnknown) else REJECTED
