"""Event ids that carry their place in the plan, so that a recorded row needs an integer only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from uuid import UUID

_MAX = 1 << 48


class RunIds:
    """The ids of one run: UUIDs of version 8 (RFC 9562) whose last 48 bits are the sequence number."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    @classmethod
    def of_run(cls, run: UUID) -> Self:
        """The ids of the run with this UUID; two runs share none."""
        text = str(run)
        return cls(f"{text[:14]}8{text[15:19]}{'89ab'[int(text[19], 16) % 4]}{text[20:24]}")

    def of(self, seq: int) -> str:
        """The id of an event, ``seq`` from 0 to 2^48 - 1."""
        if not 0 <= seq < _MAX:
            raise ValueError(f"sequence number {seq} is not from 0 to 2^48 - 1")
        return f"{self.prefix}{seq:012x}"

    def seq(self, event_id: str) -> int | None:
        """The sequence number in an id; None where the id is of another run or of another make."""
        if len(event_id) != 36 or not event_id.startswith(self.prefix):
            return None
        try:
            return int(event_id[24:], 16)
        except ValueError:
            return None
