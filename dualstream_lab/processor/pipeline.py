"""Poll, decode, handle, apply, without end: while one batch is applied, the next is polled and decoded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import ConfigError, StoreConflict, StoreError, StreamUnavailable
from dualstream_lab.kafka_log import GroupConsumer, Repeats
from dualstream_lab.processor.batch import Batch, Handler, Placement
from dualstream_lab.processor.claim import AnotherLog, Claim
from dualstream_lab.processor.dead_letters import DeadLetters
from dualstream_lab.record import Decoder
from dualstream_lab.store import Store

log = logging.getLogger(__name__)

_MAX_RECORDS: Final = 5000  # of a poll
_HEAD_START: Final = 0.001  # s for the store's thread to have its batch before this one decodes the next
_REST: Final = 0.02  # s between polls that have few: each transaction costs as much as a hundred events
_BURST: Final = 4  # polls that need not wait for that: one call's events come partition by partition
_SHORT_REST: Final = 0.002  # s, then, and where somebody waits for the store
_MANY: Final = 1000  # events of a poll after which the next follows at once
_PAUSE: Final = 0.5  # s before what failed is tried again
_LONGEST: Final = 10.0  # s: the pause grows up to that while the store fails
_WARN_EVERY: Final = 60.0  # s between warnings of one and the same
_COMMIT: Final = 1.0  # s between commits to the group
_LET_GO: Final = 10.0  # s that a batch has to end in when its partition goes to another processor
_UNSETTLED: Final = 10.0  # s without partitions to read after which that is a trouble
_UNREAD: Final = 30.0  # s before a partition that could not be begun is asked for again


class Pipeline:
    """From a group's consumer into a store. Its counters are read from outside."""

    def __init__(
        self, settings: ServeSettings, store: Store, handlers: Sequence[Handler], letters: DeadLetters
    ) -> None:
        self._settings = settings
        self._store = store
        self._handlers = handlers
        self._letters = letters
        self._make = partial(Batch, settings.topic, decode=Decoder(), keep=bool(handlers))
        self._settled = -1  # the consumer's generation in which it was last told where to go on
        self._settled_at = self._polled_at = time.monotonic()
        self._rested = 0.0  # until when, if each poll took its rest
        self._applying: asyncio.Task[None] | None = None
        self._failure: tuple[str, str] | None = None
        self._repeats = Repeats(_WARN_EVERY)
        self._unstored: dict[int, str] = {}
        self._unread: dict[int, str] = {}
        self.claim = Claim(settings, store)
        self.placement = Placement(settings.topic)
        self.consumer: GroupConsumer
        self.positions: dict[int, int] = {}
        """Of its partitions: applied up to here."""
        self.wanted = asyncio.Event()
        """Set: somebody waits for the store to come further."""
        self.applied = self.duplicates = self.poison = self.holes = self.conflicts = 0
        self.last_applied = 0

    async def open(self) -> None:
        """Claim the store for the log as it is, and join the group.

        Raises StoreError when the store has another log, ConfigError, StreamUnavailable.
        """
        self.consumer = await GroupConsumer.open(self._settings, self.let_go)
        try:
            await self.claim.make(self.consumer)
        except BaseException:
            await self.consumer.close()
            raise
        self.consumer.join()

    async def close(self) -> None:
        """Leave the group, within seconds."""
        await self.consumer.close()

    def troubles(self) -> dict[str, str]:
        """What it cannot go on with now, and why: ``partition 3``, ``kafka``, ``store``, ``dead letters``."""
        now = time.monotonic()
        reading = dict(self.consumer.troubles)
        found = {f"partition {partition}": reason for partition, reason in self._unread.items()}
        if reading and len(reading) == len(self.positions) and all(t.silent for t in reading.values()):
            found["kafka"] = f"it has not answered for {now - min(t.since for t in reading.values()):.0f} s"
        else:
            found |= {f"partition {p}": f"it {trouble}" for p, trouble in reading.items()}
        if self._settled != self.consumer.generation and now - self._polled_at > _UNSETTLED:
            group = self._settings.group
            found["kafka"] = f"group {group} has given no partitions for {now - self._polled_at:.0f} s"
        if self._unstored:
            found["store"] = next(iter(self._unstored.values()))
        if self._letters.trouble is not None:
            found["dead letters"] = self._letters.trouble
        return found | dict([self._failure] if self._failure is not None else ())

    # --- where to go on

    async def _settle(self) -> None:
        """Learn where the store is in the partitions that there are now, and go on there."""
        if not await self.consumer.given():
            return
        generation = self.consumer.generation
        positions, unread = await self.claim.positions(self.consumer, set(self.consumer.partitions))
        if generation == self.consumer.generation and self.consumer.seek(positions):
            self.positions, self._unread = positions, unread
            self._settled = generation
            self._settled_at = time.monotonic()
            self._failure = None

    # --- the loop

    async def consume(self) -> None:
        """Poll and apply until cancelled. Raises AnotherLog."""
        pause = _PAUSE
        try:
            while True:
                try:
                    await self._step()
                except AnotherLog as error:
                    self._failure = "store", str(error)
                    raise
                except StoreConflict as error:
                    self.conflicts += 1
                    self._settled = -1
                    log.warning("%s; going on there", error)
                except (StoreError, StreamUnavailable, ConfigError) as error:
                    what = "store" if isinstance(error, StoreError) else "kafka"
                    self._settled = -1
                    self._failure = what, str(error)
                    self._warn(what, error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST) if what == "store" else _PAUSE
                else:
                    pause = _PAUSE
        finally:
            self._settled = -1
            if self._applying is not None:
                applying, self._applying = self._applying, None
                applying.cancel()
                await asyncio.gather(applying, return_exceptions=True)
            self._unstored.clear()

    async def _step(self) -> None:
        if self.consumer.dead:
            await self._replace_consumer()
        if self._settled != self.consumer.generation:
            await self._finish()
            await self._settle()
            return
        batches = await self.consumer.poll(self._make, max_records=_MAX_RECORDS)
        self._polled_at = time.monotonic()
        await self.claim.check(self.consumer)
        await self._finish()
        if batches and self._settled == self.consumer.generation:
            self._applying = asyncio.create_task(self._apply(batches))
            many = sum(map(len, batches)) >= _MANY
            await (asyncio.sleep(_HEAD_START) if many else self._rest())
        self._settle_again()

    async def _rest(self) -> None:
        """Let more come before the next transaction; less after a silence, or where somebody waits for it."""
        await asyncio.sleep(_SHORT_REST)
        now = time.monotonic()
        self._rested = min(max(self._rested, now) + _REST, now + (_BURST + 1) * _REST)
        if (rest := self._rested - now - _BURST * _REST) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self.wanted.wait()
        self.wanted.clear()

    def _settle_again(self) -> None:
        """Where the log does not have a position any more, or a partition could not be begun."""
        since = time.monotonic() - self._settled_at
        cut = any(trouble.removed for trouble in self.consumer.troubles.values())
        if (cut and since > _PAUSE) or (self._unread and since > _UNREAD):
            self._settled = -1

    async def _replace_consumer(self) -> None:
        log.error("the consumer has died; connecting anew")
        await self.consumer.close()
        rebalances = self.consumer.rebalances
        self.consumer = await GroupConsumer.open(self._settings, self.let_go)
        self.consumer.rebalances = rebalances
        self._settled = -1
        self.consumer.join()

    def _warn(self, what: str, error: Exception) -> None:
        """Of what goes on once a minute, of what is new at once."""
        sentence = f"the processor waits for {what}: {error}"
        if self._repeats.due(sentence):
            log.warning("%s", sentence)

    async def commit(self) -> None:
        """Until cancelled, tell the group where the store is, for tools that show its lag."""
        committed: dict[int, int] = {}
        while True:
            await asyncio.sleep(_COMMIT)
            positions = dict(self.positions)
            if positions == committed:
                continue
            try:
                await self.consumer.commit(positions)
                committed = positions
            except StreamUnavailable as error:
                log.info("%s", error)

    async def let_go(self) -> None:
        """Let the batch that is being applied end, so that whoever gets the partition goes on after it."""
        if self._applying is not None:
            await asyncio.wait([self._applying], timeout=_LET_GO)

    # --- applying

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
        applied = await asyncio.gather(*map(self._stored, batches), return_exceptions=True)
        failed: BaseException | None = None
        for batch, new in zip(batches, applied, strict=True):
            if isinstance(new, BaseException):
                failed = new
                continue
            self.positions[batch.partition] = batch.next_
            self.applied += new
            self.duplicates += len(batch.events) - new
            self.poison += len(batch.letters)
            self.holes += sum(hole.end - hole.first for hole in batch.holes)
            self.placement.note(batch.partition, batch.events, self.claim.partitions)
            self.last_applied = time.time_ns()
        if failed is not None:
            raise failed

    async def _stored(self, batch: Batch) -> int:
        """Until the store has it, however long that is full or gone: its letters are not written again."""
        pause, partition = _PAUSE, batch.partition
        try:
            while True:
                try:
                    return await self._store.apply(
                        partition, batch.first, batch.next_, batch.events, batch.holes
                    )
                except StoreConflict:
                    raise
                except StoreError as error:
                    self._unstored[partition] = str(error)
                    self._warn("store", error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST)
        finally:
            self._unstored.pop(partition, None)
