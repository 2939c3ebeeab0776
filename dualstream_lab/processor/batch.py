"""What is applied in one transaction: a partition's next records, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.processor.dead_letters import DeadLetter
from dualstream_lab.processor.handling import handled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.processor.consumer import Polled
    from dualstream_lab.processor.decoding import Decoder
    from dualstream_lab.processor.handling import Handler
    from dualstream_lab.store import StoredEvent

__all__ = ["Batch"]


class Batch:
    """A partition's records from ``first`` up to ``next_``: ``events``, and ``letters`` for the others."""

    def __init__(self, polled: Polled, first: int, decode: Decoder) -> None:
        self.partition = polled.partition
        self.first = first
        self.next_ = polled.next_
        self.events: list[StoredEvent] = []
        self.letters: list[DeadLetter] = []
        self._records = polled.records
        for record in polled.records:
            event = decode(record)
            if isinstance(event, str):
                self.letters.append(DeadLetter(record=record, reason=event))
            else:
                self.events.append(event)

    async def handle(self, handlers: Sequence[Handler]) -> None:
        """Give the events to each handler in turn; what one refuses becomes a letter, and goes no further."""
        for handler in handlers:
            if not self.events:
                return
            self.events, refused = await handled(handler, self.events)
            if refused:
                records = {record.offset: record for record in self._records}
                self.letters += [
                    DeadLetter(record=records[event.offset], reason=reason) for event, reason in refused
                ]
