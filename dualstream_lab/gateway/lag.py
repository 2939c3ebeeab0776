"""How far the store is behind the log's end, in messages and in seconds. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dualstream_lab.gateway.past import Positions

__all__ = ["Lag"]

_MARKS: Final = 600  # ends of a partition that are remembered, at one a second ten minutes


class Lag:
    """Remembers when each partition's end was first seen where it was, until the store has come so far."""

    def __init__(self) -> None:
        self._marks: dict[int, deque[tuple[float, int]]] = {}
        self._now = 0.0
        self.messages: dict[int, int] = {}
        """Of each partition whose end is known: what the store lacks."""

    def sample(self, now: float, ends: Positions, positions: Positions) -> None:
        """The ends as they were at ``now`` (s), and the store's positions, read after them."""
        self._now = now
        for partition, end in ends.items():
            marks = self._marks.setdefault(partition, deque())
            position = positions.get(partition, 0)
            self.messages[partition] = max(0, end - position)
            while marks and marks[0][1] <= position:
                marks.popleft()
            if end > position and len(marks) < _MARKS and (not marks or end > marks[-1][1]):
                marks.append((now, end))

    def seconds(self, partition: int) -> float:
        """For how long the log has had what the store lacks, as far as was watched; 0: it lacks nothing."""
        marks = self._marks.get(partition)
        return max(0.0, self._now - marks[0][0]) if marks else 0.0

    def longest(self, partitions: Iterable[int]) -> float:
        """Of these the most seconds."""
        return max(map(self.seconds, partitions), default=0.0)

    def forget(self) -> None:
        """The log was made anew."""
        self._marks.clear()
        self.messages.clear()
