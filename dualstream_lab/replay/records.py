"""Records as a replay has them: each with where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.record import Record

__all__ = ["LogRecord", "Part"]


class LogRecord(msgspec.Struct, gc=False):
    """A record, and where it is; ``timestamp`` in ms."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Part:
    """A partition's next records, as the consumer puts them in; ``holes``: what is missing between them."""

    def __init__(self, partition: int, first: int) -> None:
        self.partition = partition
        self.next_ = first
        self.records: list[LogRecord] = []
        self.holes: list[tuple[int, int]] = []

    def add(self, record: Record) -> None:
        """The next record."""
        where = self.partition, record.offset, record.timestamp or 0  # (the oldest format has no time)
        self.records.append(LogRecord(*where, record.key, record.value, record.headers))

    def hole(self, first: int, end: int) -> None:
        """Offsets that are not in the log any more."""
        self.holes.append((first, end))

    def __len__(self) -> int:
        return len(self.records)
