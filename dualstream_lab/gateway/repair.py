"""Finds what Redis lost: by a hole in a publisher's numbers, after a reconnect, when told, or by looking."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final

from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.store import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.feed import Feed
    from dualstream_lab.gateway.log import Log
    from dualstream_lab.gateway.past import Positions
    from dualstream_lab.gateway.reads import Reads
    from dualstream_lab.store import Page

__all__ = ["Repairs"]

log = logging.getLogger(__name__)

_LOOKS: Final = (
    0.02,
    0.25,
)  # s between looks for what is suspected: first, and while the store does not move
_POLL: Final = 0.25  # s between looks while Redis is away
_JITTER: Final = 0.05  # s: gateways that lost the same Redis do not ask in one moment
_AGAIN: Final = 0.5
_GROUP: Final = 200  # feeds of one look
_WARN_EVERY: Final = 5.0  # s between warnings of one kind


class Repairs:
    """Compares feeds with the store. :meth:`run` is its task; ``touch`` is told who has news to write."""

    def __init__(
        self,
        settings: ServeSettings,
        reads: Reads,
        log: Log,
        *,
        feeds: Callable[[], Iterable[Feed]],
        touch: Callable[[Feed], None],
    ) -> None:
        self._interval = settings.check_interval
        self._reads = reads
        self._log = log
        self._feeds = feeds
        self._touch = touch
        self._due: set[Feed] = set()
        self._unfenced: set[Feed] = set()
        self._asking: set[Feed] = set()
        self._due_wake = asyncio.Event()
        self._fence_wake = asyncio.Event()
        self._poll_wake = asyncio.Event()
        self._warned: dict[str, float] = {}
        self.late = 0
        self.lost = 0
        self.looks = 0

    def look(self, feed: Feed) -> None:
        """Compare it as soon as the store is there."""
        self._due.add(feed)
        self._due_wake.set()

    def fence(self, feeds: Iterable[Feed]) -> None:
        """Compare them up to what the log has now."""
        self._unfenced.update(feeds)
        if self._unfenced:
            self._fence_wake.set()

    def poll(self) -> None:
        """A feed is degraded: look often."""
        self._poll_wake.set()

    def forget(self, feed: Feed) -> None:
        """It is gone."""
        for feeds in (self._due, self._unfenced, self._asking):
            feeds.discard(feed)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_fences())
            group.create_task(self._look_at_suspects())
            group.create_task(self._poll_degraded())
            group.create_task(self._look_anyway())

    def settle(self, feed: Feed, page: Page) -> None:
        """Tell what the store has and the feed's clients were not told; live again when that is all."""
        stream = feed.stream
        feed.learn(page)
        if why := stream.lost(page, feed.homes):
            self.lost += 1
            feed.say([feed.state("subscribed", cursor=feed.cursor, recovered=False, reason=why.value)])
            self._touch(feed)
        before = stream.confirmed
        if late := stream.repair(page):
            self.late += len(late)
            feed.say(feed.found(late, {p: before.get(p, -1) for p in feed.partitions}))
            self._touch(feed)
        waits = feed in self._unfenced or feed in self._asking
        if not stream.needs and feed.degraded and feed.subscribed and not waits:
            feed.degraded = None
            feed.say([feed.state("live", cursor=feed.cursor)])
            self._touch(feed)

    async def _ask_fences(self) -> None:
        while True:
            await self._fence_wake.wait()
            await asyncio.sleep(random.uniform(0, _JITTER))  # noqa: S311
            self._fence_wake.clear()
            # Who asks from now on is not served by these answers.
            self._asking, self._unfenced = self._unfenced, set()
            ends = await self._ends({p for feed in self._asking for p in feed.partitions})
            waiting, self._asking = self._asking, set()
            unanswered = {feed for feed in waiting if not ends.keys() >= set(feed.partitions)}
            for feed in waiting - unanswered:
                feed.stream.suspect({partition: ends[partition] for partition in feed.partitions})
                self.look(feed)
            if unanswered:
                self._warn("log", f"{len(unanswered)} sources wait for Kafka to be compared")
                self.fence(unanswered)
                await asyncio.sleep(_AGAIN)

    async def _ends(self, partitions: Iterable[int]) -> Positions:
        """Where those end that can be asked: one that cannot must not hold up the others."""
        asked = list(partitions)
        answers = await asyncio.gather(
            *(self._log.ends([partition]) for partition in asked), return_exceptions=True
        )
        ends: dict[int, int] = {}
        for answer in answers:
            if isinstance(answer, StreamUnavailable):
                continue
            if isinstance(answer, BaseException):
                raise answer
            ends.update(answer)
        return ends

    async def _look_at_suspects(self) -> None:
        pause = _LOOKS[0]
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

    async def _look_anyway(self) -> None:
        """A lost last notification leaves no hole."""
        while True:
            await asyncio.sleep(self._interval * random.uniform(0.5, 1.5))  # noqa: S311
            feeds = [feed for feed in self._feeds() if feed.live]
            await self._compare(feeds)
            for feed in feeds:
                if feed.synced != feed.cursor:
                    feed.synced = feed.cursor
                    feed.say([feed.state("sync", cursor=feed.cursor)])
                    self._touch(feed)

    async def _compare(self, feeds: Sequence[Feed]) -> None:
        for first in range(0, len(feeds), _GROUP):
            group = [(feed, feed.stream) for feed in feeds[first : first + _GROUP] if feed.begun]
            queries = [Query(feed.source, stream.confirmed) for feed, stream in group]
            self.looks += len(queries)
            try:
                pages = await self._reads.pages(queries)
            except StoreError as error:
                self._warn("store", str(error))
                await asyncio.sleep(_AGAIN)
                return
            for (feed, stream), page in zip(group, pages, strict=True):
                if feed.stream is stream:  # else it is of another log now
                    self.settle(feed, page)

    def _warn(self, what: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(what, float("-inf")) >= _WARN_EVERY:
            self._warned[what] = now
            log.warning("%s", reason)
