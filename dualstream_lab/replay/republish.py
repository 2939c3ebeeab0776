"""The sink that is another topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dualstream_lab.errors import EventError
from dualstream_lab.replay.player import reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dualstream_lab.config import Settings
    from dualstream_lab.event import Event
    from dualstream_lab.replay.player import Reject
    from dualstream_lab.replay.selection import Found

__all__ = ["Republish"]


class Publisher(Protocol):
    """What a replay needs of a publisher."""

    async def publish_batch(self, events: Sequence[Event]) -> Any:
        """Returns when all are durable; raises PublishError or EventError."""


class Republish:
    """Publishes events as they are, with their ids, in their order.

    ``settings`` are the publisher's: what it can hold. ``on_reject`` is told of every event that it, or the
    topic, does not take; the rest goes on. Raises PublishError.
    """

    def __init__(
        self, publisher: Publisher, settings: Settings, *, on_reject: Callable[[Reject], None]
    ) -> None:
        self._publisher = publisher
        self._max_events = settings.buffer_events
        self._max_bytes = settings.buffer_bytes // 2
        self._on_reject = on_reject

    async def write(self, found: Sequence[Found]) -> int:
        """Returns when they are durable: how many."""
        return sum([await self._publish(batch) for batch in self._batches(found)])

    async def _publish(self, batch: list[Found]) -> int:
        try:
            await self._publisher.publish_batch([item.event for item in batch])
        except EventError as error:
            for index, reason in error.invalid.items():
                self._on_reject(reject(batch[index].record, reason))
            batch = [item for index, item in enumerate(batch) if index not in error.invalid]
            await self._publisher.publish_batch([item.event for item in batch])
        return len(batch)

    def _batches(self, found: Sequence[Found]) -> Iterator[list[Found]]:
        batch: list[Found] = []
        size = 0
        for item in found:
            length = len(item.record.value or b"")
            if batch and (len(batch) == self._max_events or size + length > self._max_bytes):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += length
        yield batch
