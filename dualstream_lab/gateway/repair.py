"""What Redis announced and Kafka may not have, and what Redis lost: both are looked for before they count."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import StoreError
from dualstream_lab.event import Notification
from dualstream_lab.gateway.log import Log
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.kafka_log import Repeats
from dualstream_lab.store import Page, Query

if TYPE_CHECKING:
    from dualstream_lab.gateway.clients import Frame
    from dualstream_lab.gateway.feed import Feed
    from dualstream_lab.gateway.handover import Stream

    _Feeds = Callable[[], Iterable[Feed]]
    _Say = Callable[[Feed, list[Frame]], None]

log = logging.getLogger(__name__)

# s between looks for what is suspected: first, and while the store does not move
_LOOKS: Final = (0.02, 0.25)
_POLL: Final = 0.25  # s between looks while Redis is away
_JITTER: Final = 0.05  # s: gateways that lost the same Redis do not ask in one moment
_AGAIN: Final = 0.5
_GROUP: Final = 200  # feeds of one look
STEP: Final = 250
"""Events that are told in one turn of the loop, some 2 ms."""
_WARN_EVERY: Final = 5.0  # s between warnings of one kind
_MOST_CLAIMS: Final = 10_000  # that wait for Kafka's answer
_PAUSE: Final = 0.01  # s after what was not true: whoever makes it up must not make Kafka busy


class Claim(NamedTuple):
    """An event that Redis has announced, and the place in the log that it claims."""

    feed: Feed
    note: Notification
    partition: int
    offset: int


class Claims:
    """Positions that Redis told and that may be beyond the log's end: Kafka is asked before they count.

    What comes meanwhile of the same source and partition is to wait behind them, as ``holds`` says: else the
    first event in a partition that was added would be told after the next ones. ``take`` gets those that are
    true, ``fence`` the feeds of those that could not be verified. :meth:`run` is its task.
    """

    def __init__(
        self, log: Log, *, take: Callable[[Claim], None], fence: Callable[[Iterable[Feed]], None]
    ) -> None:
        self._log, self._take, self._fence = log, take, fence
        self._waiting: list[Claim] = []
        self._held: Counter[tuple[str, int]] = Counter()
        self._wake = asyncio.Event()
        self.beyond = 0

    def verify(self, claim: Claim) -> None:
        """Ask Kafka; what is more than may wait is found by looking."""
        if len(self._waiting) >= _MOST_CLAIMS:
            self._fence([claim.feed])
            return
        self._waiting.append(claim)
        self._held[_key(claim)] += 1
        self._wake.set()

    def holds(self, feed: Feed, partition: int) -> bool:
        """Whether one of this source and partition waits for Kafka."""
        return bool(self._held) and (feed.source, partition) in self._held

    async def run(self) -> None:
        """Work until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            partitions = list({claim.partition for claim in waiting})
            there = await asyncio.gather(*(self._log.has([partition]) for partition in partitions))
            ends, away = await self._log.each_end(compress(partitions, there))
            self._held.subtract(map(_key, waiting))
            self._held = +self._held  # without those of which none waits
            beyond = self.beyond
            for claim in waiting:
                if claim.partition in away:
                    self._fence([claim.feed])
                elif claim.offset < ends.get(claim.partition, 0):
                    self._take(claim)
                else:
                    self.beyond += 1
            if self.beyond > beyond:
                await asyncio.sleep(_PAUSE)


def _key(claim: Claim) -> tuple[str, int]:
    return claim.feed.source, claim.partition


