"""One pass over a topic: its records in order of time, and what there is to say of those that are missing."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

from dualstream_lab.errors import DualStreamError, StreamUnavailable
from dualstream_lab.kafka_log import LogConsumer, LogRecord, LogWatch, PartitionTrouble, Records

_STALL: Final = 30.0  # s without a record after which Kafka is given up
_TRIES: Final = 3  # of a partition that cannot be decoded, after which the others go on without it
_POLL: Final = 0.5
_CHUNK: Final = 500
_AHEAD: Final = 4  # batches of a partition that may wait for the other partitions


class Merge:
    """Records in order of time across partitions, and in the partition's own order within it.

    An open partition without a record holds up the others, for its next one may be older; a closed one no
    longer does. Where the stamps of one partition are not ascending its own order wins.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self.open = set(partitions)
        self._batches: dict[int, deque[list[LogRecord]]] = {}  # each the wrong way round
        self._heads: list[tuple[int, int]] = []

    def add(self, partition: int, records: Iterable[LogRecord]) -> None:
        """Append the next records of a partition."""
        if not (batch := list(records)[::-1]):
            return
        batches = self._batches.setdefault(partition, deque())
        batches.append(batch)
        if len(batches) == 1:
            heapq.heappush(self._heads, (batch[-1].timestamp, partition))

    def close(self, partition: int) -> None:
        """Wait for this partition no longer."""
        self.open.discard(partition)

    def wanted(self) -> list[int]:
        """The open partitions that may give more: each is at most a few batches ahead of the others."""
        return [partition for partition in self.open if len(self._batches.get(partition, ())) < _AHEAD]

    def take(self, count: int) -> list[LogRecord]:
        """The next records, at most so many; none while a partition holds them up."""
        taken: list[LogRecord] = []
        if any(not self._batches.get(partition) for partition in self.open):
            return taken
        while self._heads and len(taken) < count:
            _, partition = self._heads[0]
            batches = self._batches[partition]
            taken.append(batches[0].pop())
            if not batches[0]:
                batches.popleft()
            if batches:
                heapq.heapreplace(self._heads, (batches[0][-1].timestamp, partition))
                continue
            heapq.heappop(self._heads)
            if partition in self.open:
                break
        return taken


