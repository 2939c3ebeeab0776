"""Where in the log an event is, by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from dualstream_lab.errors import ConfigError
from dualstream_lab.record import Decoder
from dualstream_lab.replay.history import read
from dualstream_lab.replay.start import Start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dualstream_lab.config import Settings
    from dualstream_lab.replay.records import LogRecord

__all__ = ["find_event"]

_CLOCK_MARGIN_MS = 60_000  # topics may be stamped with the broker's clock
_NAMED = 5  # sources that are spelled out


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
                    whose = _source_of(record, event_id, decode)
                    if whose is not None and source in {None, whose}:
                        found.setdefault(whose, record)
                if source in found:
                    break
                log.done(chunk)
                watch(log.read, log.total)
            looked = log.total
        if found:
            return _start_at(found, event_id)
    raise ConfigError(
        f"id {event_id!r}: none of the {looked:,} records of topic {settings.topic!r} has it"
        f"{f' as one of {source}' if source else ''}; retention may have removed it"
    )


def _start_at(found: dict[str, LogRecord], event_id: str) -> Start:
    if len(found) > 1:
        names = ", ".join(sorted(found)[:_NAMED]) + (" …" if len(found) > _NAMED else "")
        raise ConfigError(
            f"id {event_id!r}: {len(found)} sources have it ({names}); say which: --source TYPE:ID"
        )
    (record,) = found.values()
    return Start(timestamp=record.timestamp, positions={record.partition: record.offset})


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


def _source_of(record: LogRecord, event_id: str, decode: Decoder) -> str | None:
    """The source of the event, if it has this id."""
    value = record.value or b""
    if event_id.encode() not in value and b"\\" not in value:  # JSON may spell a letter by its number
        return None
    event = decode(record.partition, record)
    return None if isinstance(event, str) or event.id != event_id else event.source
