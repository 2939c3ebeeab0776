"""What is applied in one transaction: a partition's next records, decoded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from dualstream_lab.kafka_log import Repeats, partition_of
from dualstream_lab.processor.dead_letters import DeadLetter
from dualstream_lab.record import Decoder, Record, StoredEvent
from dualstream_lab.store import Hole

log = logging.getLogger(__name__)

_PAUSES: Final = (0.05, 0.2, None)  # s after each try of one event; three tries
_WARN_EVERY: Final = 60.0  # s
_MAX_SOURCES: Final = 100_000  # of one partition, kept in mind


class Handler(Protocol):
    """Is given every valid event, a batch at a time, in the order of each partition.

    At least once: after a crash, a rebalance or a failed batch it sees events again, with the same id. An
    event that is a duplicate for the store is given to it, too. While it works, nothing of its partition
    goes on; for longer than five minutes, and the partition goes to another processor.
    """

    async def handle(self, events: Sequence[StoredEvent]) -> None:
        """Handle a batch of records. An exception refuses the batch; then its events are tried alone, up to
        three times.
        """


async def _refusals(handler: Handler, events: Sequence[StoredEvent]) -> dict[int, str]:
    """Why the handler refuses some of the events, by offset."""
    try:
        await handler.handle(events)
    except Exception as error:  # noqa: BLE001  (whatever an application raises)
        name = type(handler).__name__
        log.warning("%s refused %d events, trying each: %r", name, len(events), error)
    else:
        return {}
    reasons = {event.offset: await _refusal(handler, event) for event in events}
    return {offset: reason for offset, reason in reasons.items() if reason is not None}


async def _refusal(handler: Handler, event: StoredEvent) -> str | None:
    reason = ""
    for pause in _PAUSES:
        try:
            await handler.handle([event])
        except Exception as error:  # noqa: BLE001
            tries = f"refused it {len(_PAUSES)} times, at last with {error!r}"
            reason = f"{type(handler).__name__} {tries}"
            if pause is not None:
                await asyncio.sleep(pause)
        else:
            return None
    return reason


class Placement:
    """Counts events in partitions where no publisher of ours would have put them, whatever count it saw.

    They are read all the same; ``misplaced``: how many there were. It costs a look at a batch's sources.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._repeats = Repeats(_WARN_EVERY)
        self._known: dict[int, dict[str, bool]] = {}
        self.misplaced = 0

    def note(self, partition: int, events: Sequence[StoredEvent], partitions: int) -> None:
        """A batch of a partition, of a topic that has so many by now."""
        known = self._known.setdefault(partition, {})
        sources = {event.source for event in events}
        for source in sources - known.keys():
            # Today's count first; the topic may have had any smaller one.
            counts = range(partitions, partition, -1)
            known[source] = any(partition_of(source, count) == partition for count in counts)
        misplaced = {source for source in sources if not known[source]}
        if len(known) > _MAX_SOURCES:
            known.clear()
        if not misplaced:
            return
        self.misplaced += sum(event.source in misplaced for event in events)
        if self._repeats.due():
            log.warning(
                "%d events of %s so far, the last in partition %d, are where another partitioner put them. "
                "They are read, but the order of their sources is lost: set murmur2 (Java's default; "
                "librdkafka: partitioner=murmur2_random) and the source_id as the key",
                self.misplaced,
                self._topic,
                partition,
            )


class Batch:
    """A partition's records from ``first`` up to ``next_``: ``events``, and ``letters`` for the others.

    What the consumer fetched is put into it. ``holes``: what compaction had removed of the stretch. ``keep``:
    the records stay at hand, for letters about what a handler refuses. Otherwise each is let go when it is
    decoded, which spares the garbage collector ten objects a record.
    """

    def __init__(self, topic: str, partition: int, first: int, decode: Decoder, *, keep: bool) -> None:
        self.topic = topic
        self.partition = partition
        self.first = self.next_ = first
        self.events: list[StoredEvent] = []
        self.letters: list[DeadLetter] = []
        self.holes: list[Hole] = []
        self._decode = decode
        self._records: dict[int, Record] | None = {} if keep else None

    def add(self, record: Record) -> None:
        """Decode the next record, into an event or a dead letter."""
        event = self._decode(self.partition, record)
        if isinstance(event, str):
            self._refuse(record, event)
            return
        self.events.append(event)
        if self._records is not None:
            self._records[record.offset] = record

    def hole(self, first: int, end: int) -> None:
        """Note offsets that are not in the log any more."""
        self.holes.append(Hole(first, end, "compaction"))

    def __len__(self) -> int:
        return len(self.events) + len(self.letters)

    async def handle(self, handlers: Sequence[Handler]) -> None:
        """Give the events to each handler in turn; what one refuses becomes a letter, and goes no further."""
        for handler in handlers:
            if not self.events or self._records is None:
                return
            refused = await _refusals(handler, self.events)
            self.events = [event for event in self.events if event.offset not in refused]
            for offset, reason in refused.items():
                self._refuse(self._records[offset], reason)

    def _refuse(self, record: Record, reason: str) -> None:
        self.letters.append(DeadLetter(self.topic, self.partition, record, reason))