class Reading:
    """One pass over a topic: from ``begin`` to ``end``, or on for ever. All three by partition.

    Committed records only, and ``end`` is where these ended when it began. ``at`` is what is to be read next:
    everything before it was reported :meth:`done`. ``removed``: offsets that were asked for and were not in
    the log any more; ``holes``: offsets that compaction took from between; ``doubts``: what may be gone of
    the time that was asked for. ``failed``: partitions that could not be read to their end, which stop no
    other. ``unnamed``: those that were not asked for.
    """

    def __init__(
        self,
        consumer: LogConsumer,
        watch: LogWatch,
        begin: Mapping[int, int],
        end: Mapping[int, int],
        *,
        follow: bool,
        removed: int = 0,
        doubts: Sequence[str] = (),
        failed: Mapping[int, PartitionTrouble],
    ) -> None:
        self.begin = dict(begin)
        self.end = dict(end)
        self.at = dict(begin)
        self.removed = removed
        self.doubts = list(doubts)
        self.holes = 0
        self.unnamed = sorted(set(range(watch.identity.partitions)) - set(begin))
        self.failed = dict(failed)
        self._consumer = consumer
        self._watch = watch
        self._log = watch.identity
        self._follow = follow
        self._stopped = False
        self._silence = 0.0
        self._added: list[int] = []
        unread = [partition for partition in end if begin[partition] < end[partition]]
        self._merge = Merge(unread)
        consumer.assign({partition: begin[partition] for partition in (end if follow else unread)})

    @property
    def is_same_log(self) -> bool:
        """Whether the topic was still that log when last looked at; else no position means anything."""
        return self._watch.identity.epoch == self._log.epoch

    @property
    def read(self) -> int:
        """How many offsets have been read."""
        return sum(self.at[partition] - self.begin[partition] for partition in self.begin)

    @property
    def total(self) -> int:
        """Offsets from the beginning to the end; some may have no record (transactions, compaction)."""
        return sum(end - self.begin[partition] for partition, end in self.end.items())

    def done(self, records: Iterable[LogRecord]) -> None:
        """Count these records as dealt with."""
        for record in records:
            self.at[record.partition] = record.offset + 1

    def stop(self) -> None:
        """Give no more; noticed within half a second."""
        self._stopped = True

    def grow(self, partitions: Iterable[int]) -> None:
        """The topic has these, too: read them from their beginning on, where what follows is read."""
        if self._follow:
            self._added += partitions

    async def chunks(self, size: int = _CHUNK) -> AsyncIterator[list[LogRecord]]:
        """The records, at most ``size`` at a time, in order of time; what follows the end, as it comes.

        Raises StreamUnavailable when Kafka gives nothing for 30 s; when the topic was made anew, where what
        follows is read; and at its end when a partition could not be read: the others have been given then.
        """
        while not self._stopped:
            if chunk := self._merge.take(size):
                yield chunk
            elif self._follow or self._merge.open:
                await self._fetch()
            else:
                self.at |= self.end | {p: trouble.offset for p, trouble in self.failed.items()}
                break
        if self.failed and not self._stopped:
            raise StreamUnavailable("; ".join(self._failures()))

    async def shortfall(self) -> list[str]:
        """Why it is not everything that was asked for that was given; [] if it was.

        Asked of Kafka at the end: the topic must still be the log that was begun.
        """
        found = []
        if self.removed:
            found.append(f"{self.removed:,} records from there on are gone: retention removed them")
        if self.holes:
            found.append(f"{self.holes:,} records in between are gone: compaction removed them")
        found += [*self.doubts, *self._failures()]
        try:
            if (await self._watch.look()).epoch != self._log.epoch:
                found.append("the topic was made anew meanwhile: what was given may be of both")
        except DualStreamError as error:
            found.append(f"it is not known whether the topic is still the same: {error}")
        return found

    async def held(self) -> int:
        """Messages behind open transactions, not given before their end; 0 where Kafka does not say."""
        try:
            return sum((await self._consumer.behind_transactions(self.end)).values())
        except StreamUnavailable:
            return 0

    def _failures(self) -> list[str]:
        return [
            f"partition {partition} {trouble}"
            for partition, trouble in sorted({**self._consumer.troubles, **self.failed}.items())
        ]

    async def _fetch(self) -> None:
        if not self.is_same_log:
            raise StreamUnavailable("the topic was made anew: its positions mean nothing any more")
        if self._added:
            begins = await self._consumer.begins(self._added)
            self._added.clear()
            for known in (self.begin, self.at, self.end):
                known.update(begins)
            self._consumer.add(begins)
        began = time.monotonic()
        parts = await self._consumer.poll(Records, partitions=self._merge.wanted() or None, timeout=_POLL)
        for fetched in parts:
            partition, end = fetched.partition, fetched.next_ if self._follow else self.end[fetched.partition]
            self._merge.add(partition, [record for record in fetched.records if record.offset < end])
            self.holes += sum(min(end, behind) - first for first, behind in fetched.holes if first < end)
        reached = [p for p in self._merge.open if self._consumer.positions[p] >= self.end[p]]
        for partition in reached:
            self._close(partition)
        tried = {p: t for p, t in self._consumer.troubles.items() if not t.silent and t.tries >= _TRIES}
        if self._follow and any(trouble.removed for trouble in tried.values()):
            raise StreamUnavailable(
                "Kafka has removed what was to be read next (retention, or the topic was made anew)"
            )
        self._give_up(tried)
        self._silence = 0.0 if parts or reached else self._silence + time.monotonic() - began
        if self._silence > _STALL:
            await self._stalled()

    def _close(self, partition: int) -> None:
        self._merge.close(partition)
        if not self._follow:
            self._consumer.pause(partition)

    def _give_up(self, partitions: Iterable[int]) -> None:
        """Wait for them no longer. Where what follows is read, they may still come back."""
        for partition in self._merge.open & set(partitions):
            if not self._follow:
                self.failed[partition] = self._consumer.troubles[partition]
            self._close(partition)

    async def _stalled(self) -> None:
        silent = self._merge.open & self._consumer.troubles.keys()
        if silent != self._merge.open:
            self._give_up(silent)
        elif silent:
            raise StreamUnavailable(
                f"Kafka gave nothing for {_STALL:g} s with {len(silent)} partitions unread"
            )
        else:  # nothing may have been published: is Kafka there?
            try:
                await self._consumer.identity()
            except StreamUnavailable as error:
                raise StreamUnavailable(f"Kafka is gone: {error}") from error
        self._silence = 0.0
