"""Poll, decode, handle, apply, without end: while one batch is applied, the next is polled and decoded."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError

from dualstream_lab.errors import ConfigError, StoreConflict, StoreError, StreamUnavailable
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.processor.consumer import GroupConsumer
from dualstream_lab.record import Decoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.processor.batch import Batch
    from dualstream_lab.processor.dead_letters import DeadLetters
    from dualstream_lab.processor.handling import Handler
    from dualstream_lab.store import Store

__all__ = ["Pipeline"]

log = logging.getLogger(__name__)

_HEAD_START: Final = 0.001  # s for the store's thread to have its batch before this one decodes the next
_REST: Final = 0.02  # s after a poll that had few: each transaction costs as much as a hundred events
_MANY: Final = 1000  # events of a poll after which the next follows at once
_PAUSE: Final = 0.5  # s before what failed is tried again
_COMMIT: Final = 1.0  # s between commits to the group
_LET_GO: Final = 10.0  # s that a batch has to end in when its partition goes to another processor
_BEYOND: Final = 5  # times that a position is found beyond the end before that is believed


class Pipeline:
    """From a group's consumer into a store. Its counters are read from outside."""

    def __init__(
        self, settings: ServeSettings, store: Store, handlers: Sequence[Handler], letters: DeadLetters
    ) -> None:
        self._settings = settings
        self._store = store
        self._handlers = handlers
        self._letters = letters
        self._decoder = Decoder()
        self._settled = -1  # the consumer's generation in which it was last told where to go on
        self._applying: asyncio.Task[None] | None = None
        self._beyond = 0
        self.consumer: GroupConsumer
        self.positions: dict[int, int] = {}
        """Of its partitions: applied up to here."""
        self.applied = self.duplicates = self.poison = self.lost = self.conflicts = 0
        self.last_applied = 0

    async def open(self) -> None:
        """Claim the store for the log as it is, and join the group.

        Raises StoreError when the store has another log, ConfigError, StreamUnavailable, KafkaError, OSError.
        """
        self.consumer = await GroupConsumer.open(self._settings, self.let_go)
        try:
            await self._claim()
        except BaseException:
            await self.consumer.close()
            raise
        self.consumer.join()

    async def close(self) -> None:
        """Leave the group, within seconds."""
        await self.consumer.close()

    async def _claim(self) -> dict[int, int]:
        """Returns where the partitions end."""
        identity = await log_identity(self._settings)
        first, ends = await self.consumer.bounds(range(identity.partitions))
        known = await self._store.positions()
        await self._store.begin(identity.epoch, first)
        for partition, offset in first.items():
            if lost := max(0, offset - known.get(partition, offset)):
                self.lost += lost
                log.warning(
                    "partition %d: offsets %d to %d went by Kafka's retention before they were processed",
                    partition,
                    known[partition],
                    offset - 1,
                )
        return ends

    async def consume(self) -> None:
        """Until cancelled. Raises StoreError."""
        try:
            while True:
                try:
                    await self._step()
                except StoreConflict as error:
                    self.conflicts += 1
                    self._settled = -1
                    log.warning("%s; going on there", error)
                except (StreamUnavailable, ConfigError, KafkaError, OSError, TimeoutError) as error:
                    self._settled = -1
                    log.warning("the processor waits for Kafka: %s", error)
                    await asyncio.sleep(_PAUSE)
        finally:
            self._settled = -1
            if self._applying is not None:
                applying, self._applying = self._applying, None
                applying.cancel()
                await asyncio.gather(applying, return_exceptions=True)

    async def commit(self) -> None:
        """Until cancelled, tell the group where the store is, for tools that show its lag."""
        told: dict[int, int] = {}
        while True:
            await asyncio.sleep(_COMMIT)
            positions = dict(self.positions)
            if positions == told:
                continue
            try:
                await self.consumer.commit(positions)
                told = positions
            except StreamUnavailable as error:
                log.info("%s", error)

    async def let_go(self) -> None:
        """Let the batch that is being applied end, so that whoever gets the partition goes on after it."""
        if self._applying is not None:
            await asyncio.wait([self._applying], timeout=_LET_GO)

    async def _step(self) -> None:
        if self.consumer.dead:
            await self._replace_consumer()
        if self._settled != self.consumer.generation:
            await self._finish()
            await self._settle()
            return
        batches = await self.consumer.poll(self._decoder, keep=bool(self._handlers))
        await self._finish()
        if batches and self._settled == self.consumer.generation:
            self._applying = asyncio.create_task(self._apply(batches))
            many = sum(map(len, batches)) >= _MANY
            await asyncio.sleep(_HEAD_START if many else _REST)

    async def _finish(self) -> None:
        """Wait for what is being applied. Raises what it ended with."""
        if self._applying is not None:
            await asyncio.wait([self._applying])
            applied, self._applying = self._applying, None
            applied.result()

    async def _apply(self, batches: list[Batch]) -> None:
        for batch in batches:
            await batch.handle(self._handlers)
            if batch.letters:
                await self._letters.send(batch.letters)
        # all at once, so that the store need not wait for this loop between them
        applied = await asyncio.gather(
            *(
                self._store.apply(batch.partition, batch.first, batch.next_, batch.events)
                for batch in batches
            ),
            return_exceptions=True,
        )
        failed: BaseException | None = None
        for batch, new in zip(batches, applied, strict=True):
            if isinstance(new, BaseException):
                failed = new
                continue
            self.positions[batch.partition] = batch.next_
            self.applied += new
            self.duplicates += len(batch.events) - new
            self.poison += len(batch.letters)
            self.last_applied = time.time_ns()
        if failed is not None:
            raise failed

    async def _settle(self) -> None:
        """Learn where the store is in the partitions that there are now, and go on there."""
        if not await self.consumer.given():
            return
        generation = self.consumer.generation
        partitions = self.consumer.partitions
        ends = await self._claim()
        known = await self._store.positions()
        positions = {partition: known[partition] for partition in partitions}
        if self._is_beyond(positions, ends):
            await asyncio.sleep(_PAUSE)
        elif generation == self.consumer.generation and self.consumer.seek(positions):
            self.positions = positions
            self._settled = generation

    def _is_beyond(self, positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
        """Whether the log ends before a position. Raises StoreError once that is sure.

        A new leader may learn where the log ends a little late.
        """
        beyond = [partition for partition in positions if ends[partition] < positions[partition]]
        self._beyond = self._beyond + 1 if beyond else 0
        if self._beyond == _BEYOND:
            partition = beyond[0]
            raise StoreError(
                f"partition {partition} of {self._settings.topic} ends at {ends[partition]} and the store is "
                f"at {positions[partition]}: Kafka has lost a part of its log, or it was made anew; choose "
                "another --store, or move this one away"
            )
        return bool(beyond)

    async def _replace_consumer(self) -> None:
        log.error("the consumer has died; connecting anew")
        await self.consumer.close()
        rebalances = self.consumer.rebalances
        self.consumer = await GroupConsumer.open(self._settings, self.let_go)
        self.consumer.rebalances = rebalances
        self._settled = -1
        self.consumer.join()
