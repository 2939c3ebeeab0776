"""A client's way in, step by step: subscription, fence, store, live. :mod:`handover` says why."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
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
        """Bring a client into a source's stream: after a cursor, from all that is kept (-1), or (None) now.

        Returns when it is live, with the feed to give back by :meth:`Hub.release`. Bounded by the settings'
        time-outs. Raises StreamUnavailable when neither Kafka nor the store answers.
        """
        feed = self._hub.acquire(source)
        try:
            stranger = isinstance(since, tuple) and since[:2] != (self._log_is.epoch, feed.stream.partition)
            after = since.offset if isinstance(since, tuple) else since
            join = Join(after)
            await self._subscribe(feed)
            end, certain = await self._fence(feed)
            if not certain and after is not None and after >= end and not stranger:
                # It was told by Kafka what the store does not have yet: there is no past to tell.
                join, end = Join(None), after + 1
            join.subscribed()
            join.fenced(end)
            if stranger:
                join.refuse(Refusal.EPOCH_CHANGED)
            deadline = asyncio.get_running_loop().time() + self._settings.store_timeout
            async with client.turn() if join.phase is Phase.READING else nullcontext():
                rows = await self._read(feed, join, deadline, earliest=since == -1)
                self._hub.admit(client, feed, join, rows)
        except BaseException:
            self._hub.release(feed)
            raise
        return feed

    async def _subscribe(self, feed: Feed) -> None:
        upstream = self._hub.upstream
        try:
            async with asyncio.timeout(self._settings.subscribe_timeout):
                if upstream is not None:
                    await upstream.subscribe(feed.channel)
                    # The connection may have been lost since, before this went on.
                    feed.subscribed = upstream.confirms(feed.channel)
                    if feed.subscribed:
                        return
        except TimeoutError:
            pass
        self._hub.degrade(feed)

    async def _fence(self, feed: Feed) -> tuple[int, bool]:
        """Where the partition ends; False: only the store was there to say so."""
        partition = feed.stream.partition
        certain = True
        try:
            end = await self._log.end(partition)
        except StreamUnavailable as error:
            # Kafka is away: nothing is acknowledged, and what the store lacks will be found as late.
            try:
                (page,) = await self._reads.pages([Query(feed.source, partition, _MOST)])
            except StoreError:
                raise error from None
            end, certain = page.position, False
            self._hub.repairs.fence([feed])
        if not feed.begun:
            feed.stream.begin(end)
            feed.begun = True
        return end, certain

    async def _read(self, feed: Feed, join: Join, deadline: float, *, earliest: bool) -> Sequence[Row]:
        stream, loop = feed.stream, asyncio.get_running_loop()
        last_call = loop.time() + 2 * self._settings.store_timeout + self._settings.request_timeout
        rows: Sequence[Row] = ()
        while join.phase is Phase.READING:
            try:
                left = max(0.0, deadline - loop.time())
                # By Kafka, another client may have brought the stream further than the store is.
                wanted_end = max(join.fence, stream.confirmed + 1)
                there = await self._reads.reach(stream.partition, wanted_end, left)
                wanted = (join.after, stream.confirmed)
                mine, theirs = await self._reads.pages(
                    [Query(feed.source, stream.partition, after) for after in wanted]
                )
                if not there and mine.position < wanted_end:
                    asked = zip(wanted, (mine, theirs), strict=True)
                    end = max(wanted_end, stream.confirmed + 1)
                    mine, theirs = await self._with_log(feed, end, *asked)
            except StoreError:
                join.refuse(Refusal.STORE_UNAVAILABLE)
            except StreamUnavailable:
                join.refuse(Refusal.STORE_LAG)
            else:
                self._hub.repairs.settle(feed, theirs)
                if earliest:  # what was removed is not missed
                    join.after = max(join.after, mine.floor - 1)
                if stream.level(mine):
                    rows = join.read(mine)
                elif loop.time() > last_call:
                    join.refuse(Refusal.STORE_LAG)
        return rows

    async def _with_log(self, feed: Feed, end: int, *asked: tuple[int, Page]) -> list[Page]:
        """The pages (each with what it was asked after), longer by what the store lacks up to ``end``."""
        first = min(page.position for _, page in asked)
        tail = await self._log.read(feed.source, feed.stream.partition, first, end)
        most = self._settings.catch_up_events
        pages = []
        for after, page in asked:
            # A cursor may be beyond the store: it was told what came from Kafka.
            more = [row for row in tail.rows if row.offset > after and not page.more]
            rows = page.rows + more
            pages.append(Page(tail.end, page.floor, rows[:most], page.more or len(rows) > most))
        return pages
