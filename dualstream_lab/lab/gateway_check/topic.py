"""What two real publishers, whose announcements cross, publish; and what the topic itself says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import msgspec

from dualstream_lab.config import Settings
from dualstream_lab.errors import PublishError
from dualstream_lab.event import Event
from dualstream_lab.kafka_log import Records
from dualstream_lab.lab.gateway_check.history import SourceLog, by_partition
from dualstream_lab.load.driver import load_headers
from dualstream_lab.publisher import DualPublisher

_WRITERS: Final = 2
_CALLERS: Final = 4  # calls of each that may be open
_PAUSE: Final = 0.02  # s between two calls of a caller
_BEHIND: Final = 1.0  # s that a caller catches up after a stall


def event_of(source: str, writer: int) -> Event:
    """An event of the source whose data are the number of the publisher that writes it."""
    kind, _, name = source.partition(":")
    return Event(type="push", source_type=kind, source_id=name, data=writer)


class Publishing:
    """Open publishers that write about the sources at a rate.

    ``durable``: events that they said are durable; ``failed``: calls that ended with an error.
    """

    def __init__(self, publishers: Sequence[DualPublisher], sources: Sequence[str], rate: float) -> None:
        self.publishers = publishers
        self._sources = sources
        self._rate = rate
        self._number = 0
        self.durable = 0
        self.failed = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, sources: Sequence[str], rate: float) -> AsyncIterator[Publishing]:
        """Open the publishers. Raises ConfigError and StreamUnavailable."""
        marked = load_headers(str(uuid4()))
        async with AsyncExitStack() as exits:
            publishers = [
                await exits.enter_async_context(DualPublisher(settings, headers=marked))
                for _ in range(_WRITERS)
            ]
            yield cls(publishers, sources, rate)

    async def run(self, seconds: float) -> None:
        """Publish for so many seconds."""
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for writer in range(_WRITERS):
                for _ in range(_CALLERS):
                    group.create_task(self._caller(writer, until))

    async def _caller(self, writer: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        callers = _WRITERS * _CALLERS
        batch = max(1, round(self._rate * _PAUSE / callers))
        pause = batch * callers / self._rate
        due = loop.time()  # of all in one moment: then announcements cross
        while True:
            due = max(due + pause, loop.time() - _BEHIND)
            if due > until or loop.time() > until:
                return
            await asyncio.sleep(max(0.0, due - loop.time()))
            events = [event_of(self._next_source(), writer) for _ in range(batch)]
            try:
                await self.publishers[writer].publish_batch(events)
                self.durable += batch
            except PublishError:  # what became of them is seen in the log
                self.failed += 1

    def _next_source(self) -> str:
        self._number += 1
        return self._sources[self._number % len(self._sources)]


class _Value(msgspec.Struct):
    id: str
    source_type: str
    source_id: str
    data: Any = None


_decode = msgspec.json.Decoder(_Value).decode


class TopicLog:
    """Keeps the events of some sources that a LogReader reads. ``numbers``: gives each event id a number."""

    def __init__(self, sources: Sequence[str], numbers: Mapping[str, int]) -> None:
        self._rows: dict[str, list[tuple[int, int, int, int, float]]] = {source: [] for source in sources}
        self._numbers = numbers

    def __call__(self, part: Records, _now: int) -> None:
        """Take records of one partition, as a :class:`LogReader` gives them."""
        for record in part.records:
            try:
                value = _decode(record.value or b"")
            except (msgspec.DecodeError, UnicodeError):
                continue  # somebody else's
            rows = self._rows.get(f"{value.source_type}:{value.source_id}")
            if rows is not None:
                writer = value.data if isinstance(value.data, int) else -1
                event, at = self._numbers[value.id], record.timestamp / 1000
                rows.append((part.partition, record.offset, event, writer, at))

    def logs(self) -> dict[str, dict[int, SourceLog]]:
        """The logs of all sources, by source and partition."""
        return {source: by_partition(rows) for source, rows in self._rows.items()}
