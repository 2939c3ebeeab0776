"""What is applied in one transaction: a partition's next records, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.processor.dead_letters import DeadLetter
from dualstream_lab.processor.handling import handled
from dualstream_lab.store import Hole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.processor.handling import Handler
    from dualstream_lab.record import Decoder, Record
    from dualstream_lab.store import StoredEvent

__all__ = ["Batch"]


class Batch:
    """A partition's records from ``first`` up to ``next_``: ``events``, and ``letters`` for the others.

    What the consumer fetched is put into it. ``holes``: what compaction had removed of the stretch. ``keep``:
    the records stay at hand, for letters about what a handler refuses. Otherwise each is let go when it is
    decoded, which spares the garbage collector ten objects a record.
    """

    def __init__(self, topic: str, partition: int, first: int, decode: Decoder, *, keep: bool) -> None:
        self.topic = topic
        self.partition = partition
        self.first = first
        self.next_ = first
        self.events: list[StoredEvent] = []
        self.letters: list[DeadLetter] = []
        self.holes: list[Hole] = []
        self._decode = decode
        self._records: dict[int, Record] | None = {} if keep else None

    def add(self, record: Record) -> None:
        """The next record."""
        event = self._decode(self.partition, record)
        if isinstance(event, str):
            self._refuse(record, event)
            return
        self.events.append(event)
        if self._records is not None:
            self._records[record.offset] = record

    def hole(self, first: int, end: int) -> None:
        """What is not in the log any more."""
        self.holes.append(Hole(first, end, "compaction"))

    def __len__(self) -> int:
        return len(self.events) + len(self.letters)

    async def handle(self, handlers: Sequence[Handler]) -> None:
        """Give the events to each handler in turn; what one refuses becomes a letter, and goes no further."""
        for handler in handlers:
            if not self.events or self._records is None:
                return
            self.events, refused = await handled(handler, self.events)
            for event, reason in refused:
                self._refuse(self._records[event.offset], reason)

    def _refuse(self, record: Record, reason: str) -> None:
        letter = DeadLetter(topic=self.topic, partition=self.partition, record=record, reason=reason)
        self.letters.append(letter)
