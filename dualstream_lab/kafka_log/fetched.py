"""What a fetch brought, taken apart: records, and the offsets that are missing between them.

As aiokafka's own PartitionRecords does it, whose inside is known here, and with what that does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from aiokafka.errors import CorruptRecordException

if TYPE_CHECKING:
    from aiokafka.consumer.fetcher import PartitionRecords

    from dualstream_lab.record import Record

_READ_COMMITTED: Final = 1


class Fetched(Protocol):
    """What a consumer puts a partition's next records into: those with offsets below ``next_``.

    ``next_`` begins at the first offset and is moved on by the consumer, past what is no record as well.
    """

    next_: int

    def add(self, record: Record) -> None:
        """Take the next record."""

    def hole(self, first: int, end: int) -> None:
        """Offsets from ``first`` to before ``end`` are not in the log any more: compaction removed them."""

    def __len__(self) -> int:
        """How many were added."""


class LogRecord(msgspec.Struct, gc=False):
    """A record, and where it is; ``timestamp`` in ms."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Records:
    """A partition's next records, as a list: a :class:`Fetched` for those who want no more."""

    def __init__(self, partition: int, first: int) -> None:
        self.partition = partition
        self.next_ = first
        self.records: list[LogRecord] = []
        self.holes: list[tuple[int, int]] = []

    def add(self, record: Record) -> None:
        """See :class:`Fetched`."""
        time = record.timestamp or 0  # (the oldest format has none)
        self.records.append(
            LogRecord(self.partition, record.offset, time, record.key, record.value, record.headers)
        )

    def hole(self, first: int, end: int) -> None:
        """See :class:`Fetched`."""
        self.holes.append((first, end))

    def __len__(self) -> int:
        return len(self.records)


def unpack(fetch: PartitionRecords, part: Fetched, room: int) -> bool:
    """Move what was fetched into ``part``; False if there is more, which a next call goes on with.

    It ends behind the batch with which ``room`` records are there. What it raises leaves in ``part`` what is
    good, up to ``part.next_``. Control batches and what was aborted are left out. Every other offset has a
    record, but for those that the log cleaner has taken out, of a batch or with it.
    """
    memory = fetch._records  # noqa: SLF001
    while memory.has_next():
        if len(part) >= room:
            return False
        batch = memory.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"wrong CRC at or after offset {part.next_}")
        if batch.producer_id is not None:  # (batches of the formats before 2 do not say where they begin)
            _skip_to(part, batch.base_offset)
        if not _is_left_out(fetch, batch):
            _add_all(part, batch)
        part.next_ = max(part.next_, batch.next_offset)
    return True


def _add_all(part: Fetched, batch: Any) -> None:
    add = part.add
    next_ = part.next_
    try:
        for record in batch:
            offset = record.offset
            if offset != next_:
                if offset < next_:
                    continue  # the fetch began in the middle of the batch
                part.hole(next_, offset)
                next_ = offset
            add(record)
            next_ = offset + 1
    finally:
        part.next_ = next_
    _skip_to(part, batch.next_offset)


def _skip_to(part: Fetched, offset: int) -> None:
    if offset > part.next_:
        part.hole(part.next_, offset)
        part.next_ = offset


def _is_left_out(fetch: PartitionRecords, batch: Any) -> bool:
    """Whether a batch is a marker, or of an aborted transaction."""
    if fetch._isolation_level != _READ_COMMITTED or batch.producer_id is None:  # noqa: SLF001
        return bool(batch.is_control_batch)
    aborted: set[int] = fetch._aborted_producers  # noqa: SLF001
    fetch._consume_aborted_up_to(batch.base_offset)  # noqa: SLF001
    if batch.is_control_batch:
        # Of either kind, and also if the log cleaner has emptied it (which aiokafka cannot read): a producer
        # has one transaction at a time in a partition, and this is its end.
        aborted.discard(batch.producer_id)
        return True
    return bool(batch.is_transactional) and batch.producer_id in aborted
