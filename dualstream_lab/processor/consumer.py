"""The adapter of aiokafka's group consumer: the one place that knows its inside, and its ways in trouble.

Positions are not the group's: whoever uses this seeks to those of the store after every change of the
assignment. What is used of its inside: the fetcher's records, so that each is decoded and let go at once,
which getmany() makes far dearer (aiokafka is pinned to one minor version for that). What it does in
trouble is in parentheses where it is guarded against.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.errors import CorruptRecordException, KafkaError

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import end_consumer
from dualstream_lab.processor.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiokafka.record.memory_records import MemoryRecords

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.record import Decoder

__all__ = ["GroupConsumer"]

log = logging.getLogger(__name__)

_POLL: Final = 0.5  # s to wait for records
_MAX_RECORDS: Final = 5000
_SESSION: Final = 6.0  # s until what a killed processor had is given to others: the least that Kafka allows
_FETCH: Final = {
    "fetch_max_wait_ms": 100,  # also the time that a seek may wait for a fetch that is under way
    "fetch_max_bytes": 16 * 2**20,
    "max_partition_fetch_bytes": 2 * 2**20,  # a larger record is fetched all the same
}


class GroupConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the consumer group. ``let_go`` is awaited before partitions are given away.

    ``generation`` changes whenever the assignment does, and when what was polled is to be polled again: then
    :meth:`seek`, which every partition needs before it is polled.
    """

    def __init__(self, settings: ServeSettings, let_go: Callable[[], Awaitable[None]]) -> None:
        self._topic = settings.topic
        self._timeout = settings.request_timeout
        self._let_go = let_go
        self._sought = -1
        self._given = asyncio.Event()
        self.generation = 0
        self.rebalances = 0
        self._consumer = AIOKafkaConsumer(
            **kafka_client_options(settings.kafka_url or ""),
            **_FETCH,
            request_timeout_ms=round(settings.request_timeout * 1000),
            group_id=settings.group,
            session_timeout_ms=round(_SESSION * 1000),
            heartbeat_interval_ms=round(_SESSION * 1000 / 4),
            enable_auto_commit=False,
            auto_offset_reset="none",
        )

    @classmethod
    async def open(cls, settings: ServeSettings, let_go: Callable[[], Awaitable[None]]) -> Self:
        """Connect; :meth:`join` then joins the group. Raises KafkaError, OSError."""
        consumer = cls(settings, let_go)
        try:
            await consumer._consumer.start()
        except BaseException:
            await consumer.close()
            raise
        return consumer

    def join(self) -> None:
        """Ask for partitions; they come later."""
        self._consumer.subscribe([self._topic], listener=self)

    @property
    def partitions(self) -> list[int]:
        """Those that it has now."""
        return sorted(target.partition for target in self._consumer.assignment())

    @property
    def dead(self) -> bool:
        """Whether a task inside has ended: then no more comes, without an error, and only a new one helps."""
        tasks = (self._consumer._coordinator._coordination_task, self._consumer._fetcher.error_future)  # noqa: SLF001
        return any(task.done() for task in tasks)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """aiokafka: the group changes."""
        self.generation += 1
        self._given.clear()
        if revoked:
            await self._let_go()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """aiokafka: the group has changed."""
        self.generation += 1
        self.rebalances += 1
        self._given.set()
        log.info("partitions %s of %s", sorted(target.partition for target in assigned), self._topic)

    async def given(self) -> bool:
        """Wait, for at most a second, while the group changes; False if it still does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._given.wait()
        return self._given.is_set()

    async def bounds(self, partitions: Iterable[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Where the log begins and ends. Raises StreamUnavailable after ``request_timeout``."""
        targets = [TopicPartition(self._topic, partition) for partition in partitions]
        try:
            async with asyncio.timeout(2 * self._timeout):
                first = await self._consumer.beginning_offsets(targets)
                ends = await self._consumer.end_offsets(targets)
        except (KafkaError, OSError, TimeoutError) as error:
            raise StreamUnavailable(
                f"Kafka does not say where {self._topic} begins and ends: {error}"
            ) from error
        return (
            {target.partition: offset for target, offset in first.items()},
            {target.partition: offset for target, offset in ends.items()},
        )

    def seek(self, positions: Mapping[int, int]) -> bool:
        """Go on there, in all partitions; False if these are not what it has now."""
        if self.partitions != sorted(positions) or not self._given.is_set():
            return False
        for partition, position in positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition), position)
        self._sought = self.generation
        return True

    async def poll(self, decode: Decoder, *, keep: bool) -> list[Batch]:
        """What has come, of the partitions that moved: past holes and markers, too; [] after half a second.

        Raises StreamUnavailable where a fetch failed, and what was fetched is to be polled again.
        """
        fetcher = self._consumer._fetcher  # noqa: SLF001
        try:
            self._consumer._coordinator.check_errors()  # noqa: SLF001
            # (Who does not poll for five minutes leaves the group.)
            self._consumer._subscription._last_fetch_ended = time.monotonic()  # noqa: SLF001
            if not fetcher._records:  # noqa: SLF001
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL):
                        await fetcher._create_fetch_waiter()  # noqa: SLF001
            if self._sought != self.generation:
                return []
            return self._drained(decode, keep=keep)
        except KafkaError as error:
            self.generation += 1
            raise StreamUnavailable(f"a fetch from {self._topic} failed: {error!r}") from error

    def _drained(self, decode: Decoder, *, keep: bool) -> list[Batch]:
        """As the fetcher's own fetched_records() does it."""
        fetcher = self._consumer._fetcher  # noqa: SLF001
        fetches = fetcher._records  # noqa: SLF001
        batches: list[Batch] = []
        room = _MAX_RECORDS
        while fetches and room > 0:
            target, fetched = next(iter(fetches.items()))
            whole = True
            if not isinstance(fetched, FetchResult):
                if batches:
                    break  # its error is for the next poll
            elif fetched.check_assignment(target):
                records = fetched._partition_records  # noqa: SLF001
                batch = Batch(self._topic, target.partition, records.next_fetch_offset, keep=keep)
                try:
                    whole = _take(batch, records._records, decode, room)  # noqa: SLF001
                except KafkaError as error:
                    fetches[target] = FetchError(error=error, backoff=0)
                    whole = False
                records.next_fetch_offset = batch.next_
                fetched._update_position()  # noqa: SLF001
                if batch.next_ > batch.first:
                    batches.append(batch)
                    room -= len(batch)
            if whole:
                del fetches[target]
                fetcher._notify(fetcher._wait_consume_future)  # noqa: SLF001
                if isinstance(fetched, FetchError):
                    fetched.check_raise()
        return batches

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group, for tools that show its lag; nothing here reads it. Raises StreamUnavailable."""
        offsets = {TopicPartition(self._topic, partition): offset for partition, offset in positions.items()}
        try:
            async with asyncio.timeout(self._timeout):  # (in an outage it would never end)
                await self._consumer.commit(offsets)
        except (KafkaError, OSError, TimeoutError) as error:
            raise StreamUnavailable(f"the group's offsets were not committed: {error!r}") from error

    def lag(self, positions: Mapping[int, int]) -> int:
        """Messages that Kafka had, when last heard of, beyond these positions."""
        targets = {target.partition: target for target in self._consumer.assignment()}
        highs = {p: self._consumer.highwater(targets[p]) for p in positions.keys() & targets.keys()}
        return sum(max(0, high - positions[p]) for p, high in highs.items() if high is not None)

    async def close(self) -> None:
        """Leave the group and disconnect, within seconds."""
        await end_consumer(self._consumer)


def _take(batch: Batch, fetched: MemoryRecords, decode: Decoder, room: int) -> bool:
    """Move what was fetched into the batch; False if there is more. Raises KafkaError after what is good."""
    while fetched.has_next():
        if len(batch) >= room:
            return False
        kafka_batch = fetched.next_batch()
        if not kafka_batch.validate_crc():
            raise CorruptRecordException(f"wrong CRC at or after offset {batch.next_}")
        if not kafka_batch.is_control_batch:
            for record in kafka_batch:
                if record.offset >= batch.next_:
                    batch.add(record, decode)
        batch.next_ = max(batch.next_, kafka_batch.next_offset)
    return True
