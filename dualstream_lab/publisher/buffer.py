"""The bound on what waits in memory. Pure: no clock, no loop."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Buffer"]

T = TypeVar("T")


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
        self._line: OrderedDict[T, tuple[int, int]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._line)

    def is_waiting(self, ticket: T) -> bool:
        """Whether the request is in line."""
        return ticket in self._line

    def can_ever_hold(self, events: int, size: int) -> bool:
        """Whether a request of this size would fit into the empty buffer."""
        return events <= self.max_events and size <= self.max_bytes

    def reserve(self, events: int, size: int) -> bool:
        """Take room if there is some and nobody waits."""
        if self._line or not self._fits(events, size):
            return False
        self.events += events
        self.bytes += size
        return True

    def wait(self, ticket: T, events: int, size: int) -> None:
        """Join the line. Raises ValueError for what can never fit."""
        if not self.can_ever_hold(events, size):
            raise ValueError(f"{events} events of {size} bytes can never fit")
        self._line[ticket] = (events, size)

    def withdraw(self, ticket: T) -> list[T]:
        """Leave the line; nothing if not in it. Returns who is let in thereby, in order."""
        if self._line.pop(ticket, None) is None:
            return []
        return self._admit()

    def release(self, events: int, size: int) -> list[T]:
        """Give room back. Returns who is let in thereby, in order: their room is taken already."""
        self.events -= events
        self.bytes -= size
        return self._admit() if self._line else []

    def _fits(self, events: int, size: int) -> bool:
        return self.events + events <= self.max_events and self.bytes + size <= self.max_bytes

    def _admit(self) -> list[T]:
        admitted = []
        while self._line:
            ticket, (events, size) = next(iter(self._line.items()))
            if not self._fits(events, size):
                break
            del self._line[ticket]
            self.events += events
            self.bytes += size
            admitted.append(ticket)
        return admitted
