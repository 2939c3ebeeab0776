"""A client's way in, step by step: subscription, fence, store, live. :mod:`handover` says why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.handover import Join, Phase, Refusal
from dualstream_lab.store import Page, Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.cursor import Cursor
    from dualstream_lab.gateway.feed import Client, Feed
    from dualstream_lab.gateway.hub import Hub
    from dualstream_lab.gateway.reads import Reads
    from dualstream_lab.gateway.repair import Log
    from dualstream_lab.kafka_log import LogIdentity
    from dualstream_lab.store import Row

__all__ = ["Entry"]

_MOST = 1_000_000_000_000_000_000


class Entry:
    """Lets clients in."""

    def __init__(
        self, settings: ServeSettings, log_is: LogIdentity, hub: Hub, reads: Reads, log: Log
    ) -> None:
        self._settings = settings
        self._log_is = log_is
        self._hub = hub
        self._reads = reads
        self._log = log

    async def enter(self, client: Client, source: str, since: Cursor | int | None) -> Feed:
        """Bring a client into a source's stream, after a cursor, an offset (-1: all there is), or (None) now.

        Returns when it is live, with the feed to give back by :meth:`Hub.release`. Bounded by the settings'
        time-outs. Raises StreamUnavailable when neither Kafka nor the store answers.
        """
        feed = self._hub.acquire(source)
        try:
            stranger = isinstance(since, tuple) and since[:2] != (self._log_is.epoch, feed.stream.partition)
            after = since.offset if isinstance(since, tuple) else since
            join = Join(after)
            await self._subscribe(feed)
            join.subscribed()
            join.fenced(await self._fence(feed))
            if stranger:
                join.refuse(Refusal.EPOCH_CHANGED)
            rows = await self._read(feed, join)
        except BaseException:
            self._hub.release(feed)
            raise
        self._hub.admit(client, feed, join, rows)
        return feed

    async def _subscribe(self, feed: Feed) -> None:
        upstream = self._hub.upstream
        try:
            async with asyncio.timeout(self._settings.subscribe_timeout):
                if upstream is not None:
                    await upstream.subscribe(feed.channel)
                    feed.subscribed = True
                    return
        except TimeoutError:
            pass
        self._hub.degrade(feed)

    async def _fence(self, feed: Feed) -> int:
        partition = feed.stream.partition
        try:
            end = await self._log.end(partition)
        except StreamUnavailable as error:
            # Kafka is away: nothing is acknowledged, and what the store lacks will be found as late.
            try:
                (page,) = await self._reads.pages([Query(feed.source, partition, _MOST)])
            except StoreError:
                raise error from None
            end = page.position
            self._hub.repairs.fence([feed])
        if not feed.begun:
            feed.stream.begin(end)
            feed.begun = True
        return end

    async def _read(self, feed: Feed, join: Join) -> Sequence[Row]:
        stream, loop = feed.stream, asyncio.get_running_loop()
        deadline = loop.time() + self._settings.store_timeout
        last_call = deadline + self._settings.store_timeout + self._settings.request_timeout
        rows: Sequence[Row] = ()
        while join.phase is Phase.READING:
            try:
                left = max(0.0, deadline - loop.time())
                there = await self._reads.reach(stream.partition, join.fence, left)
                wanted = (join.after, stream.confirmed)
                mine, theirs = await self._reads.pages(
                    [Query(feed.source, stream.partition, after) for after in wanted]
                )
                if not there and mine.position < join.fence:
                    mine, theirs = await self._with_log(feed, join.fence, mine, theirs)
            except StoreError:
                join.refuse(Refusal.STORE_UNAVAILABLE)
            except StreamUnavailable:
                join.refuse(Refusal.STORE_LAG)
            else:
                self._hub.repairs.settle(feed, theirs)
                if stream.level(mine):
                    rows = join.read(mine)
                elif loop.time() > last_call:
                    join.refuse(Refusal.STORE_LAG)
        return rows

    async def _with_log(self, feed: Feed, end: int, mine: Page, theirs: Page) -> tuple[Page, Page]:
        """The pages, and what the store lacks up to ``end``, from Kafka itself."""
        first = mine.position
        tail = list(await self._log.read(feed.source, feed.stream.partition, first, end))

        def longer(page: Page) -> Page:
            return Page(end, page.floor, page.rows if page.more else page.rows + tail, page.more)

        return longer(mine), longer(theirs)