class Repairs:
    """Compares feeds with the store. :meth:`run` is its task; ``say`` tells a feed's clients."""

    def __init__(self, settings: ServeSettings, reads: Reads, log: Log, feeds: _Feeds, say: _Say) -> None:
        self._interval = settings.check_interval
        self._reads, self._log, self._feeds, self._say = reads, log, feeds, say
        self._due: set[Feed] = set()
        self._unfenced: set[Feed] = set()
        self._asking: set[Feed] = set()
        self._due_wake = asyncio.Event()
        self._fence_wake = asyncio.Event()
        self._poll_wake = asyncio.Event()
        self._repeats = Repeats(_WARN_EVERY)
        self.late = 0
        self.looks = 0

    def reconcile(self, feed: Feed) -> None:
        """Compare the feed with the store, as soon as the store has come far enough."""
        self._due.add(feed)
        self._due_wake.set()

    def fence(self, feeds: Iterable[Feed]) -> None:
        """Ask Kafka where the feeds' partitions end now, and compare the feeds up to there."""
        self._unfenced.update(feeds)
        if self._unfenced:
            self._fence_wake.set()

    def poll(self) -> None:
        """Begin to compare degraded feeds often: there is one now."""
        self._poll_wake.set()

    def forget(self, feed: Feed) -> None:
        """Do not compare this feed any more: it is gone."""
        for feeds in (self._due, self._unfenced, self._asking):
            feeds.discard(feed)

    async def run(self) -> None:
        """Work until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_fences())
            group.create_task(self._reconcile_suspects())
            group.create_task(self._poll_degraded())
            group.create_task(self._reconcile_all())

    async def settle(self, feed: Feed, stream: Stream[Frame], page: Page) -> None:
        """Tell what the store has and the feed's clients were not told; live again when that is all.

        Of many events a piece in each turn of the loop: everybody else would have to wait for all of them.
        Nothing where the page was read for a ``stream`` that is the feed's no more: the log was made anew.
        """
        if feed.stream is not stream:
            return
        feed.learn(page)
        if why := stream.lost(page, feed.homes):
            self._say(feed, [feed.state("subscribed", cursor=feed.cursor, recovered=False, reason=why.value)])
        missing = stream.missing(page.rows)
        for begin in range(0, len(missing) or 1, STEP):
            if begin:
                await asyncio.sleep(0)
                if feed.stream is not stream:
                    return
            before, end = stream.confirmed, begin + STEP
            if late := stream.repair(page, missing[begin:end], left=missing[end:]):
                self.late += len(late)
                self._say(feed, feed.stored(late, {p: before.get(p, -1) for p in feed.partitions}))
        waits = feed in self._unfenced or feed in self._asking
        if not stream.needs and feed.degraded and feed.subscribed and not waits:
            feed.degraded = None
            self._say(feed, [feed.state("live", cursor=feed.cursor)])

    async def _ask_fences(self) -> None:
        while True:
            await self._fence_wake.wait()
            await asyncio.sleep(random.uniform(0, _JITTER))  # noqa: S311
            self._fence_wake.clear()
            # Who asks from now on is not served by these answers.
            self._asking, self._unfenced = self._unfenced, set()
            ends, _ = await self._log.each_end({p for feed in self._asking for p in feed.partitions})
            waiting, self._asking = self._asking, set()
            unanswered = {feed for feed in waiting if not ends.keys() >= set(feed.partitions)}
            for feed in waiting - unanswered:
                feed.stream.suspect({partition: ends[partition] for partition in feed.partitions})
                self.reconcile(feed)
            if unanswered:
                if self._repeats.due("log"):
                    log.warning("%d sources wait for Kafka to be compared", len(unanswered))
                self.fence(unanswered)
                await asyncio.sleep(_AGAIN)

    async def _reconcile_suspects(self) -> None:
        while True:
            await self._due_wake.wait()
            self._due_wake.clear()
            pause = _LOOKS[0]
            while self._due:
                before = len(self._due)
                await self._compare(list(self._due))
                self._due = {feed for feed in self._due if feed.stream.needs}
                pause = _LOOKS[0] if len(self._due) < before else min(pause * 2, _LOOKS[1])
                await asyncio.sleep(pause)

    async def _poll_degraded(self) -> None:
        """While Redis is away the store is all there is."""
        while True:
            await self._poll_wake.wait()
            await asyncio.sleep(_POLL)
            degraded = [feed for feed in self._feeds() if feed.degraded]
            if not degraded:
                self._poll_wake.clear()
            await self._compare(degraded)

    async def _reconcile_all(self) -> None:
        """Compare every live feed now and then: a last notification that was lost leaves no hole to see."""
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.5, 1.5))  # noqa: S311
            feeds = [feed for feed in self._feeds() if feed.live]
            await self._compare(feeds)
            for feed in feeds:
                if feed.synced != feed.cursor:
                    feed.synced = feed.cursor
                    self._say(feed, [feed.state("sync", cursor=feed.cursor)])

    async def _compare(self, feeds: Sequence[Feed]) -> None:
        for first in range(0, len(feeds), _GROUP):
            group = [(feed, feed.stream) for feed in feeds[first : first + _GROUP] if feed.begun]
            queries = [Query(feed.source, stream.confirmed) for feed, stream in group]
            self.looks += len(queries)
            try:
                pages = await self._reads.pages(queries)
            except StoreError as error:
                if self._repeats.due("store"):
                    log.warning("%s", error)
                await asyncio.sleep(_AGAIN)
                return
            for (feed, stream), page in zip(group, pages, strict=True):
                await self.settle(feed, stream, page)
