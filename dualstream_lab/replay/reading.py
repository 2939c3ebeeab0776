"""Events from Kafka: history from an offset or a time, then what follows."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.kafka_log import consumer_of, partition_of
from dualstream_lab.replay.merge import Merge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping

    from aiokafka import AIOKafkaConsumer, ConsumerRecord

    from dualstream_lab.config import Settings
    from dualstream_lab.replay.start import Start

    Record: TypeAlias = "ConsumerRecord[bytes, bytes]"

__all__ = ["Reading", "read", "replay"]

_STALL = 30.0
_POLL = 0.5
_CHUNK = 500


class Reading:
    """One pass over a topic: from ``begin`` to ``end``, or on for ever. All three by partition.

    ``at`` is what is to be read next: everything before it was reported :meth:`done`. ``removed``: records
    before the log's beginning that were asked for.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        begin: Mapping[int, int],
        end: Mapping[int, int],
        *,
        follow: bool,
        removed: int = 0,
    ) -> None:
        self.begin = dict(begin)
        self.end = dict(end)
        self.at = dict(begin)
        self.removed = removed
        self._consumer = consumer
        self._follow = follow
        self._stopped = False
        self._silence = 0.0
        unread = [partition for partition in begin if begin[partition] < end[partition]]
        self._merge = Merge["Record"](unread)
        self._targets = {partition: TopicPartition(topic, partition) for partition in begin}
        assigned = [self._targets[partition] for partition in (begin if follow else unread)]
        consumer.assign(assigned)
        for target in assigned:
            consumer.seek(target, begin[target.partition])

    @property
    def read(self) -> int:
        """Offsets that are behind it."""
        return sum(self.at[partition] - self.begin[partition] for partition in self.begin)

    @property
    def total(self) -> int:
        """Offsets from the beginning to the end; some may have no record (transactions, compaction)."""
        return sum(self.end[partition] - self.begin[partition] for partition in self.begin)

    def done(self, records: Iterable[Record]) -> None:
        """These are dealt with."""
        for record in records:
            self.at[record.partition] = record.offset + 1

    def stop(self) -> None:
        """Give no more; noticed within half a second."""
        self._stopped = True

    async def chunks(self, size: int = _CHUNK) -> AsyncIterator[list[Record]]:
        """The records, at most ``size`` at a time, in order of time; what follows the end, as it comes.

        Raises StreamUnavailable when Kafka gives nothing for 30 s, or has removed what is to be read next.
        """
        while not self._stopped:
            if chunk := self._merge.take(size):
                yield chunk
            elif self._follow or self._merge.open:
                await self._fetch()
            else:
                self.at = dict(self.end)
                return

    async def _fetch(self) -> None:
        wanted = [self._targets[partition] for partition in self._merge.wanted() or self._targets]
        began = asyncio.get_running_loop().time()
        try:
            found = await self._consumer.getmany(*wanted, timeout_ms=round(_POLL * 1000))
            for target, records in found.items():
                end = self.end[target.partition]
                self._merge.add(
                    target.partition, records if self._follow else (r for r in records if r.offset < end)
                )
            # The position also passes what is no record: markers of transactions.
            reached = [p for p in self._merge.open if await self._position(p) >= self.end[p]]
        except OffsetOutOfRangeError as error:
            raise StreamUnavailable(
                "Kafka has removed what was to be read next (retention, or the topic was made anew)"
            ) from error
        except KafkaError as error:
            raise StreamUnavailable(f"Kafka could not be read: {error}") from error
        for partition in reached:
            self._merge.close(partition)
            if not self._follow:
                self._consumer.pause(self._targets[partition])
        self._silence = 0.0 if found or reached else self._silence + asyncio.get_running_loop().time() - began
        if self._silence > _STALL:
            await self._stalled()

    async def _position(self, partition: int) -> int:
        position: int = await self._consumer.position(self._targets[partition])
        return position

    async def _stalled(self) -> None:
        if not self._merge.open:  # nothing may have been published: is Kafka there?
            try:
                await self._consumer.end_offsets(list(self._targets.values()))
            except KafkaError as error:
                raise StreamUnavailable(f"Kafka is gone: {error}") from error
            self._silence = 0.0
            return
        raise StreamUnavailable(
            f"Kafka gave nothing for {_STALL:g} s with {len(self._merge.open)} partitions unread"
        )


