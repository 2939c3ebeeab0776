"""Where a subscriber is in one source's history: ``epoch:partition:offset[~partition:offset…]``. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from dualstream_lab.errors import EventError

_FORM: Final = re.compile(
    r"([0-9a-z]{1,32}):([0-9]{1,9}:(?:-1|[0-9]{1,18})(?:~[0-9]{1,9}:(?:-1|[0-9]{1,18}))*)"
)
_MAX_LENGTH: Final = 16_384  # characters: a source in some 1,000 partitions
_MAX_POSITION: Final = 28  # characters; int() raises for thousands of digits
_ALLOWED: Final = "epoch:partition:offset[~partition:offset…], as the gateway gives it"


class Cursor(NamedTuple):
    """Every event of the source up to and including each offset is known; -1: none is.

    ``epoch`` names the log: offsets of another cluster, or of a topic that was made anew, mean nothing here.
    ``offsets`` has the partitions that the source has been in, ascending. Most sources are in one; where
    partitions were added, or another client hashes otherwise, they are in several. Of a partition that is not
    named nothing is known: the source had nothing there when the cursor was given.
    """

    epoch: str
    offsets: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, epoch: str, offsets: Mapping[int, int]) -> Self:
        """A cursor from offsets by partition."""
        return cls(epoch, tuple(sorted(offsets.items())))

    def __str__(self) -> str:
        return f"{self.epoch}:" + "~".join(f"{partition}:{offset}" for partition, offset in self.offsets)

    @property
    def by_partition(self) -> dict[int, int]:
        """Partition to offset."""
        return dict(self.offsets)

    def merged(self, other: Cursor) -> Cursor:
        """What is known by either, of one log: the higher offset of each partition."""
        known = self.by_partition
        for partition, offset in other.offsets:
            known[partition] = max(offset, known.get(partition, offset))
        return Cursor.of(self.epoch, known)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises EventError for another form, and for a partition that is named twice."""
        match = _FORM.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            raise EventError(f"cursor {text[:100]!r} is not {_ALLOWED}")
        pairs = [pair.split(":") for pair in match[2].split("~")]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) < len(pairs):
            raise EventError(f"cursor {text[:100]!r} names a partition twice; it is {_ALLOWED}")
        return cls.of(match[1], offsets)


def position_of(pos: str | None) -> tuple[int, int] | None:
    """Partition and offset of ``partition:offset``, where an event is in Kafka; None for another form."""
    if pos is None or len(pos) > _MAX_POSITION:
        return None
    partition, _, offset = pos.partition(":")
    return (int(partition), int(offset)) if partition.isdecimal() and offset.isdecimal() else None
