"""Where in the log an event is, by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from dualstream_lab.errors import ConfigError, EventError
from dualstream_lab.event import decode_event
from dualstream_lab.replay.reading import read
from dualstream_lab.replay.start import Start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiokafka import ConsumerRecord

    from dualstream_lab.config import Settings

__all__ = ["find_event"]

_CLOCK_MARGIN_MS = 60_000  # topics may be stamped with the broker's clock


async def find_event(
    settings: Settings, event_id: str, *, source: str | None = None, watch: Callable[[int, int], None]
) -> Start:
    """From this event on: from its place in its partition, from its time in the others.

    Looks into the partition of ``source`` if given, else into all. ``watch(read, total)`` is told how far it
    is. Raises ConfigError where the log does not have it (any more), StreamUnavailable.
    """
    looked = 0
    for start in _starts(event_id):
        async with read(settings, start, source=source) as log:
            async for chunk in log.chunks():
                for record in chunk:
                    if _has_id(record, event_id):
                        return Start(timestamp=record.timestamp, positions={record.partition: record.offset})
                log.done(chunk)
                watch(log.read, log.total)
            looked = log.total
    raise ConfigError(
        f"id {event_id!r}: none of the {looked:,} records of topic {settings.topic!r} has it; retention may "
        "have removed it"
    )


def _starts(event_id: str) -> Iterator[Start]:
    """Where to look first. Our ids tell when they were made, and no event is older than its id."""
    try:
        uuid = UUID(event_id)
    except ValueError:
        pass
    else:
        if uuid.version == 7:
            yield Start(timestamp=(uuid.int >> 80) - _CLOCK_MARGIN_MS)
    yield Start(offset=0)


def _has_id(record: ConsumerRecord[bytes, bytes], event_id: str) -> bool:
    value = record.value or b""
    if event_id.encode() not in value:
        return False
    try:
        return decode_event(value).id == event_id
    except EventError:
        return False
