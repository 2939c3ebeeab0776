"""What clients were told, and what the log has, as columns. No I/O."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EVENT", "LATE", "NOWHERE", "OLD", "REFUSED", "STATE", "SUBSCRIBED", "SourceLog", "Stay", "Truth"]

EVENT, LATE, OLD, SUBSCRIBED, REFUSED, STATE = range(6)
"""What a message was: an event told live, by repair, or as the past; "the past is told", "it is not told"; or
another word that has a cursor."""

NOWHERE: Final = -2
"""No place: the message named none."""


class Stay:
    """One source on one connection: every message, in the order of its arrival.

    ``since``: the offset that it asked to go on after; -1: from the beginning; None: only what is new. Of
    each message: its ``kinds``; ``events``, the number of the event's id, else -1; ``places``, the offset
    that was told for it; ``cursors``, the offset of the cursor that came with it; ``times``, s, monotonic.
    ``refused``: why the past was not told. ``ended``: how, empty while it is open.
    """

    __slots__ = ("began", "cursors", "ended", "events", "kinds", "places", "refused", "since", "times")

    def __init__(self, since: int | None, began: float) -> None:
        self.since = since
        self.began = began
        self.ended = ""
        self.refused: list[str] = []
        self.kinds = array("b")
        self.events = array("q")
        self.places = array("q")
        self.cursors = array("q")
        self.times = array("d")

    def add(
        self, kind: int, *, event: int = -1, place: int = NOWHERE, cursor: int = NOWHERE, at: float = 0.0
    ) -> None:
        """A message."""
        self.kinds.append(kind)
        self.events.append(event)
        self.places.append(place)
        self.cursors.append(cursor)
        self.times.append(at)


class SourceLog:
    """A source's events as they are in Kafka, ascending. An id that is there again counts where it is
    first.

    ``offsets``, ``events`` (numbers of ids), ``writers`` (which publisher) and ``times`` (s, of the record)
    have one entry an event. ``index``: event to its entry. ``copies``: how often, of those that are there
    again.
    """

    def __init__(self, partition: int, rows: Iterable[tuple[int, int, int, float]]) -> None:
        """``rows``: (offset, event, writer, time), in any order."""
        self.partition = partition
        self.offsets = array("q")
        self.events = array("q")
        self.writers = array("q")
        self.times = array("d")
        self.index: dict[int, int] = {}
        self.copies: dict[int, int] = {}
        for offset, event, writer, at in sorted(rows):
            if event in self.index:
                self.copies[event] = self.copies.get(event, 1) + 1
                continue
            self.index[event] = len(self.offsets)
            self.offsets.append(offset)
            self.events.append(event)
            self.writers.append(writer)
            self.times.append(at)

    @property
    def last(self) -> int:
        """The offset of its last event; -1 if it has none."""
        return self.offsets[-1] if self.offsets else -1


@dataclass(frozen=True, slots=True)
class Truth:
    """``logs``: by source. ``names``: the id of every event number, of the log or only told."""

    logs: dict[str, SourceLog]
    names: list[str]

    @property
    def events(self) -> int:
        """How many there are."""
        return sum(len(log.offsets) for log in self.logs.values())
