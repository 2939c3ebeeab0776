"""Which records are wanted. Pure."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dualstream_lab.event import decode_event

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from dualstream_lab.event import Event

__all__ = ["Found", "Selection"]


class Found(NamedTuple):
    """A record, and the event in it."""

    record: ConsumerRecord[bytes, bytes]
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """``source``: that one (``type:id``). ``pattern``: a glob of sources. ``types``: globs; one must match.

    What is left out chooses everything.
    """

    source: str | None = None
    pattern: str | None = None
    types: tuple[str, ...] = ()

    def event_of(self, record: ConsumerRecord[bytes, bytes]) -> Event | None:
        """The record's event, if it is wanted. Raises EventError for one that cannot be read."""
        if self.source is not None and record.key != self.source.partition(":")[2].encode():
            return None
        event = decode_event(record.value or b"")
        name = f"{event.source_type}:{event.source_id}"
        if self.source is not None and name != self.source:
            return None
        if self.pattern is not None and not fnmatch.fnmatchcase(name, self.pattern):
            return None
        if self.types and not any(fnmatch.fnmatchcase(event.type, glob) for glob in self.types):
            return None
        return event
