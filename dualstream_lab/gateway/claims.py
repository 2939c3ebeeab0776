"""Positions that Redis told and that may be beyond the log's end: Kafka is asked before they count."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.errors import StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dualstream_lab.event import Notification
    from dualstream_lab.gateway.feed import Feed
    from dualstream_lab.gateway.log import Log

__all__ = ["Claim", "Claims", "position_of"]

_DIGITS: Final = 18  # of the largest offset; int() raises for thousands of them
_MOST: Final = 10_000  # that wait for Kafka's answer
_PAUSE: Final = 0.01  # s after what was not true: whoever makes it up must not make Kafka busy


class Claim(NamedTuple):
    """An announcement of an event at a place."""

    feed: Feed
    note: Notification
    partition: int
    offset: int


def position_of(pos: str) -> tuple[int, int] | None:
    """Partition and offset in ``partition:offset``; None for another form."""
    partition, _, offset = pos.partition(":")
    if not (partition.isdecimal() and offset.isdecimal() and len(pos) <= _DIGITS + 10):
        return None
    return int(partition), int(offset)


class Claims:
    """Takes those that Kafka confirms, and drops (and counts) the others. :meth:`run` is its task.

    What comes meanwhile of the same source and partition is to wait behind them, as ``holds`` says: else the
    first event in a partition that was added would be told after the next ones.

    ``take``: what is done with a claim that is true. ``fence``: with sources whose claims could not be
    verified, as something may be there.
    """

    def __init__(
        self, log: Log, *, take: Callable[[Claim], None], fence: Callable[[Iterable[Feed]], None]
    ) -> None:
        self._log = log
        self._take = take
        self._fence = fence
        self._waiting: list[Claim] = []
        self._held: Counter[tuple[str, int]] = Counter()
        self._wake = asyncio.Event()
        self.beyond = 0

    def verify(self, claim: Claim) -> None:
        """Ask Kafka; what is more than may wait is found by looking."""
        if len(self._waiting) >= _MOST:
            self._fence([claim.feed])
            return
        self._waiting.append(claim)
        self._held[_key(claim)] += 1
        self._wake.set()

    def holds(self, feed: Feed, partition: int) -> bool:
        """Whether one of this source and partition waits for Kafka."""
        return bool(self._held) and (feed.source, partition) in self._held

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            partitions = list({claim.partition for claim in waiting})
            ends = dict(zip(partitions, await asyncio.gather(*map(self._end, partitions)), strict=True))
            beyond = self.beyond
            for claim in waiting:
                self._let_go(claim)
                end = ends[claim.partition]
                if end is None:
                    self._fence([claim.feed])
                elif claim.offset < end:
                    self._take(claim)
                else:
                    self.beyond += 1
            if self.beyond > beyond:
                await asyncio.sleep(_PAUSE)

    def _let_go(self, claim: Claim) -> None:
        key = _key(claim)
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]

    async def _end(self, partition: int) -> int | None:
        """Where it ends; 0 where there is no such partition, None where Kafka does not say."""
        try:
            if not await self._log.has([partition]):
                return 0
            return (await self._log.ends([partition]))[partition]
        except StreamUnavailable:
            return None


def _key(claim: Claim) -> tuple[str, int]:
    return claim.feed.source, claim.partition
