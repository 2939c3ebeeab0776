"""What the store does not have yet, from Kafka itself: one read a partition for all who ask meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import read_range
from dualstream_lab.record import Decoder
from dualstream_lab.store import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.record import Record

__all__ = ["Tail", "Tails"]

_MOST: Final = 50_000  # records of one read
_PARTITIONS: Final = 4  # that are read at once
_CHUNK: Final = 1000  # records, about 1 ms, between which the loop goes on


class Tail(NamedTuple):
    """A source's events from where was asked on, and everything of its partition below ``end``."""

    end: int
    rows: list[Row]


class _Asked(NamedTuple):
    source: str
    first: int
    end: int
    answer: asyncio.Future[Tail]


class Tails:
    """Reads the ends of partitions. :meth:`run` is its task.

    All who are answered by one read get the same ``end``, so that clients of one source do not overtake each
    other.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._timeout = settings.store_timeout + settings.request_timeout
        self._asked: dict[int, list[_Asked]] = {}
        self._reading: set[int] = set()
        self._slots = asyncio.Semaphore(_PARTITIONS)
        self._wake = asyncio.Event()
        self._decoder = Decoder()

    async def read(self, source: str, partition: int, first: int, end: int) -> Tail:
        """The source's events from ``first`` to ``end``, or further. Raises StreamUnavailable."""
        answer: asyncio.Future[Tail] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(partition, []).append(_Asked(source, first, end, answer))
        self._wake.set()
        try:
            async with asyncio.timeout(2 * self._timeout):  # a read that is under way, and the next
                return await answer
        except TimeoutError as error:
            raise StreamUnavailable("Kafka gave no records in time") from error

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for partition in self._asked.keys() - self._reading:
                    self._reading.add(partition)
                    group.create_task(self._serve(partition))

    async def _serve(self, partition: int) -> None:
        async with self._slots:
            asked = [one for one in self._asked.pop(partition) if not one.answer.done()]
            if asked:
                await self._answer(partition, asked)
        self._reading.discard(partition)
        self._wake.set()

    async def _answer(self, partition: int, asked: Sequence[_Asked]) -> None:
        first, end = min(one.first for one in asked), max(one.end for one in asked)
        try:
            async with asyncio.timeout(self._timeout):
                records = await read_range(self._settings, partition, first, end, limit=_MOST)
                rows = await self._rows(partition, records, {one.source for one in asked})
        except (StreamUnavailable, TimeoutError) as error:
            for one in asked:
                if not one.answer.done():
                    one.answer.set_exception(StreamUnavailable(str(error) or "Kafka gave no records in time"))
            return
        for one in asked:
            if not one.answer.done():
                one.answer.set_result(Tail(end, [row for row in rows[one.source] if row.offset >= one.first]))

    async def _rows(
        self, partition: int, records: Sequence[Record], sources: set[str]
    ) -> dict[str, list[Row]]:
        """The sources' events among the records; what is no event is left out, as the processor does."""
        rows: dict[str, list[Row]] = {source: [] for source in sources}
        keys = {None, *(source.partition(":")[2].encode() for source in sources)}
        for number, record in enumerate(records, 1):
            if number % _CHUNK == 0:
                await asyncio.sleep(0)
            if record.key not in keys:
                continue
            event = self._decoder(partition, record)
            if not isinstance(event, str) and event.source in rows:
                rows[event.source].append(Row(partition, event.offset, event.id, event.type, event.ts))
        return rows
