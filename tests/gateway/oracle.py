"""What a client of the handover is owed: the oracle of its tests. No I/O and no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Frame(NamedTuple):
    """What a client is told; ``cursor``: where it would resume. ``offset``: of an event, else -1."""

    kind: str
    offset: int
    cursor: int


class Client:
    """Knows what it was told, resumes with the last cursor it got, and checks both.

    ``promised``: everything after it is owed; None until it is told from where on. ``cursor``: None to come
    without one.
    """

    def __init__(self, cursor: int | None) -> None:
        self.cursor = cursor
        self.promised = cursor
        self.known: set[int] = set()
        self.duplicates: list[int] = []
        self.unknown: set[int] = set()
        """What a cursor covered although it was never told."""
        self._covered = -1 if cursor is None else cursor

    def receive(self, frames: list[Frame], events: list[int]) -> None:
        """A connection's frames, as far as they came."""
        told: set[int] = set()
        for kind, offset, cursor in frames:
            if kind == "event":
                if offset in told:
                    self.duplicates.append(offset)
                told.add(offset)
                self.known.add(offset)
            elif kind != "sync":
                self._begin(kind, cursor)
            self.cursor = cursor if kind != "lost" else self.cursor
            if cursor > self._covered and self.promised is not None:
                self.unknown |= self.missing(events, cursor)
                self._covered = cursor

    def _begin(self, kind: str, cursor: int) -> None:
        """From where on it is owed everything."""
        if kind == "refused" or self.promised is None:
            self.promised = self._covered = cursor
        elif kind == "lost":
            self.promised = max(self.promised, cursor)
            self._covered = max(self._covered, cursor)

    def missing(self, events: list[int], through: int) -> set[int]:
        """What it does not know of what is owed beyond what its cursors covered before."""
        first = bisect_right(events, self._covered)
        return set(events[first : bisect_right(events, through)]) - self.known


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
