"""The processor: every record of the topic is in the store once, or among the dead letters."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, Self

import msgspec

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.kafka_log import connecting, topic_info
from dualstream_lab.processor.batch import Handler
from dualstream_lab.processor.dead_letters import DeadLetters
from dualstream_lab.processor.pipeline import Pipeline
from dualstream_lab.store import Store

log = logging.getLogger(__name__)

_PRUNE: Final = 5.0  # s between prunings
_REPORT: Final = 2.0  # s between reports to the store
_END: Final = 5.0  # s for what is in flight to end when it is cancelled


class ProcessorStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one processor's counters, since its start."""

    applied: int
    """Events that were new to the store."""
    duplicates: int
    """Events whose id the store had."""
    poison: int
    """Records in the dead-letter topic."""
    lost: int
    """Offsets that Kafka's retention removed before they were processed."""
    holes: int
    """Offsets that compaction had removed of what was processed."""
    misplaced: int
    """Events in partitions where no publisher of ours would have put them: another partitioner did."""
    conflicts: int
    """Times that another processor had moved a partition on."""
    rebalances: int
    """Times that the group gave out partitions."""
    partitions: int
    """That it has now."""
    lag: int
    """Committed messages of its partitions that Kafka had, as last seen, and the store has not."""
    held: int
    """Messages of its partitions behind the beginning of an open transaction, which waits for its end."""
    errors: int
    """Times that something of a partition could not be read; each is tried again."""
    troubles: dict[str, str]
    """What it cannot go on with now, and why: ``partition 3``, ``kafka``, ``store``, ``dead letters``."""
    last_applied: int
    """When something was applied last: ns since the epoch; 0: not yet."""


class Processor:
    """Applies the topic's committed events to a store, one of a consumer group that shares it.

    Each event is in the store once, also after ``kill -9``, with the first of those that have its source and
    id: the position is the store's own, moved in the transaction that inserts the events. The group's
    (``settings.group``) offsets are committed about once a second, for lag tools only. A processor that lost
    its partition without noticing is refused by the store, and goes on where that is. Partitions that are
    added to the topic are read from their beginning, within ``refresh_interval``. ``handlers`` are called in
    their order before the store; for them it is at least once. What is no event, an invalid one, or refused
    by a handler, goes to the dead-letter topic (at least once, too) and no further. The store is pruned to
    ``retention_age``, ``retention_events`` and ``retention_bytes`` every five seconds.

    A partition that cannot be read stops no other; a Kafka or a store that is away is waited for. Both are
    reported to the store every two seconds, where it can be written, and in :meth:`stats`.

    Use it as an async context manager around :meth:`run`. The store is not closed with it.
    """

    def __init__(self, settings: ServeSettings, store: Store, handlers: Sequence[Handler] = ()) -> None:
        self._settings = settings
        self._store = store
        self._handlers = tuple(handlers)
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
        self._exits = AsyncExitStack()
        self._pipeline: Pipeline | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Look at the topic, make the dead-letter topic if there is none, and claim the store.

        Bounded by ``start_timeout``, and a few seconds when it fails. Raises ConfigError (no such topic),
        StreamUnavailable (Kafka does not answer), StoreError (it holds another log, or cannot be written).
        """
        if self._pipeline is not None:
            return
        settings = self._settings
        async with AsyncExitStack() as exits, connecting(settings):
            info = await topic_info(settings)
            letters = await DeadLetters.open(settings, info)
            exits.push_async_callback(letters.close)
            pipeline = Pipeline(settings, self._store, self._handlers, letters)
            await pipeline.open()
            exits.push_async_callback(pipeline.close)
            self._exits = exits.pop_all()
        info.warn_of_contradictions(
            settings.topic,
            retention_age=settings.retention_age,
            retention_bytes=settings.retention_bytes,
        )
        self._pipeline = pipeline

    async def run(self) -> None:
        """Work until it is cancelled, also through outages of Kafka and of the store.

        Raises StoreError when Kafka has another log than the store has: the topic was made anew. Another run
        goes on where this one was.
        """
        pipeline = self._started()
        works = pipeline.consume(), pipeline.commit(), self._prune(), self._keep_reporting()
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # they end with an error only
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_END)
            with suppress(TimeoutError):
                async with asyncio.timeout(_END):
                    await self._report(ended=True)

    def stats(self) -> ProcessorStats:
        """The counters now."""
        pipeline = self._started()
        return ProcessorStats(
            applied=pipeline.applied,
            duplicates=pipeline.duplicates,
            poison=pipeline.poison,
            lost=pipeline.claim.lost,
            holes=pipeline.holes,
            misplaced=pipeline.placement.misplaced,
            conflicts=pipeline.conflicts,
            rebalances=pipeline.consumer.rebalances,
            partitions=len(pipeline.consumer.partitions),
            lag=pipeline.consumer.lag(pipeline.positions),
            held=sum(pipeline.consumer.held().values()),
            errors=pipeline.consumer.errors,
            troubles=pipeline.troubles(),
            last_applied=pipeline.last_applied,
        )

    def hasten(self) -> None:
        """Apply what there is now, in place of waiting up to 20 ms for more: somebody waits for it."""
        if self._pipeline is not None:
            self._pipeline.wanted.set()

    async def close(self) -> None:
        """Leave the group and disconnect, within seconds. To be called when :meth:`run` has ended."""
        await self._exits.aclose()

    async def _prune(self) -> None:
        settings = self._settings
        while True:
            await asyncio.sleep(_PRUNE)
            try:
                await self._store.prune(
                    age=settings.retention_age, count=settings.retention_events, size=settings.retention_bytes
                )
            except StoreError as error:
                log.warning("the store could not be pruned: %s", error)

    async def _keep_reporting(self) -> None:
        while True:
            await self._report()
            await asyncio.sleep(_REPORT)

    async def _report(self, *, ended: bool = False) -> None:
        pipeline = self._started()
        partitions, troubles = [] if ended else pipeline.consumer.partitions, pipeline.troubles()
        try:
            await self._store.report(
                self._name, group=self._settings.group, partitions=partitions, troubles=troubles
            )
        except StoreError as error:
            log.info("the store could not be told how the processor is: %s", error)

    def _started(self) -> Pipeline:
        if self._pipeline is None:
            raise StreamUnavailable("the processor is not started: use `async with Processor(…)`")
        return self._pipeline
