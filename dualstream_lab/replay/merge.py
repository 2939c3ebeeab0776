"""Partitions side by side into one sequence. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Merge"]

_AHEAD = 4


class Stamped(Protocol):
    """A record, as far as it matters here."""

    @property
    def timestamp(self) -> int:
        """Its time."""


R = TypeVar("R", bound=Stamped)


class Merge(Generic[R]):
    """Records in order of time across partitions, and in the partition's own order within it.

    An open partition without a record holds up the others, for its next one may be older; a closed one no
    longer does. Where the stamps of one partition are not ascending its own order wins.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self.open = set(partitions)
        self._batches: dict[int, deque[list[R]]] = {}  # each the wrong way round
        self._heads: list[tuple[int, int]] = []

    def add(self, partition: int, records: Iterable[R]) -> None:
        """What comes next in a partition."""
        batch = list(records)
        if not batch:
            return
        batch.reverse()
        batches = self._batches.setdefault(partition, deque())
        batches.append(batch)
        if len(batches) == 1:
            heapq.heappush(self._heads, (batch[-1].timestamp, partition))

    def close(self, partition: int) -> None:
        """Wait for it no longer."""
        self.open.discard(partition)

    def wanted(self) -> list[int]:
        """The open partitions that may give more: each is at most a few batches ahead of the others."""
        return [partition for partition in self.open if len(self._batches.get(partition, ())) < _AHEAD]

    def take(self, count: int) -> list[R]:
        """The next records, at most so many; none while a partition holds them up."""
        taken: list[R] = []
        if any(not self._batches.get(partition) for partition in self.open):
            return taken
        while self._heads and len(taken) < count:
            _, partition = self._heads[0]
            batches = self._batches[partition]
            taken.append(batches[0].pop())
            if not batches[0]:
                batches.popleft()
            if batches:
                heapq.heapreplace(self._heads, (batches[0][-1].timestamp, partition))
                continue
            heapq.heappop(self._heads)
            if partition in self.open:
                break
        return taken
