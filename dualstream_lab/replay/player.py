"""What was chosen of the log, into a sink: at a rate, up to a limit, and so that one can go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from dualstream_lab.config import Settings
from dualstream_lab.errors import EventError
from dualstream_lab.event import Event
from dualstream_lab.kafka_log import LogRecord
from dualstream_lab.replay.reading import Reading
from dualstream_lab.replay.selection import LoggedEvent, Selection

_CHUNK = 500


class Sink(Protocol):
    """Where a player writes the events that were chosen."""

    async def write(self, events: Sequence[LoggedEvent]) -> int:
        """Write the events; returns how many of them are there, once they are."""


class Reject(NamedTuple):
    """A record that was left out, and why."""

    partition: int
    offset: int
    reason: str
    raw: bytes


class Player:
    """Plays a reading into a sink.

    ``rate``: events/s at most; ``limit``: events at most. ``on_reject`` is told of every record that is no
    event; the rest goes on. :meth:`stop` ends it after what is being written. When it ended, however that
    was, ``reading.at`` is where to go on: everything before it was written or rejected.
    """

    def __init__(
        self,
        reading: Reading,
        selection: Selection,
        sink: Sink,
        *,
        on_reject: Callable[[Reject], None],
        rate: float | None = None,
        limit: int | None = None,
    ) -> None:
        self.reading = reading
        self.written = 0
        self._selection = selection
        self._sink = sink
        self._on_reject = on_reject
        self._rate = rate
        self._limit = limit
        self._chosen = 0
        self._stopping = asyncio.Event()

    @property
    def stopped(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._stopping.is_set()

    @property
    def at_limit(self) -> bool:
        """Whether it ended because of ``limit``."""
        return self._chosen == self._limit

    def stop(self) -> None:
        """Read and write no more; noticed within half a second."""
        self._stopping.set()
        self.reading.stop()

    async def run(self) -> None:
        """Until the reading ends, the limit is reached, or it is stopped; raises as reading and sink do."""
        started = asyncio.get_running_loop().time()
        size = _CHUNK if self._rate is None else max(1, min(_CHUNK, int(self._rate / 20)))
        async for chunk in self.reading.chunks(size):
            before = self._chosen
            found, dealt_with = self._choose(chunk)
            if self._rate is not None:
                await self._pause_until(started + before / self._rate)
            if self.stopped:
                return
            if found:
                self.written += await self._sink.write(found)
            self.reading.done(dealt_with)
            if self.at_limit:
                return

    def _choose(self, chunk: Sequence[LogRecord]) -> tuple[list[LoggedEvent], Sequence[LogRecord]]:
        """The wanted of a chunk, and the part of it that was looked at, which is all but for the limit."""
        found: list[LoggedEvent] = []
        for place, record in enumerate(chunk, start=1):
            try:
                event = self._selection.event_of(record)
            except EventError as error:
                self._on_reject(reject(record, str(error)))
                continue
            if event is not None:
                found.append(LoggedEvent(record, event))
                self._chosen += 1
                if self.at_limit:
                    return found, chunk[:place]
        return found, chunk

    async def _pause_until(self, when: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(when):
                await self._stopping.wait()


def reject(record: LogRecord, reason: str) -> Reject:
    """The record as one that is left out, for this reason."""
    return Reject(record.partition, record.offset, reason, record.value or b"")


class Publisher(Protocol):
    """What a replay needs of a publisher."""

    async def publish_batch(self, events: Sequence[Event]) -> Any:
        """Returns when all are durable; raises PublishError or EventError."""


class Republish:
    """Publishes events as they are, with their ids, in their order.

    ``settings`` are the publisher's: what it can hold. ``on_reject`` is told of every event that it, or the
    topic, does not take; the rest goes on. Raises PublishError.
    """

    def __init__(
        self, publisher: Publisher, settings: Settings, *, on_reject: Callable[[Reject], None]
    ) -> None:
        self._publisher = publisher
        self._max_events = settings.buffer_events
        self._max_bytes = settings.buffer_bytes // 2
        self._on_reject = on_reject

    async def write(self, events: Sequence[LoggedEvent]) -> int:
        """Returns when they are durable: how many."""
        return sum([await self._publish(batch) for batch in self._batches(events)])

    async def _publish(self, batch: list[LoggedEvent]) -> int:
        try:
            await self._publisher.publish_batch([item.event for item in batch])
        except EventError as error:
            for index, reason in error.invalid.items():
                self._on_reject(reject(batch[index].record, reason))
            batch = [item for index, item in enumerate(batch) if index not in error.invalid]
            await self._publisher.publish_batch([item.event for item in batch])
        return len(batch)

    def _batches(self, events: Sequence[LoggedEvent]) -> Iterator[list[LoggedEvent]]:
        batch: list[LoggedEvent] = []
        size = 0
        for item in events:
            length = len(item.record.value or b"")
            if batch and (len(batch) == self._max_events or size + length > self._max_bytes):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += length
        yield batch
