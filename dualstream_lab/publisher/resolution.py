"""Reading the log to find out what became of events."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from dualstream_lab.config import Settings
from dualstream_lab.errors import EventError, StreamUnavailable
from dualstream_lab.event import Event, event_key
from dualstream_lab.kafka_log import Bounds, LogConsumer, Records, open_consumer
from dualstream_lab.publisher.call import PartitionSlice, State
from dualstream_lab.publisher.outcome import InLog, NotInLog, Resolution, StillOpen
from dualstream_lab.record import Decoder, StoredEvent

_NAMED = 5  # events spelled out in a message
_CLOCK_MARGIN_MS = 60_000  # topics may be stamped with the broker's clock


def named_slices(
    events: Iterable[Event | str], unresolved: Mapping[str, tuple[PartitionSlice, int]]
) -> dict[str, tuple[str, PartitionSlice, int]]:
    """What is asked for, by the name that it was given: its key, its slice and its place in that.

    ``unresolved``: what may be asked for, by key. Raises EventError for anything else.
    """
    asked: dict[str, tuple[str, PartitionSlice, int]] = {}
    unknown: list[str] = []
    keys_of: defaultdict[str, list[str]] = defaultdict(list)  # by bare id; made for whom gives one
    for event in events:
        name = event if isinstance(event, str) else _key_of(event)
        keys = [name]
        if name not in unresolved:
            if not keys_of:
                for key in unresolved:
                    keys_of[key.rpartition(" ")[2]].append(key)
            keys = keys_of.get(name, [])
        if len(keys) > 1:
            raise EventError(f"id {name!r} is of several events: {', '.join(keys[:_NAMED])}; give their keys")
        if keys:
            asked[name] = (keys[0], *unresolved[keys[0]])
        else:
            unknown.append(name)
    if unknown:
        raise EventError(
            f"{len(unknown)} events were not reported unknown by this publisher, or too long ago: "
            f"{', '.join(map(repr, unknown[:_NAMED]))}"
        )
    return asked


def _key_of(event: Event) -> str:
    return event_key(f"{event.source_type}:{event.source_id}", event.id)


def resolution(part: PartitionSlice, place: int, found: tuple[int, int] | None) -> Resolution:
    """What became of an event that is, or was, in a slice; ``found``: where it is in the log."""
    if part.state is State.DURABLE:
        return InLog(part.partition, part.base + place if part.base >= 0 else -1)
    if part.state is State.REJECTED:
        return NotInLog(part.reason)
    if found is not None:
        return InLog(*found)
    if part.state is State.LOST:
        return StillOpen(f"{part.reason}; the log does not have it: it can only arrive late")
    return StillOpen("Kafka has not answered yet")


async def find_in_log(
    settings: Settings, keys: Collection[str], parts: Collection[PartitionSlice], *, timeout: float
) -> dict[str, tuple[int, int]]:
    """Where the log has the events of these keys: partition and offset of the first one found.

    Reads what is committed in the partitions of ``parts``, from where their events can be at the earliest up
    to the end as it was when asked. What could not be read within ``timeout`` seconds is left out.
    """
    found: dict[str, tuple[int, int]] = {}
    with suppress(StreamUnavailable, TimeoutError):
        async with asyncio.timeout(timeout), open_consumer(settings) as consumer:
            bounds = await consumer.bounds({part.partition for part in parts})
            unread = await _starts(consumer, parts, bounds)
            consumer.assign(unread)
            decode = Decoder()
            while unread and len(found) < len(keys):
                for fetched in await consumer.poll(Records, partitions=unread):
                    for record in fetched.records:
                        event = decode(fetched.partition, record)
                        if isinstance(event, StoredEvent):
                            key = event_key(event.source, event.id)
                            if key in keys:
                                found.setdefault(key, (event.partition, event.offset))
                    if fetched.next_ >= bounds.ends[fetched.partition]:
                        unread.pop(fetched.partition, None)
    return found


async def _starts(consumer: LogConsumer, parts: Iterable[PartitionSlice], bounds: Bounds) -> dict[int, int]:
    """The earliest offset to look at, for each partition that can be asked and can hold any of it."""
    starts: dict[int, int] = {}
    for part in parts:
        partition, floor = part.partition, part.floor
        if partition not in bounds.ends:
            continue
        end = bounds.ends[partition]
        if floor < 0:
            floor = (await consumer.at_time(part.timestamp - _CLOCK_MARGIN_MS, {partition: end}))[partition]
        starts[partition] = min(max(floor, bounds.begins[partition]), starts.get(partition, end))
    return {partition: start for partition, start in starts.items() if start < bounds.ends[partition]}
