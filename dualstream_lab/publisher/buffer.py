"""The bounds on what waits: room in memory, and time. Pure: no clock, no loop."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")
_BUCKETS = 50  # a wait ends at most one fiftieth late


class Buffer(Generic[T]):
    """Room for ``max_events`` events and ``max_bytes`` bytes, given out first come, first served.

    A request that does not fit waits in line, and nobody overtakes it, so that order is kept. Requests
    are known by a hashable ticket.
    """

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.events = 0
        self.bytes = 0
        self.waiting: OrderedDict[T, tuple[int, int]] = OrderedDict()
        """Requests in line."""

    def can_ever_hold(self, events: int, size: int) -> bool:
        """Whether a request of this size would fit into the empty buffer."""
        return events <= self.max_events and size <= self.max_bytes

    def reserve(self, events: int, size: int) -> bool:
        """Take room if there is some and nobody waits."""
        if self.waiting or not self._fits(events, size):
            return False
        self.events += events
        self.bytes += size
        return True

    def wait(self, ticket: T, events: int, size: int) -> None:
        """Join the line. Raises ValueError for what can never fit."""
        if not self.can_ever_hold(events, size):
            raise ValueError(f"{events} events of {size} bytes can never fit")
        self.waiting[ticket] = (events, size)

    def withdraw(self, ticket: T) -> list[T]:
        """Leave the line; nothing if not in it. Returns who is let in thereby, in order."""
        return self._admit() if self.waiting.pop(ticket, None) else []

    def release(self, events: int, size: int) -> list[T]:
        """Give back the room of events that are settled. Returns who is let in thereby, in order: their room
        is taken already.
        """
        self.events -= events
        self.bytes -= size
        return self._admit() if self.waiting else []

    def _fits(self, events: int, size: int) -> bool:
        return self.events + events <= self.max_events and self.bytes + size <= self.max_bytes

    def _admit(self) -> list[T]:
        admitted = []
        while self.waiting and self._fits(*next(iter(self.waiting.values()))):
            ticket, (events, size) = self.waiting.popitem(last=False)
            self.events += events
            self.bytes += size
            admitted.append(ticket)
        return admitted


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
