"""A member of a consumer group, on the same adapter: Kafka says which partitions it reads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, Self

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log.connection import connecting, refusal
from dualstream_lab.kafka_log.consumer import LogConsumer
from dualstream_lab.tasks import end_tasks

log = logging.getLogger(__name__)

_SESSION: Final = 6.0  # s until what a killed member had is given to others: the least that Kafka allows


class GroupConsumer(LogConsumer, ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of ``settings.group``. ``let_go`` is awaited before partitions are given away.

    Positions are not the group's: whoever uses this seeks to its own after every change of the assignment.
    ``generation`` changes whenever the assignment does; then :meth:`seek`, before which nothing is polled.
    Partitions that are added to the topic are given out within ``refresh_interval``.
    """

    def __init__(self, settings: ServeSettings, let_go: Callable[[], Awaitable[None]]) -> None:
        super().__init__(
            settings,
            fetch_max_wait_ms=100,  # also the time that a seek may wait for a fetch that is under way
            fetch_max_bytes=16 * 2**20,
            max_partition_fetch_bytes=2 * 2**20,  # a larger record is fetched all the same
            group_id=settings.group,
            session_timeout_ms=round(_SESSION * 1000),
            heartbeat_interval_ms=round(_SESSION * 1000 / 4),
            metadata_max_age_ms=round(settings.refresh_interval * 1000),
        )
        self._let_go = let_go
        self._sought = -1
        self._given = asyncio.Event()
        self._committing: asyncio.Task[None] | None = None
        self.generation = 0
        self.rebalances = 0

    @classmethod
    async def open(cls, settings: ServeSettings, let_go: Callable[[], Awaitable[None]]) -> Self:
        """Connect, within ``start_timeout``; :meth:`join` then joins the group. Raises StreamUnavailable."""
        consumer = cls(settings, let_go)
        try:
            async with connecting(settings):
                await consumer.start()
        except BaseException:
            await consumer.close()
            raise
        return consumer

    def join(self) -> None:
        """Ask the group for partitions, which it gives later."""
        self._consumer.subscribe([self._topic], listener=self)

    @property
    def partitions(self) -> list[int]:
        """The partitions that this member has now."""
        return sorted(target.partition for target in self._consumer.assignment())

    @property
    def dead(self) -> bool:
        """See :attr:`LogConsumer.dead`."""
        return super().dead or bool(self._consumer._coordinator._coordination_task.done())  # noqa: SLF001

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """aiokafka: the group is about to change, and takes these partitions away."""
        self.generation += 1
        self._given.clear()
        self._troubles.now.clear()
        if revoked:
            await self._let_go()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """aiokafka: the group has changed, and these are the partitions now."""
        self.generation += 1
        self.rebalances += 1
        self._given.set()
        log.info("partitions %s of %s", sorted(target.partition for target in assigned), self._topic)

    async def given(self) -> bool:
        """Wait, for at most a second, while the group changes; False if it still does.

        Raises StreamUnavailable where the group cannot be joined.
        """
        self._check()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._given.wait()
        return self._given.is_set()

    def seek(self, positions: Mapping[int, int]) -> bool:
        """Go on there; False if these are not partitions that it has now. Others that it has are not read."""
        partitions = set(self.partitions)
        if not self._given.is_set() or not partitions >= positions.keys():
            return False
        self.positions = dict(positions)
        self._troubles.now.clear()
        self._unanswered.clear()
        self._paused = partitions - positions.keys()
        for partition in partitions:
            target = self._target(partition)
            self._consumer.seek(target, positions.get(partition, 0))
            if partition in self._paused:
                self._consumer.pause(target)
            else:
                self._consumer.resume(target)
        self._sought = self.generation
        return True

    def _before_poll(self) -> None:
        self._check()
        # (Who does not poll for five minutes leaves the group.)
        self._consumer._subscription._last_fetch_ended = time.monotonic()  # noqa: SLF001

    def _check(self) -> None:
        """(What the group's coordinator refuses is told to who asks; until then it does not go on.)"""
        try:
            self._consumer._coordinator.check_errors()  # noqa: SLF001
        except KafkaError as error:
            self.generation += 1
            reason = refusal(error, self._options, self._topic) or repr(error)
            raise StreamUnavailable(f"the consumer group of {self._topic} failed: {reason}") from error

    def _is_settled(self) -> bool:
        """Nothing is polled while positions have not been sought since the group changed."""
        return self._sought == self.generation

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group, for tools that show its lag; nothing here reads it. Raises StreamUnavailable."""
        # (In an outage it would never end; cancelled, it leaves a task behind that nobody owns.)
        if self._committing is None or self._committing.done():
            offsets = {self._target(partition): offset for partition, offset in positions.items()}
            self._committing = asyncio.create_task(self._consumer.commit(offsets))
            self._committing.add_done_callback(lambda task: task.cancelled() or task.exception())  # noticed
            await asyncio.wait([self._committing], timeout=self._timeout)
        if not self._committing.done():
            raise StreamUnavailable("the group's offsets are not committed yet: Kafka does not answer")
        if not self._committing.cancelled() and (error := self._committing.exception()) is not None:
            raise StreamUnavailable(f"the group's offsets were not committed: {error!r}") from error

    async def close(self) -> None:
        """Leave the group and disconnect, within seconds; see :meth:`LogClient.close`."""
        await super().close()
        if self._committing is not None:
            await end_tasks([self._committing], timeout=1.0)

    def lag(self, positions: Mapping[int, int]) -> int:
        """Committed messages that Kafka had, as last seen, beyond these positions."""
        return sum(
            max(0, state.lso - positions[partition])
            for partition, state in self._states()
            if partition in positions and state.lso is not None
        )
