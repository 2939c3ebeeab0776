"""The texts of a file of events through a publisher: nothing is skipped without a reason on record."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dualstream_lab.errors import DualStreamError, EventError
from dualstream_lab.ingest.lines import parse_line
from dualstream_lab.ingest.splitting import Unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dualstream_lab.event import Event
    from dualstream_lab.ingest.lines import Format

__all__ = ["Ingest", "Progress", "Publisher", "Reject"]

T = TypeVar("T")

_BATCH = 500
_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A line that was not published, and why."""

    line: int
    reason: str
    raw: bytes


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far it is. Lines count from 1."""

    read: int = 0
    durable: int = 0
    rejected: int = 0
    up_to: int = 0
    """Every line up to this one is durable, rejected or empty."""


class Publisher(Protocol):
    """What ingest needs of a publisher."""

    async def publish_batch(self, events: Sequence[Event]) -> Any:
        """Returns when all are durable; raises PublishError or EventError."""


@dataclass(slots=True)
class _Batch:
    last: int
    events: list[Event] = field(default_factory=list)
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    call: asyncio.Task[None] | None = None


class Ingest:
    """Publishes lines in order, a few batches in flight.

    ``on_reject`` is told of every line that is refused; the rest goes on. ``rate``: lines/s at most.
    :meth:`stop` ends it after what is in flight. A failure of Kafka, of the file or of ``on_reject`` ends it,
    too, and is raised; ``progress.up_to`` then says where to go on.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        form: Format,
        on_reject: Callable[[Reject], None],
        rate: float | None = None,
        first_line: int = 1,
    ) -> None:
        self.progress = Progress(up_to=first_line - 1)
        self._publisher = publisher
        self._form = form
        self._on_reject = on_reject
        self._rate = rate
        self._first = first_line
        self._size = _BATCH if rate is None else max(1, min(_BATCH, int(rate / 20)))
        self._flying: deque[_Batch] = deque()
        self._stopping = asyncio.Event()

    @property
    def stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Read no more."""
        self._stopping.set()

    async def run(self, read: Callable[[int], Awaitable[list[bytes | Unreadable]]]) -> None:
        """Publish all lines. ``read(n)`` gives at least one and at most ``n``, or none at the end.

        Raises PublishError, and what ``read`` and ``on_reject`` raise, once what was in flight has ended.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        taken = 0
        try:
            while lines := await self._unless_stopped(read(self._size)):
                batch = _Batch(last=self.progress.read + len(lines))
                for line in lines:
                    self.progress.read += 1
                    if self.progress.read >= self._first:
                        taken += 1
                        self._take(batch, self.progress.read, line)
                await self._launch(batch)
                if self._rate is not None:
                    pause = asyncio.sleep(max(0.0, started + taken / self._rate - loop.time()))
                    await self._unless_stopped(pause)
        finally:
            while self._flying:
                await self._land()

    async def _unless_stopped(self, work: Awaitable[T]) -> T | None:
        """The work's result; None when stopped first."""
        doing = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([doing, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stopping.is_set():
            doing.cancel()
            await asyncio.wait([doing])
            return None
        return doing.result()

    def _take(self, batch: _Batch, number: int, line: bytes | Unreadable) -> None:
        if isinstance(line, Unreadable):
            self._reject(number, line.reason, line.raw)
            return
        if not line or line.isspace():
            return
        try:
            batch.events.append(parse_line(line, self._form))
            batch.lines.append((number, line))
        except EventError as error:
            self._reject(number, str(error), line)

    async def _launch(self, batch: _Batch) -> None:
        while len(self._flying) >= _IN_FLIGHT:
            await self._land()
        batch.call = asyncio.create_task(self._publish(batch))
        self._flying.append(batch)

    async def _publish(self, batch: _Batch) -> None:
        if not batch.events:
            return
        try:
            await self._publisher.publish_batch(batch.events)
        except EventError as error:
            # Only the publisher knows the topic's limit: leave out what it names.
            for index, reason in error.invalid.items():
                self._reject(*_at(batch, index, reason))
            batch.events = [event for i, event in enumerate(batch.events) if i not in error.invalid]
            if batch.events:
                await self._publisher.publish_batch(batch.events)

    async def _land(self) -> None:
        batch = self._flying.popleft()
        assert batch.call is not None  # noqa: S101
        try:
            await batch.call
        except DualStreamError:
            self._stopping.set()
            # Later batches may be durable, but a resume begins here.
            later = [other.call for other in self._flying if other.call is not None]
            self._flying.clear()
            await asyncio.gather(*later, return_exceptions=True)
            raise
        self.progress.durable += len(batch.events)
        self.progress.up_to = batch.last

    def _reject(self, number: int, reason: str, line: bytes) -> None:
        self.progress.rejected += 1
        self._on_reject(Reject(line=number, reason=reason, raw=line.rstrip(b"\r\n")))


def _at(batch: _Batch, index: int, reason: str) -> tuple[int, str, bytes]:
    number, line = batch.lines[index]
    return number, reason, line
