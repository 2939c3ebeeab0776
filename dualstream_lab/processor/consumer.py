"""The adapter of aiokafka's group consumer: the one place that knows its ways in trouble.

Positions are not the group's: whoever uses this seeks to those of the store after every change of the
assignment. What aiokafka does in trouble is in parentheses where it is guarded against.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiokafka import ConsumerRecord

    from dualstream_lab.config import ServeSettings

    Records = list[ConsumerRecord[bytes | None, bytes | None]]

__all__ = ["GroupConsumer", "Polled"]

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT: Final = 2.0
_POLL: Final = 0.5  # s to wait for records
_MAX_RECORDS: Final = 5000
_FETCH: Final = {
    "fetch_max_wait_ms": 100,  # also the time that a seek may wait for a fetch that is under way
    "fetch_max_bytes": 16 * 2**20,
    "max_partition_fetch_bytes": 2 * 2**20,  # a larger record is fetched all the same
}


class Polled(NamedTuple):
    """What a poll had of a partition, and where the partition goes on: past holes and markers, too."""

    partition: int
    records: Records
    next_: int


class GroupConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the consumer group. ``let_go`` is awaited before partitions are given away.

    ``generation`` changes whenever the assignment does, and when what was polled is to be polled again: then
    :meth:`seek`, which every partition needs before it is polled.
    """

    def __init__(self, settings: ServeSettings, let_go: Callable[[], Awaitable[None]]) -> None:
        self._topic = settings.topic
        self._timeout = settings.request_timeout
        self._let_go = let_go
        self._polling: asyncio.Task[dict[TopicPartition, Records]] | None = None
        self._ready = -1
        self._given = asyncio.Event()
        self.generation = 0
        self.rebalances = 0
        self._consumer = AIOKafkaConsumer(
            **kafka_client_options(settings.kafka_url or ""),
            **_FETCH,
            request_timeout_ms=round(settings.request_timeout * 1000),
            group_id=settings.group,
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
            await asyncio.wait_for(self._given.wait(), 1)
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

    async def seek(self, positions: Mapping[int, int]) -> bool:
        """Go on there, in all partitions; False if the assignment has changed, or is changing."""
        generation = self.generation
        if self._polling is not None:
            # It began before, and may end with records from the old positions. (Cancelled, it would make
            # aiokafka believe that somebody polls for ever.)
            await asyncio.wait([self._polling], timeout=2 * _POLL)
            if not self._polling.done():
                return False
            self._polling.exception()
            self._polling = None
        if generation != self.generation or self.partitions != sorted(positions):
            return False
        for partition, position in positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition), position)
        self._ready = generation
        return True

    async def poll(self) -> list[Polled]:
        """What has come, of the partitions that moved; [] after half a second.

        Raises StreamUnavailable where aiokafka gave up on something, and what it had is to be polled again.
        """
        if self._polling is None:
            polling = self._consumer.getmany(timeout_ms=round(_POLL * 1000), max_records=_MAX_RECORDS)
            self._polling = asyncio.ensure_future(polling)
        # (While the group changes, it waits without limit.)
        await asyncio.wait([self._polling], timeout=2 * _POLL)
        if not self._polling.done() or self._ready != self.generation:
            return []
        polled, self._polling = self._polling, None
        try:
            records = polled.result()
        except KafkaError as error:
            # (After a failed fetch, records that it had before the bad one are left out.)
            self.generation += 1
            raise StreamUnavailable(f"a fetch from {self._topic} failed: {error!r}") from error
        return [
            Polled(target.partition, records.get(target, []), await self._consumer.position(target))
            for target in self._consumer.assignment()
        ]

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
        consumer: Any = self._consumer
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        stopping = asyncio.ensure_future(consumer.stop())
        await asyncio.wait([stopping], timeout=_CLOSE_TIMEOUT)
        if not stopping.done():
            stopping.cancel()
        # (With a dead broker stop() raises CancelledError and leaves its client open.)
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await consumer._client.close()  # noqa: SLF001
