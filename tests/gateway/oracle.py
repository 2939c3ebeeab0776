"""What a client of the handover is owed: the oracle of its tests. No I/O and no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Cursor = Mapping[int, int]
"""Partition to offset: everything up to it is known; of a partition that is not named nothing is."""
Event = tuple[int, int]
"""Partition and offset."""


class Frame(NamedTuple):
    """What a client is told; ``cursor``: where it would resume. ``event``: where it is, else None."""

    kind: str
    event: Event | None
    cursor: Cursor | None


class Client:
    """Knows what it was told, resumes with the last cursor it got, and checks both.

    ``promised``: everything after it is owed; None until it is told from where on. ``cursor``: None to come
    without one; empty: for all there is.
    """

    def __init__(self, cursor: Cursor | None) -> None:
        self.cursor = cursor
        self.promised = cursor
        self.known: set[Event] = set()
        self.duplicates: list[Event] = []
        self.unknown: set[Event] = set()
        """What a cursor covered although it was never told."""
        self._covered: dict[int, int] = dict(cursor or {})

    def receive(self, frames: list[Frame], events: Mapping[int, list[int]]) -> None:
        """A connection's frames, as far as they came."""
        told: set[Event] = set()
        for kind, event, cursor in frames:
            if event is not None:
                if event in told:
                    self.duplicates.append(event)
                told.add(event)
                self.known.add(event)
            elif kind != "sync" and cursor is not None:
                self._begin(kind, cursor)
            if kind in {"lost", "floor"} or cursor is None:
                continue
            self.cursor = cursor
            if self.promised is not None:
                self.unknown |= self.missing(events, cursor)
                self._cover(cursor)

    def _begin(self, kind: str, cursor: Cursor) -> None:
        """From where on it is owed everything; ``floor`` is no word of the wire, but what was kept."""
        if kind == "refused" or self.promised is None:
            self.promised = cursor
            self._covered = dict(cursor)
        elif kind in {"lost", "floor"}:
            self.promised = {p: max(self.promised.get(p, -1), o) for p, o in cursor.items()}
            self._cover(cursor)

    def _cover(self, cursor: Cursor) -> None:
        for partition, offset in cursor.items():
            self._covered[partition] = max(offset, self._covered.get(partition, -1))

    def missing(self, events: Mapping[int, list[int]], through: Cursor) -> set[Event]:
        """What it does not know of what is owed beyond what its cursors covered before."""
        return {
            (partition, offset)
            for partition, end in through.items()
            for offset in self._between(events.get(partition, []), self._covered.get(partition, -1), end)
        } - self.known

    @staticmethod
    def _between(offsets: list[int], after: int, through: int) -> list[int]:
        return offsets[bisect_right(offsets, after) : bisect_right(offsets, through)]


@dataclass
class Outcome:
    """``unheld``: cursors that covered what was not told. ``wrong``: steps that the rules forbid."""

    gaps: int = 0
    duplicates: int = 0
    unheld: int = 0
    events: int = 0
    told: int = 0
    late: int = 0
    lost: int = 0
    resumed: int = 0
    overflowed: int = 0
    foreign: int = 0
    beyond: int = 0
    grown: int = 0
    aborted: int = 0
    held: int = 0
    elsewhere: int = 0
    entered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.gaps or self.duplicates or self.unheld or self.wrong)


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """The sums over many schedules."""
    summed = Outcome()
    for outcome in outcomes:
        for name, value in vars(outcome).items():
            setattr(summed, name, getattr(summed, name) + value)
    return summed
