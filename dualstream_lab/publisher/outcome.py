"""What a caller is told: receipts, outcomes, the answers of ``resolve``, the report of ``close``."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec


class Receipt(msgspec.Struct, frozen=True):
    """The event is durable at ``partition``, ``offset``.

    ``offset`` is -1 where Kafka acknowledged a repeated batch without saying where it is.
    """

    event_id: str
    partition: int
    offset: int


class Durable(msgspec.Struct, frozen=True, tag=True):
    """The event is in the log."""

    partition: int
    offset: int


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """Not in the log, and will not be: fix or retry."""

    reason: str


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """The deadline passed while Kafka had it: ``resolve()`` it, or retry with the same id."""


Outcome = Durable | Rejected | Unknown
IN_FLIGHT: Final = Unknown()


class InLog(msgspec.Struct, frozen=True, tag=True):
    """It is in the log. ``offset`` as in :class:`Receipt`."""

    partition: int
    offset: int


class NotInLog(msgspec.Struct, frozen=True, tag=True):
    """It is not in the log and will not be: safe to publish again."""

    reason: str


class StillOpen(msgspec.Struct, frozen=True, tag=True):
    """It may still arrive: ask again later, or retry with the same id (consumers deduplicate by id)."""

    reason: str


Resolution = InLog | NotInLog | StillOpen


class BatchReceipt:
    """The events of one ``publish_batch``, in input order; all are durable but those in ``invalid``.

    ``event_ids``, ``partitions`` and ``offsets`` have one entry an event (int64 arrays; -1 for an event
    that ``on_invalid="skip"`` left out). ``invalid`` maps such an index to its reason.
    """

    __slots__ = ("_columns", "_runs", "event_ids", "invalid")

    def __init__(
        self,
        event_ids: Sequence[str],
        runs: Sequence[tuple[int, int, Sequence[int]]],
        invalid: Mapping[int, str],
    ) -> None:
        self.event_ids = event_ids
        self.invalid = invalid
        self._runs = runs  # (partition, base offset, indices in input order)
        self._columns: tuple[array[int], array[int]] | None = None

    def __len__(self) -> int:
        return len(self.event_ids)

    def __repr__(self) -> str:
        return f"<BatchReceipt of {len(self)} events, {len(self.invalid)} invalid>"

    def __iter__(self) -> Iterator[Receipt]:
        """The receipts of the durable events."""
        partitions, offsets = self._arrays()
        for index, event_id in enumerate(self.event_ids):
            if index not in self.invalid:
                yield Receipt(event_id, partitions[index], offsets[index])

    @property
    def partitions(self) -> array[int]:
        """The partition of each event."""
        return self._arrays()[0]

    @property
    def offsets(self) -> array[int]:
        """The offset of each event."""
        return self._arrays()[1]

    def _arrays(self) -> tuple[array[int], array[int]]:
        # Many callers only want to know that it is durable, so the columns are made when asked for.
        if self._columns is None:
            partitions = array("q", [-1]) * len(self.event_ids)
            offsets = array("q", [-1]) * len(self.event_ids)
            for partition, base, indices in self._runs:
                for place, index in enumerate(indices):
                    partitions[index] = partition
                    offsets[index] = base + place if base >= 0 else -1
            self._columns = partitions, offsets
        return self._columns


class PublisherStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one publisher's counters; all but the last group only grow.

    Every accepted event is, in the end, ``durable``, ``rejected`` or ``unknown``. An unknown that is
    acknowledged later is counted in ``late_acks`` (and not in ``durable``). Every durable event, late or not,
    is in the end ``notified`` or in one of ``dropped``.
    """

    accepted: int
    durable: int
    rejected: int
    unknown: int
    late_acks: int
    refused: int
    """Events refused before they were accepted: invalid, or no room."""
    producers: int
    """Kafka producers so far: more than one after a batch failed."""

    notified: int
    """Notifications that Redis answered."""
    receivers: int
    """The sum of the receivers that Redis counted."""
    dropped: Mapping[str, int]
    """Notifications given up, by reason."""
    resyncs: int
    """Times that skipped sources were announced on ``events:_resync``."""

    buffered_events: int
    buffered_bytes: int
    queued_notifications: int
    dirty_sources: int
    redis_up: bool
    """Whether the last exchange with Redis went well."""
    core: str
    """What encodes: ``compiled``, or ``plain Python`` where that was not built."""


class CloseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``close`` left behind."""

    durable: int
    """Events acknowledged while closing."""
    rejected: Sequence[str]
    """Keys (``type:id`` of the source, a space, the id) of events that were never handed to Kafka."""
    unresolved: Sequence[str]
    """Keys of events that Kafka had, and did not acknowledge in time."""
    dropped_notifications: int
