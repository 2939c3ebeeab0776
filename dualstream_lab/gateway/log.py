"""The log as a gateway knows it: which one it is, how far it goes, and where its sources are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.gateway.past import Positions
from dualstream_lab.kafka_log import LogClient, LogEnds, LogIdentity, LogWatch, partition_of, read_range
from dualstream_lab.record import Decoder, Record
from dualstream_lab.store import Row

if TYPE_CHECKING:
    OnChange = Callable[[LogIdentity, LogIdentity], None]

log = logging.getLogger(__name__)

_MARGIN: Final = 10_000
"""Messages beyond the last known end that are believed: what comes in a second, until the next sample."""
_LOOKS: Final = 1.0  # s between looks at the topic that others than its watch ask for
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


class _Tails:
    """Reads what the store does not have yet from Kafka: one read a partition for all who ask meanwhile.

    They all get the same ``end``, so that clients of one source do not overtake each other.
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


class Log:
    """What the gateway knows of Kafka, and asks it. :meth:`run` is its task.

    ``changed(before, after)`` is told when it grew, or was made anew. ``reach``: how far each partition goes,
    as far as is known, or may have grown since; one object. ``known``: where it ended when it was asked last.
    """

    def __init__(
        self, settings: ServeSettings, identity: LogIdentity, consumer: LogClient, changed: OnChange
    ) -> None:
        self._ends = LogEnds(settings, consumer)
        self._tails = _Tails(settings)
        self.read = self._tails.read
        every, ask = settings.refresh_interval, consumer.identity
        self._watch = LogWatch(identity, interval=every, ask=ask, on_change=self._change)
        self._changed = changed
        self._counts = {identity.partitions}
        self.known: dict[int, int] = {}
        self.reach: dict[int, int] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = float("-inf")

    @property
    def identity(self) -> LogIdentity:
        """Which log it is, as it was seen last."""
        return self._watch.identity

    def homes(self, source: str) -> tuple[int, ...]:
        """The partitions that publishers write a source to: today's, and those of fewer partitions before."""
        return tuple(dict.fromkeys(partition_of(source, count) for count in sorted(self._counts)))

    async def ends(self, partitions: Iterable[int]) -> Positions:
        """Where committed messages end, asked from now on. Raises StreamUnavailable if one does not say."""
        ends, refused = await self.each_end(partitions)
        for reason in refused.values():
            raise StreamUnavailable(reason)
        return ends

    async def each_end(self, partitions: Iterable[int]) -> tuple[Positions, dict[int, str]]:
        """Where those end that can be asked, and why the others cannot: one must not hold up the others."""
        ends, refused = await self._ends.ends(partitions)
        if any(end < self.known.get(partition, 0) for partition, end in ends.items()):
            await self._refresh()  # it was made anew, or has lost a part: which one, before that is told
        self._know(ends)
        return ends, refused

    async def has(self, partitions: Iterable[int]) -> bool:
        """Whether it has these partitions; looks whether some were added."""
        highest = max(partitions, default=-1)
        if highest >= self.identity.partitions:
            await self._refresh()
        return highest < self.identity.partitions

    def reached(self, positions: Positions) -> None:
        """Note how far the store has come: the log goes at least as far."""
        self._know({p: position for p, position in positions.items() if position > self.known.get(p, 0)})

    async def run(self) -> None:
        """Work until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._ends.run, self._tails.run, self._watch.run):
                    group.create_task(work())
        finally:
            if self._looking is not None:
                self._looking.cancel()

    def _know(self, ends: Positions) -> None:
        for partition, end in ends.items():
            self.known[partition] = end
            self.reach[partition] = end + _MARGIN

    async def _refresh(self) -> None:
        """Look at the topic, once for all who want it, and not too often: strangers may ask for it."""
        loop = asyncio.get_running_loop()
        if self._looking is None and loop.time() - self._looked >= _LOOKS:
            self._looked = loop.time()
            self._looking = loop.create_task(self._refresh_now())
        if self._looking is not None:
            await asyncio.wait([self._looking])

    async def _refresh_now(self) -> None:
        try:
            await self._watch.look()
        except (StreamUnavailable, ConfigError) as error:
            log.info("the topic could not be looked at: %s", error)
        finally:
            self._looking = None

    def _change(self, before: LogIdentity, after: LogIdentity) -> None:
        if before.epoch != after.epoch:
            self.known.clear()
            self.reach.clear()
            self._counts.clear()
        self._counts.add(after.partitions)
        self._changed(before, after)
