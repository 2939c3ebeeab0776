"""How far a client has come in a source, and event ids as numbers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dualstream_lab.cursor import Cursor
from dualstream_lab.lab.gateway_check.history import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Names", "Place"]


class Names:
    """Event ids as numbers: a record of a million deliveries holds each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, event_id: str) -> int:
        """The id's number."""
        return self._numbers.setdefault(event_id, len(self._numbers))

    def texts(self) -> list[str]:
        """By number."""
        return list(self._numbers)


class Place:
    """A source that a client follows. ``cursor``: the last that it was given, or where it begins;
    ``offsets``: what that confirms, by partition, None: nothing.
    """

    __slots__ = ("_epoch", "cursor", "joined", "offsets", "sessions", "source")

    def __init__(self, source: str, begin: str) -> None:
        self.source = source
        self.cursor = begin
        self.offsets: Mapping[int, int] | None = {} if begin == "earliest" else None
        self.sessions: list[Session] = []
        self.joined = False
        self._epoch = ""

    def begin(self) -> None:
        """On a new connection."""
        self.joined = False
        self.sessions.append(Session(self.offsets, time.monotonic()))

    def confirm(self, text: str) -> Mapping[int, int]:
        """The cursor that came; its offsets. Raises ValueError for one of another log, or none at all."""
        if text == self.cursor and self.offsets is not None:
            return self.offsets
        cursor = Cursor.parse(text)
        if self._epoch not in {"", cursor.epoch}:
            raise ValueError(f"cursor {text} after {self.cursor}: another log")
        self.cursor, self.offsets, self._epoch = text, cursor.by_partition, cursor.epoch
        return self.offsets

    def reached(self, last: Mapping[int, int]) -> bool:
        """Whether all up to there is confirmed."""
        offsets = self.offsets
        return offsets is not None and all(offsets.get(p, -1) >= offset for p, offset in last.items())
