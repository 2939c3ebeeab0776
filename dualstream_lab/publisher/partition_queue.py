"""The slices of calls that wait for one partition, and the batch of it that is in flight. Pure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from dualstream_lab.publisher.call import PartitionSlice, State
from dualstream_lab.publisher.record_batch import Codec, RecordBatch


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch that Kafka has, since a moment of the loop's clock."""

    parts: list[PartitionSlice]
    batch: RecordBatch
    future: asyncio.Future[Any]
    began: float

    def return_to_waiting(self) -> None:
        """Nothing of the batch is in the log: its events wait again, with what is to be sent of them."""
        records = iter(self.batch.records())
        for part in self.parts:
            part.state = State.WAITING
            part.records = list(islice(records, len(part)))


@dataclass(slots=True, eq=False)
class PartitionQueue:
    """One partition: what waits for it, and the one batch in flight.

    ``again``: what Kafka gave back, each to be a batch of its own (or several), before all that waits.
    """

    partition: int
    again: deque[deque[PartitionSlice]] = field(default_factory=deque)
    waiting: deque[PartitionSlice] = field(default_factory=deque)
    in_flight: InFlightBatch | None = None
    next_offset: int = -1  # after the last event acknowledged; -1 before the first

    def take_all(self) -> list[PartitionSlice]:
        """All that waits, in order; nothing does any more."""
        groups = (*self.again, self.waiting)
        waiting = [part for group in groups for part in group if part.state is State.WAITING]
        self.again.clear()
        self.waiting.clear()
        return waiting

    def give_back(self, groups: Iterable[Iterable[PartitionSlice]]) -> None:
        """Send these again, in this order, before all else."""
        self.again.extendleft(reversed([deque(group) for group in groups]))

    def next_batch(self, limit: int, codec: Codec | None) -> tuple[list[PartitionSlice], RecordBatch]:
        """The next events, as many as have room in a batch; no slices where nothing waits."""
        parts: list[PartitionSlice] = []
        batch = RecordBatch(limit, codec)
        while self.again and not parts:
            _move(self.again[0], parts, batch)
            if not self.again[0]:
                self.again.popleft()
        if not parts:
            _move(self.waiting, parts, batch)
        return parts, batch


def _move(queue: deque[PartitionSlice], parts: list[PartitionSlice], batch: RecordBatch) -> None:
    """Slices into a batch, until it is full; one that does not fit as a whole is split."""
    while queue:
        part = queue.popleft()
        if part.state is not State.WAITING:  # it was given up at its deadline
            continue
        taken = batch.add(part.records, part.timestamp)
        if taken:
            parts.append(part)
        if taken < len(part.indices):
            queue.appendleft(part.split(taken) if taken else part)
            return
