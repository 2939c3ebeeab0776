"""The order of a source whose partition changes because partitions were added. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.publisher.lane import Call

__all__ = ["Generation"]


class Generation:
    """The calls that were encoded while the topic had the same number of partitions.

    From one generation to the next a source may be in another partition, and Kafka keeps no order between
    partitions. So the calls of a generation are held until all of the one before are settled: acknowledged,
    refused, or reported unknown at their deadline. That bounds the wait; what was reported unknown may still
    arrive later.
    """

    __slots__ = ("after", "before", "held", "open")

    def __init__(self, before: Generation | None = None) -> None:
        self.open = 0
        """Calls made and not settled."""
        self.before = before
        """The one that is waited for; None: calls go on at once."""
        self.after: Generation | None = None
        self.held: list[Call] = []
        """Accepted calls that wait, in order."""

    def next(self) -> Generation:
        """The generation after this one, which is the newest."""
        settled = not self.open and self.before is None
        self.after = Generation(None if settled else self)
        return self.after

    def leave(self) -> Sequence[Call]:
        """A call is settled. Returns those that may go on now, in the order in which they were accepted."""
        self.open -= 1
        if self.open or self.after is None:
            return ()
        freed: list[Call] = []
        generation = self
        while not generation.open and generation.before is None and (after := generation.after) is not None:
            generation.after = None
            after.before = None
            freed += after.held
            after.held = []
            generation = after
        return freed
