"""Whether events are where publishers of ours put them: others hash otherwise, or not at all."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from dualstream_lab.kafka_log import partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.record import StoredEvent

__all__ = ["Placement"]

log = logging.getLogger(__name__)

_WARN_EVERY: Final = 60.0  # s
_MAX_SOURCES: Final = 100_000  # of one partition, kept in mind


class Placement:
    """Counts events in partitions where no publisher of ours would have put them, whatever count it saw.

    They are read all the same; ``misplaced``: how many there were. It costs a look at a batch's sources.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._warned_at = float("-inf")
        self._known: dict[int, dict[str, bool]] = {}
        self.misplaced = 0

    def note(self, partition: int, events: Sequence[StoredEvent], partitions: int) -> None:
        """A batch of a partition, of a topic that has so many by now."""
        known = self._known.setdefault(partition, {})
        sources = {event.source for event in events}
        for source in sources - known.keys():
            known[source] = _is_home(source, partition, partitions)
        if not all(known[source] for source in sources):
            self._count(sum(not known[event.source] for event in events), partition)
        if len(known) > _MAX_SOURCES:
            known.clear()

    def _count(self, count: int, partition: int) -> None:
        self.misplaced += count
        if (now := time.monotonic()) - self._warned_at >= _WARN_EVERY:
            self._warned_at = now
            log.warning(
                "%d events of %s so far, the last in partition %d, are where another partitioner put them. "
                "They are read, but the order of their sources is lost: set murmur2 (Java's default; "
                "librdkafka: partitioner=murmur2_random) and the source_id as the key",
                self.misplaced,
                self._topic,
                partition,
            )


def _is_home(source: str, partition: int, partitions: int) -> bool:
    """Today's count first; the topic may have had any smaller one."""
    return any(partition_of(source, count) == partition for count in range(partitions, partition, -1))
