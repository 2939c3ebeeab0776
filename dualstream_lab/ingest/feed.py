"""A file of events through a publisher: nothing is skipped without a reason on record."""

from __future__ import annotations

import asyncio
import os
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final, Protocol, TypeVar

from dualstream_lab.errors import DualStreamError, EventError
from dualstream_lab.event import Event
from dualstream_lab.ingest.lines import Format, parse_line
from dualstream_lab.ingest.splitting import Splitter, Unreadable

T = TypeVar("T")

_BATCH: Final = 500
_IN_FLIGHT: Final = 4
_CHUNK: Final = 2**18
_BATCH_BYTES: Final = 2**20  # after which a batch is long enough


class Reader:
    """The texts of an open file's events. ``unit``: what a text is, ``line`` or (of a JSON array) ``event``.

    A pipe or terminal never blocks the loop; of a regular file a piece is read at once.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._splitter = Splitter()
        self._texts: Iterator[bytes | Unreadable] = iter(())
        self._stream: asyncio.StreamReader | None = None
        self._opened = self._ended = False

    @property
    def unit(self) -> str:
        """What the file's texts are called: ``line`` or ``event``."""
        return self._splitter.unit

    async def read(self, count: int) -> list[bytes | Unreadable]:
        """Read at least one text and at most ``count``, or none at the end.

        Raises OSError where the file cannot be read, EventError for what is surely no file of events.
        """
        texts: list[bytes | Unreadable] = []
        size = 0
        while len(texts) < count and size < _BATCH_BYTES:
            text = next(self._texts, None)
            if text is not None:
                texts.append(text)
                size += len(text) if isinstance(text, bytes) else 0
            elif texts or self._ended:
                break
            else:
                data = await self._chunk()
                self._ended = not data
                self._texts = self._splitter.feed(data) if data else self._splitter.finish()
        return texts

    async def _chunk(self) -> bytes:
        if not self._opened:
            self._opened = True
            mode = os.fstat(self._file.fileno()).st_mode
            # What may keep a reader waiting goes through the loop; it takes no files and no /dev/null.
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or self._file.isatty():
                self._stream = stream = asyncio.StreamReader(limit=_CHUNK)
                protocol = asyncio.StreamReaderProtocol(stream)
                await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._file)
        if self._stream is not None:
            return await self._stream.read(_CHUNK)
        await asyncio.sleep(0)  # a file without a single line's end must not keep Ctrl-C out
        return os.read(self._file.fileno(), _CHUNK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A line that was not published, and why."""

    line: int
    reason: str
    raw: bytes


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far the publishing of a file has come. Lines count from 1."""

    read: int = 0
    durable: int = 0
    rejected: int = 0
    up_to: int = 0
    """Every line up to this one is durable, rejected or empty."""


class Publisher(Protocol):
    """What ingest needs of a publisher."""

    async def publish_batch(self, events: Sequence[Event]) -> Any:
        """Publish events: returns when all are durable; raises PublishError or EventError."""


@dataclass(slots=True)
class _Batch:
    last: int
    events: list[Event] = field(default_factory=list)
    lines: list[tuple[int, bytes]] = field(default_factory=list)


class Ingest:
    """Publishes lines in order, a few batches in flight. ``on_reject`` is told of every line that is refused.

    ``rate``: lines/s at most. A failure of Kafka, of the file or of ``on_reject`` ends it and is raised;
    ``progress.up_to`` then says where to go on.
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
        self._flying: deque[tuple[_Batch, asyncio.Task[None]]] = deque()
        self._stopping = asyncio.Event()

    @property
    def stopped(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Read no more lines."""
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
                while len(self._flying) >= _IN_FLIGHT:
                    await self._land()
                self._flying.append((batch, asyncio.create_task(self._publish(batch))))
                if self._rate is not None:
                    pause = asyncio.sleep(max(0.0, started + taken / self._rate - loop.time()))
                    await self._unless_stopped(pause)
        finally:
            while self._flying:
                await self._land()

    async def _unless_stopped(self, work: Awaitable[T]) -> T | None:
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

    async def _publish(self, batch: _Batch) -> None:
        if not batch.events:
            return
        try:
            await self._publisher.publish_batch(batch.events)
        except EventError as error:
            # Only the publisher knows the topic's limit: leave out what it names.
            for index, reason in error.invalid.items():
                number, line = batch.lines[index]
                self._reject(number, reason, line)
            batch.events = [event for i, event in enumerate(batch.events) if i not in error.invalid]
            if batch.events:
                await self._publisher.publish_batch(batch.events)

    async def _land(self) -> None:
        batch, call = self._flying.popleft()
        try:
            await call
        except DualStreamError:
            self._stopping.set()
            # Later batches may be durable, but a resume begins here.
            later = [other for _, other in self._flying]
            self._flying.clear()
            await asyncio.gather(*later, return_exceptions=True)
            raise
        self.progress.durable += len(batch.events)
        self.progress.up_to = batch.last

    def _reject(self, number: int, reason: str, line: bytes) -> None:
        self.progress.rejected += 1
        self._on_reject(Reject(line=number, reason=reason, raw=line.rstrip(b"\r\n")))
