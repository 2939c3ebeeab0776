"""Which records are wanted: where to begin, and which of them. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dualstream_lab.errors import ConfigError, EventError
from dualstream_lab.event import Event, decode_event
from dualstream_lab.kafka_log import LogRecord
from dualstream_lab.record import Decoder, StoredEvent

_POSITION: Final = re.compile(r"(\d{1,9}):(\d{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to begin in every partition; with nothing said, at the end as it is now.

    ``offset``: the first one; a negative one counts from the end. ``timestamp``: ms since the epoch.
    ``positions``: partition to offset; with neither of the others, partitions not named are not read.
    """

    offset: int | None = None
    timestamp: int | None = None
    positions: Mapping[int, int] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether what lies before the log's beginning can have been asked for: 0 is all that is kept."""
        return self.positions is not None or (self.offset or 0) > 0

    def partitions(self, count: int) -> list[int]:
        """Which of a topic's partitions are read. Raises ConfigError for positions in others."""
        positions = self.positions or {}
        if unknown := sorted(partition for partition in positions if partition >= count):
            raise ConfigError(f"the topic has no partition {unknown[0]}; it has {count}, from 0")
        if positions and self.offset is None and self.timestamp is None:
            return sorted(positions)
        return list(range(count))

    def offset_of(self, partition: int) -> int:
        """Where to go on in a partition of which nothing is known: all that was asked for is behind it."""
        return (self.positions or {}).get(partition, max(0, self.offset or 0))


def parse_positions(text: str) -> dict[int, int]:
    """``0:123,1:456``: partition to the offset to read next. Raises ConfigError."""
    positions: dict[int, int] = {}
    for part in text.split(","):
        match = _POSITION.fullmatch(part.strip())
        if match is None:
            raise ConfigError(
                f"position {part.strip()!r}: allowed: partition:offset[,…], for example 0:123,1:456"
            )
        if int(match[1]) in positions:
            raise ConfigError(f"position {part.strip()!r}: partition {match[1]} is named twice")
        positions[int(match[1])] = int(match[2])
    return positions


def positions_text(positions: Mapping[int, int]) -> str:
    """The positions as :func:`parse_positions` reads them."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(positions.items()))


class LoggedEvent(NamedTuple):
    """A record, and the event that it is."""

    record: LogRecord
    stored: StoredEvent

    @property
    def event(self) -> Event:
        """The whole event with its data, as it is published again."""
        return decode_event(self.stored.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """``source``: that one (``type:id``). ``pattern``: a glob of sources. ``types``: globs; one must match.

    What is left out chooses everything.
    """

    source: str | None = None
    pattern: str | None = None
    types: tuple[str, ...] = ()
    _decode: Decoder = field(default_factory=Decoder, init=False, repr=False, compare=False)

    def event_of(self, record: LogRecord) -> StoredEvent | None:
        """The record's event, if it is wanted. Raises EventError for what is none, but for others' keys."""
        if self.source is not None and record.key not in {None, self.source.partition(":")[2].encode()}:
            return None
        event = self._decode(record.partition, record)
        if isinstance(event, str):
            raise EventError(event)
        if self.source is not None and event.source != self.source:
            return None
        if self.pattern is not None and not fnmatch.fnmatchcase(event.source, self.pattern):
            return None
        if self.types and not any(fnmatch.fnmatchcase(event.type, glob) for glob in self.types):
            return None
        return event
