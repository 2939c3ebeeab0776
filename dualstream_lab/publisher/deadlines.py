"""Many waits of one length: kept in buckets, so that a finished wait is forgotten at once. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

T = TypeVar("T")
_BUCKETS = 50  # a wait ends at most one fiftieth late


class Deadlines(Generic[T]):
    """Items that are due ``timeout`` seconds after they were added; ``now`` never goes back."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._width = timeout / _BUCKETS
        self._buckets: deque[tuple[float, dict[T, None]]] = deque()

    def add(self, item: T, now: float) -> dict[T, None]:
        """Watch an item. Returns its bucket: remove the item from it when the wait is over."""
        if not self._buckets or now >= self._buckets[-1][0] - self.timeout:
            self._buckets.append((now + self.timeout + self._width, {}))
        bucket = self._buckets[-1][1]
        bucket[item] = None
        return bucket

    def next_due(self) -> float | None:
        """When :meth:`due` is to be called next; None when nothing is watched."""
        while self._buckets and not self._buckets[0][1]:
            self._buckets.popleft()
        return self._buckets[0][0] if self._buckets else None

    def due(self, now: float) -> list[T]:
        """The items whose time has come, oldest first; they are no longer watched."""
        items: list[T] = []
        while self._buckets and self._buckets[0][0] <= now:
            bucket = self._buckets.popleft()[1]
            items.extend(bucket)
            bucket.clear()
        return items
