"""Records from Kafka in order of time: history from an offset or a time, then what follows."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from dualstream_lab.errors import ConfigError, DualStreamError, StreamUnavailable
from dualstream_lab.kafka_log import LogWatch, PartitionTrouble, open_consumer
from dualstream_lab.record import Decoder
from dualstream_lab.replay.merge import Merge
from dualstream_lab.replay.records import LogRecord, Part
from dualstream_lab.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

    from dualstream_lab.config import Settings
    from dualstream_lab.kafka_log import LogConsumer, LogIdentity
    from dualstream_lab.replay.start import Start

__all__ = ["Reading", "read", "replay"]

_STALL: Final = 30.0  # s without a record after which Kafka is given up
_TRIES: Final = 3  # of a partition that cannot be decoded, after which the others go on without it
_POLL: Final = 0.5
_CHUNK: Final = 500


class Reading:
    """One pass over a topic: from ``begin`` to ``end``, or on for ever. All three by partition.

    Committed records only, and ``end`` is where these ended when it began. ``at`` is what is to be read next:
    everything before it was reported :meth:`done`. ``removed``: offsets that were asked for and were not in
    the log any more; ``holes``: offsets that compaction took from between. ``failed``: partitions that could
    not be read to their end, which stop no other. ``unnamed``: those that were not asked for.
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
        failed: Mapping[int, PartitionTrouble],
    ) -> None:
        self.begin = dict(begin)
        self.end = dict(end)
        self.at = dict(begin)
        self.removed = removed
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
        self._merge = Merge[LogRecord](unread)
        consumer.assign({partition: begin[partition] for partition in (end if follow else unread)})

    @property
    def read(self) -> int:
        """Offsets that are behind it."""
        return sum(self.at[partition] - self.begin[partition] for partition in self.begin)

    @property
    def total(self) -> int:
        """Offsets from the beginning to the end; some may have no record (transactions, compaction)."""
        return sum(end - self.begin[partition] for partition, end in self.end.items())

    def done(self, records: Iterable[LogRecord]) -> None:
        """These are dealt with."""
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
        found += self._failures()
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
            f"partition {partition} cannot be read at offset {trouble.offset}: {trouble.reason}"
            for partition, trouble in sorted({**self._consumer.troubles, **self.failed}.items())
        ]

    async def _fetch(self) -> None:
        if self._watch.identity.epoch != self._log.epoch:
            raise StreamUnavailable("the topic was made anew: its positions mean nothing any more")
        if self._added:
            await self._add()
        began = time.monotonic()
        parts = await self._consumer.poll(Part, partitions=self._merge.wanted() or None, timeout=_POLL)
        for part in parts:
            self._take(part)
        reached = [p for p in self._merge.open if self._consumer.positions[p] >= self.end[p]]
        for partition in reached:
            self._close(partition)
        self._give_up_the_undecodable()
        self._silence = 0.0 if parts or reached else self._silence + time.monotonic() - began
        if self._silence > _STALL:
            await self._stalled()

    def _take(self, part: Part) -> None:
        if self._follow:
            end = part.next_
        else:
            end = self.end[part.partition]
            part.records = [record for record in part.records if record.offset < end]
        self._merge.add(part.partition, part.records)
        self.holes += sum(min(end, behind) - first for first, behind in part.holes if first < end)

    def _close(self, partition: int) -> None:
        self._merge.close(partition)
        if not self._follow:
            self._consumer.pause(partition)

    def _give_up_the_undecodable(self) -> None:
        tried = {p: t for p, t in self._consumer.troubles.items() if not t.silent and t.tries >= _TRIES}
        if self._follow and any(trouble.removed for trouble in tried.values()):
            raise StreamUnavailable(
                "Kafka has removed what was to be read next (retention, or the topic was made anew)"
            )
        self._give_up(tried)

    def _give_up(self, partitions: Iterable[int]) -> None:
        """Wait for them no longer. Where what follows is read, they may still come back."""
        for partition in self._merge.open & set(partitions):
            if not self._follow:
                self.failed[partition] = self._consumer.troubles[partition]
            self._close(partition)

    async def _add(self) -> None:
        begins = await self._consumer.begins(self._added)
        self._added.clear()
        self.begin |= begins
        self.at |= begins
        self.end |= begins
        self._consumer.add(begins)

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


