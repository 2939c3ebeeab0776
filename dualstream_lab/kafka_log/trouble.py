"""Partitions that cannot be read now, and when they are tried again. No I/O."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Final

from aiokafka.errors import OffsetOutOfRangeError

log = logging.getLogger(__name__)

_PAUSES: Final = (0.5, 30.0)  # s until a partition in trouble is tried again: first, and at most
_SILENT_PAUSE: Final = 4.0  # s, at most, where it is only that it does not answer
_WARN_EVERY: Final = 60.0  # s between warnings of one trouble
_NOW: Final = float("inf")  # it is being tried


@dataclass(slots=True, kw_only=True)
class PartitionTrouble:
    """Why a partition cannot be read on from ``offset``, since when (monotonic s), how often it was tried.

    ``removed``: the log does not have that offset any more (retention), or the topic was made anew.
    ``silent``: nothing is known but that Kafka does not answer for it.
    """

    offset: int
    reason: str
    removed: bool = False
    silent: bool = False
    since: float = field(default_factory=time.monotonic)
    tries: int = 0
    retry_at: float = _NOW
    warned_at: float = float("-inf")

    def __str__(self) -> str:
        return f"cannot be read at offset {self.offset}: {self.reason}"


class Troubles:
    """The partitions of one consumer that cannot be read now. ``count``: how often reading failed."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.now: dict[int, PartitionTrouble] = {}
        self.count = 0

    def fail(self, partition: int, offset: int, error: Exception) -> None:
        """It could not be read there: to be tried again after a pause."""
        trouble = self.now.get(partition)
        if trouble is None or trouble.silent or trouble.offset != offset:
            removed = isinstance(error, OffsetOutOfRangeError)
            reason = "the log does not have it (any more)" if removed else str(error) or type(error).__name__
            trouble = self.now[partition] = PartitionTrouble(offset=offset, reason=reason, removed=removed)
        self._note(partition, trouble, pause=True)

    def silent(self, partition: int, offset: int, *, pause: bool) -> None:
        """Kafka has not answered for it for a while. ``pause``: to be tried again after one."""
        reason = "Kafka does not answer for this partition"
        known = self.now.setdefault(partition, PartitionTrouble(offset=offset, reason=reason, silent=True))
        self._note(partition, known, pause=pause)

    def _note(self, partition: int, trouble: PartitionTrouble, *, pause: bool) -> None:
        now, (first, longest) = time.monotonic(), _PAUSES
        if pause:
            self.count += 1
            most = _SILENT_PAUSE if trouble.silent else longest
            trouble.retry_at = now + min(first * 2 ** min(trouble.tries, 10), most)
            trouble.tries += 1
        if now - trouble.warned_at >= _WARN_EVERY:
            trouble.warned_at = now
            log.warning("partition %d of %s %s", partition, self._topic, trouble)

    def recover(self, partition: int) -> None:
        """The partition can be read again."""
        if (trouble := self.now.pop(partition, None)) is not None:
            gone = time.monotonic() - trouble.since
            log.info("partition %d of %s can be read again, after %.1f s", partition, self._topic, gone)

    def is_paused(self, partition: int) -> bool:
        """Whether the partition is in trouble, and waits to be tried again."""
        trouble = self.now.get(partition)
        return trouble is not None and trouble.retry_at != _NOW

    def paused(self) -> set[int]:
        """The partitions that wait to be tried again."""
        return {partition for partition in self.now if self.is_paused(partition)}

    def is_due(self, partition: int, now: float) -> bool:
        """Whether it is to be tried now; then it no longer waits."""
        trouble = self.now[partition]
        if trouble.retry_at > now:
            return False
        trouble.retry_at = _NOW
        return True
