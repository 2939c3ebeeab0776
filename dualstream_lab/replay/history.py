"""A topic's history, from an offset or a time on, and then what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.kafka_log import (
    LogConsumer,
    LogIdentity,
    LogRecord,
    LogWatch,
    PartitionTrouble,
    open_consumer,
    topic_info,
)
from dualstream_lab.record import Decoder
from dualstream_lab.replay.reading import Reading
from dualstream_lab.replay.selection import Start
from dualstream_lab.tasks import end_tasks

_CLOCK_MARGIN_MS = 60_000  # topics may be stamped with the broker's clock
_NAMED = 5  # sources that are spelled out


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
        doubts = await _doubts(settings, start, asked, bounds.begins)
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
            doubts=doubts,
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


async def _doubts(
    settings: Settings, start: Start, asked: Mapping[int, int], begins: Mapping[int, int]
) -> list[str]:
    """What may be gone of the time that was asked for. What was removed has no time any more: it is said."""
    if start.timestamp is None:
        return []
    found = []
    by_time = asked.keys() - (start.positions or {}).keys()
    if cut := sorted(partition for partition in by_time if 0 < begins[partition] == asked[partition]):
        found.append(
            f"partitions {', '.join(map(str, cut))} begin after what Kafka removed (retention, "
            "DeleteRecords), and some of that may be of the time asked for"
        )
    if (await topic_info(settings)).is_compacted:
        found.append("the topic is compacted: what that removed of the time asked for left no trace")
    return found


async def find_event(
    settings: Settings, event_id: str, *, source: str | None = None, watch: Callable[[int, int], None]
) -> Start:
    """From this event on: from its place in its partition, from its time in the others.

    An event is known by its source and its id: without ``source`` (``type:id``) the log is read to its end,
    for others may have the id, too. ``watch(read, total)`` is told how far it is. Raises ConfigError where
    the log does not have it (any more), or of several sources; StreamUnavailable.
    """
    decode = Decoder()
    looked = 0
    for start in _starts(event_id):
        found: dict[str, LogRecord] = {}
        async with read(settings, start) as log:
            async for chunk in log.chunks():
                for record in chunk:
                    owner = _source_of(record, event_id, decode)
                    if owner is not None and source in {None, owner}:
                        found.setdefault(owner, record)
                if source in found:
                    break
                log.done(chunk)
                watch(log.read, log.total)
            looked = log.total
        if len(found) > 1:
            names = ", ".join(sorted(found)[:_NAMED]) + (" …" if len(found) > _NAMED else "")
            raise ConfigError(
                f"id {event_id!r}: {len(found)} sources have it ({names}); say which: --source TYPE:ID"
            )
        for record in found.values():
            return Start(timestamp=record.timestamp, positions={record.partition: record.offset})
    raise ConfigError(
        f"id {event_id!r}: none of the {looked:,} records of topic {settings.topic!r} has it"
        f"{f' as one of {source}' if source else ''}; retention may have removed it"
    )


def _starts(event_id: str) -> Iterator[Start]:
    """Where to look first. Our ids tell when they were made, and no event is older than its id."""
    with suppress(ValueError):
        if (uuid := UUID(event_id)).version == 7:
            yield Start(timestamp=(uuid.int >> 80) - _CLOCK_MARGIN_MS)
    yield Start(offset=0)


def _source_of(record: LogRecord, event_id: str, decode: Decoder) -> str | None:
    """The source of the event, if it has this id."""
    value = record.value or b""
    if event_id.encode() not in value and b"\\" not in value:  # JSON may spell a letter by its number
        return None
    event = decode(record.partition, record)
    return None if isinstance(event, str) or event.id != event_id else event.source