@asynccontextmanager
async def read(
    settings: Settings,
    start: Start,
    *,
    source: str | None = None,
    until: int | None = None,
    follow: bool = False,
) -> AsyncIterator[Reading]:
    """A reading of the topic; with ``source`` (``type:id``) only of its partition.

    Without ``follow`` it ends at the end of the log as it is now, or at the first record of each partition
    that is not before ``until`` (ms since the epoch). Raises ConfigError for a topic that does not exist and
    for positions that are not in it, StreamUnavailable when Kafka does not answer.
    """
    # Where the log was cut meanwhile, a jump to its end would be a silent gap.
    async with consumer_of(settings, auto_offset_reset="none") as consumer:
        try:
            async with asyncio.timeout(settings.start_timeout):
                targets = await _targets(consumer, settings.topic, source, start)
                first = await consumer.beginning_offsets(targets)
                ends = await consumer.end_offsets(targets)
                begin = await _begin(consumer, start, ends)
                if until is not None:
                    ends |= await _at_time(consumer, until, ends)
        except (KafkaError, OSError, TimeoutError) as error:
            raise StreamUnavailable(
                f"Kafka did not say what topic {settings.topic!r} has: {str(error) or 'no answer'}"
            ) from error
        removed = sum(
            max(0, first[target] - begin[target]) for target in targets if start.positions is not None
        )
        yield Reading(
            consumer,
            settings.topic,
            {t.partition: min(max(begin[t], first[t]), ends[t]) for t in targets},
            {t.partition: ends[t] for t in targets},
            follow=follow,
            removed=removed,
        )


async def replay(
    settings: Settings, start: Start, *, source_id: str | None = None, follow: bool = True
) -> AsyncGenerator[Record, None]:
    """Records of the topic, in order of time, and always in order within a partition.

    ``source_id``: only of that key. Without ``follow`` it ends at the end of the log as it was when asked.
    Whoever leaves it before its end closes it (``contextlib.aclosing``). Raises as :func:`read` and
    :meth:`Reading.chunks`.
    """
    key = None if source_id is None else source_id.encode()
    source = None if source_id is None else f":{source_id}"
    async with read(settings, start, source=source, follow=follow) as reading:
        async for chunk in reading.chunks():
            for record in chunk:
                if key is None or record.key == key:
                    yield record


async def _targets(
    consumer: AIOKafkaConsumer, topic: str, source: str | None, start: Start
) -> list[TopicPartition]:
    """The partitions to read."""
    if topic not in await consumer.topics():
        raise ConfigError(f"topic {topic!r} does not exist; set DUALSTREAM_TOPIC to one that does")
    await consumer._client._wait_on_metadata(topic)  # noqa: SLF001
    partitions = sorted(consumer.partitions_for_topic(topic) or ())
    positions = start.positions or {}
    if strangers := sorted(set(positions) - set(partitions)):
        raise ConfigError(
            f"topic {topic!r} has no partition {strangers[0]}; it has {len(partitions)}, from 0"
        )
    if source is not None:
        partitions = [partition_of(source, len(partitions))]
    if positions and start.offset is None and start.timestamp is None:
        if source is not None and partitions[0] not in positions:
            raise ConfigError(f"source {source!r} is in partition {partitions[0]}: give its position")
        partitions = [partition for partition in partitions if partition in positions]
    return [TopicPartition(topic, partition) for partition in partitions]


async def _begin(
    consumer: AIOKafkaConsumer, start: Start, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Where to begin, which may be before the log's beginning."""
    begin = dict(ends)
    if start.timestamp is not None:
        begin |= await _at_time(consumer, start.timestamp, ends)
    elif start.offset is not None:
        offset = start.offset
        begin = {target: ends[target] + offset if offset < 0 else offset for target in ends}
    for target in ends:
        position = (start.positions or {}).get(target.partition)
        if position is not None:
            if position > ends[target]:
                raise ConfigError(
                    f"position {target.partition}:{position} is beyond the end, which is {ends[target]}: "
                    "was it of another topic or cluster?"
                )
            begin[target] = position
    return begin


async def _at_time(
    consumer: AIOKafkaConsumer, timestamp: int, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The first record of each partition that is not before a time (ms); its end, where there is none."""
    found = await consumer.offsets_for_times(dict.fromkeys(ends, max(0, timestamp)))
    return {target: found[target].offset if found[target] else end for target, end in ends.items()}