@asynccontextmanager
async def read(
    settings: Settings, start: Start, *, until: int | None = None, follow: bool = False
) -> AsyncIterator[Reading]:
    """A reading of the topic: of all its partitions, or of those that ``start`` names.

    Without ``follow`` it ends at the end of the log as it is now, or at the first record of each partition
    that is not before ``until`` (ms since the epoch). With it, partitions that are added are read as well,
    within ``refresh_interval``. Raises ConfigError for a topic that does not exist and for positions that are
    not in it, StreamUnavailable when Kafka does not answer.
    """
    async with open_consumer(settings) as consumer:
        log = await consumer.identity()
        partitions = start.partitions(log.partitions)
        bounds = await consumer.bounds(partitions)
        if not bounds.ends:
            raise StreamUnavailable(next(iter(bounds.refused.values())))
        asked = await _begin(consumer, start, bounds.ends)
        ends = bounds.ends
        if until is not None:
            ends = await consumer.at_time(until, ends)
        begin = {p: min(max(asked[p], bounds.begins[p]), ends[p]) for p in ends}
        failed = {
            p: PartitionTrouble(offset=start.offset_of(p), reason=reason)
            for p, reason in bounds.refused.items()
        }
        removed = sum(max(0, bounds.begins[p] - asked[p]) for p in ends) if start.is_exact else 0
        reading: Reading | None = None

        def on_change(before: LogIdentity, after: LogIdentity) -> None:
            if reading is not None and not reading.unnamed:
                reading.grow(range(before.partitions, after.partitions))

        watch = LogWatch(log, interval=settings.refresh_interval, ask=consumer.identity, on_change=on_change)
        reading = Reading(
            consumer,
            watch,
            begin | {p: trouble.offset for p, trouble in failed.items()},
            ends,
            follow=follow,
            removed=removed,
            failed=failed,
        )
        watching = [asyncio.create_task(watch.run())] if follow else []
        try:
            yield reading
        finally:
            await end_tasks(watching)


async def replay(
    settings: Settings, start: Start, *, source_id: str | None = None, follow: bool = True
) -> AsyncGenerator[LogRecord, None]:
    """Records of the topic, in order of time, and always in order within a partition.

    ``source_id``: only events of sources that have this id, in whatever partition they are. Without
    ``follow`` it ends at the end of the log as it was when asked. Whoever leaves it before its end closes it
    (``contextlib.aclosing``). Raises as :func:`read` and :meth:`Reading.chunks`.
    """
    decode = Decoder()
    async with read(settings, start, follow=follow) as reading:
        async for chunk in reading.chunks():
            for record in chunk:
                if source_id is not None:
                    event = decode(record.partition, record)
                    if isinstance(event, str) or event.source.partition(":")[2] != source_id:
                        continue
                yield record


async def _begin(consumer: LogConsumer, start: Start, ends: Mapping[int, int]) -> dict[int, int]:
    """Where to begin, which may be before the log's beginning."""
    begin = dict(ends)
    if start.timestamp is not None:
        begin = await consumer.at_time(start.timestamp, ends)
    elif start.offset is not None:
        offset = start.offset
        begin = {partition: end + offset if offset < 0 else offset for partition, end in ends.items()}
    for partition, position in (start.positions or {}).items():
        if partition not in ends:
            continue
        if position > ends[partition]:
            raise ConfigError(
                f"position {partition}:{position} is beyond the end, which is {ends[partition]}: was it of "
                "another topic or cluster?"
            )
        begin[partition] = position
    return begin
