"""How far a client has come in a source, and event ids as numbers."""

from __future__ import annotations

import time

from dualstream_lab.lab.check_gateway.history import NOWHERE, Stay

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
    """A source that a client follows. ``cursor``: the last that it was given, or where it begins."""

    __slots__ = ("cursor", "joined", "offset", "source", "stays")

    def __init__(self, source: str, begin: str) -> None:
        self.source = source
        self.cursor = begin
        self.offset = -1 if begin == "earliest" else NOWHERE
        self.stays: list[Stay] = []
        self.joined = False

    def begin(self) -> None:
        """On a new connection."""
        self.joined = False
        since = None if self.offset == NOWHERE else self.offset
        self.stays.append(Stay(since, time.monotonic()))

    def confirm(self, cursor: str) -> int:
        """The cursor that came; its offset. Raises ValueError for one of another log, or none at all."""
        log, _, offset = cursor.rpartition(":")
        if ":" in self.cursor and log != self.cursor.rpartition(":")[0]:
            raise ValueError(f"cursor {cursor} after {self.cursor}: another log, or another partition")
        self.offset = int(offset)
        self.cursor = cursor
        return self.offset
