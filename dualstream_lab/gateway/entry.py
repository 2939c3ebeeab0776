"""A client's way in, step by step: subscription, fence, store, live. :mod:`handover` says why."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.handover import Join, Phase, Stream
from dualstream_lab.gateway.past import Positions, Refusal, later
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.repair import STEP
from dualstream_lab.gateway.since import Since, check_since, known_by
from dualstream_lab.store import Page, Place, Query, Row

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.clients import Connection, Frame
    from dualstream_lab.gateway.feed import Feed
    from dualstream_lab.gateway.hub import Hub
    from dualstream_lab.gateway.log import Log, Tail

_MOST: Final = 1_000_000_000_000_000_000  # no log reaches it
_NO_PLACE: Final = Place(position=0, floor=0)
_time_of = attrgetter("ts")


class Entry:
    """Brings clients into the streams of the sources that they want to follow."""

    def __init__(self, settings: ServeSettings, hub: Hub, reads: Reads, log: Log) -> None:
        self._settings = settings
        self._hub = hub
        self._reads = reads
        self._log = log
        self._telling = asyncio.Lock()

    async def enter(self, client: Connection, source: str, since: Since) -> Feed:
        """Bring a client into a source's stream.

        Returns when it is live, with the feed to give back by :meth:`Hub.release`. Bounded by the settings'
        time-outs. Raises StreamUnavailable when neither Kafka nor the store answers, Refused for a cursor
        that is none of this topic.
        """
        feed = self._hub.acquire(source)
        try:
            stream = feed.stream
            join = Join(known_by(since))
            stranger = await check_since(self._log, since)
            await self._subscribe(feed)
            await self._fence(feed, join, () if stranger else join.after)
            if stranger:
                join.refuse(Refusal.EPOCH_CHANGED)
            deadline = asyncio.get_running_loop().time() + self._settings.store_timeout
            async with client.catch_up_slot() if join.phase is Phase.READING else nullcontext():
                rows = await self._read(feed, stream, join, deadline)
                while join.phase is Phase.READING:
                    await self._send_ahead(client, feed, join.known, rows)
                    rows = await self._read(feed, stream, join, deadline)
                self._hub.admit(client, feed, join, rows)
        except BaseException:
            self._hub.release(feed)
            raise
        return feed

    async def _subscribe(self, feed: Feed) -> None:
        upstream = self._hub.upstream
        refusal = None
        try:
            async with asyncio.timeout(self._settings.subscribe_timeout):
                if upstream is not None:
                    refusal = await upstream.subscribe(feed.channel)
                    # The connection may have been lost since, before this went on.
                    feed.subscribed = upstream.confirms(feed.channel)
                    if feed.subscribed:
                        return
        except TimeoutError:
            pass
        self._hub.degrade(feed, refusal)

    async def _fence(self, feed: Feed, join: Join, named: Sequence[int] | Positions) -> None:
        """Where the source's partitions end; ``named``: those that the client's cursor has."""
        page = None if feed.placed and feed.begun else await self._place(feed)
        positions = {partition: place.position for partition, place in page.places.items()} if page else {}
        partitions = feed.partitions
        try:
            async with asyncio.timeout(2 * self._settings.request_timeout):
                ends = await self._log.ends({*partitions, *named})
        except (StreamUnavailable, TimeoutError) as error:
            # Kafka is away: nothing is acknowledged, and what the store lacks will be found as late.
            if page is None and not feed.begun:
                raise StreamUnavailable(str(error) or "neither Kafka nor the store answers") from error
            if not feed.begun:
                feed.stream.begin(positions)
            confirmed = feed.stream.confirmed
            join.unfenced({p: confirmed.get(p, -1) + 1 for p in partitions})
            self._hub.repairs.fence([feed])
        else:
            if not feed.begun:
                # Elsewhere the past is what the store has; or, where it is away, what the log had.
                own = {partition: ends[partition] for partition in partitions}
                feed.stream.begin({**(self._log.known if page is None else positions), **own})
            join.fenced(ends)
        feed.begun = True

    async def _place(self, feed: Feed) -> Page | None:
        """Learn from the store where the source has been; None where it is away."""
        nothing = dict.fromkeys(range(self._log.identity.partitions), _MOST)
        try:
            (page,) = await self._reads.pages([Query(feed.source, nothing)])
        except StoreError:
            return None
        feed.learn(page)
        return page

    async def _read(self, feed: Feed, stream: Stream[Frame], join: Join, deadline: float) -> Sequence[Row]:
        """What the client is to be told: to enter with; or ahead of that, where it is READING still."""
        loop = asyncio.get_running_loop()
        last_call = loop.time() + 2 * self._settings.store_timeout + self._settings.request_timeout
        while join.phase is Phase.READING and feed.stream is stream:
            try:
                mine, theirs = await self._read_pages(feed, join, deadline)
            except StoreError:
                join.refuse(Refusal.STORE_UNAVAILABLE)
            except StreamUnavailable:
                join.refuse(Refusal.STORE_LAG)
            else:
                await self._hub.repairs.settle(feed, stream, theirs)
                if feed.stream is not stream:
                    break
                if len(mine.rows) > STEP and (ahead := join.read_ahead(mine, feed.homes)):
                    return ahead
                if stream.level(mine) and (rows := join.read(mine, feed.homes)):
                    return rows
                if loop.time() > last_call and join.phase is Phase.READING:
                    join.refuse(Refusal.STORE_LAG)
        if feed.stream is not stream:
            join.renew()
        return ()

    async def _send_ahead(
        self, client: Connection, feed: Feed, before: Positions, rows: Sequence[Row]
    ) -> None:
        """A long past, a piece at a time, of all clients together: others would have to wait for it."""
        known = dict(before)
        for begin in range(0, len(rows), STEP):
            piece = rows[begin : begin + STEP]
            async with self._telling:
                client.catch_up(feed.stored(piece, known, old=True), feed.source)
                await asyncio.sleep(0)
            self._hub.stats.sent += len(piece)
            known |= {row.partition: row.offset for row in piece}

    async def _read_pages(self, feed: Feed, join: Join, deadline: float) -> list[Page]:
        """The client's page and the stream's, of one snapshot, as far as both need it."""
        confirmed = feed.stream.confirmed
        # By Kafka, another client may have brought the stream further than the store is.
        wanted = later(join.fence, {partition: offset + 1 for partition, offset in confirmed.items()})
        there = await self._reads.reach(wanted, max(0.0, deadline - asyncio.get_running_loop().time()))
        asked = (join.after, confirmed)
        pages = await self._reads.pages([Query(feed.source, after) for after in asked])
        if there:
            return pages
        return await self._with_log(feed, wanted, *zip(asked, pages, strict=True))

    async def _with_log(self, feed: Feed, wanted: Positions, *asked: tuple[Positions, Page]) -> list[Page]:
        """The pages (each with what it was asked after), longer by what the store lacks up to ``wanted``."""
        places = asked[0][1].places
        lacking = {p: end for p, end in wanted.items() if places.get(p, _NO_PLACE).position < end}

        async def read(partition: int, end: int) -> Tail:
            end = max(end, feed.stream.confirmed.get(partition, -1) + 1)
            first = places.get(partition, _NO_PLACE).position
            return await self._log.read(feed.source, partition, first, end)

        tails = await asyncio.gather(*(read(partition, end) for partition, end in lacking.items()))
        longer = dict(zip(lacking, tails, strict=True))
        most = self._settings.catch_up_events
        return [_extended(page, longer, after, most) for after, page in asked]


def _extended(page: Page, tails: Mapping[int, Tail], after: Positions, most: int) -> Page:
    """The page, longer by what Kafka has beyond it; at most so many rows."""
    places, first, through = dict(page.places), dict(page.first), dict(page.through)
    for partition, tail in tails.items():
        place = places.get(partition, _NO_PLACE)
        places[partition] = Place(tail.end, place.floor, place.hole, place.reason)
        if tail.rows:
            first.setdefault(partition, tail.rows[0].offset)
        if not page.more:
            through[partition] = tail.end - 1
    if page.more:
        return Page(places=places, first=first, rows=page.rows, through=through, more=True)
    # A cursor may be beyond the store: it was told what came from Kafka.
    found = [[row for row in tail.rows if row.offset > after.get(p, -1)] for p, tail in tails.items()]
    rows = [*page.rows, *heapq.merge(*found, key=_time_of)]
    for row in rows[most:]:
        through[row.partition] = min(through[row.partition], row.offset - 1)
    return Page(places=places, first=first, rows=rows[:most], through=through, more=len(rows) > most)
