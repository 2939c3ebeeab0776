"""Which records are wanted. Pure."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dualstream_lab.errors import EventError
from dualstream_lab.event import decode_event
from dualstream_lab.record import Decoder, StoredEvent

if TYPE_CHECKING:
    from dualstream_lab.event import Event
    from dualstream_lab.replay.records import LogRecord

__all__ = ["Found", "Selection"]


class Found(NamedTuple):
    """A record, and the event that it is."""

    record: LogRecord
    stored: StoredEvent

    @property
    def event(self) -> Event:
        """With its data, to be published."""
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
