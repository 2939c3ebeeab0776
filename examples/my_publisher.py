"""Your own publisher, under proof: wrap it as this wraps DualPublisher, and run

    dualstream prove redis-isolation --publisher examples/my_publisher.py --html proof.html

`publish_batch` returns when every event is durable on Kafka, and raises when one is not. The events must be
found in the topic by their id: header ``ce_id``, or ``id`` in the JSON of the value. Nothing else is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab import DualPublisher, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab import Event


class MyPublisher:
    """In place of DualPublisher: yours."""

    def __init__(self, publisher: DualPublisher) -> None:
        self._publisher = publisher

    async def publish_batch(self, events: Sequence[Event]) -> None:
        """Returns when all of them are durable."""
        await self._publisher.publish_batch(events)

    async def close(self) -> None:
        """Disconnect."""
        await self._publisher.close()


async def make_publisher(kafka_url: str, redis_url: str, topic: str) -> MyPublisher:
    """Where the proof begins."""
    publisher = DualPublisher(Settings.load(kafka_url=kafka_url, redis_url=redis_url, topic=topic))
    await publisher.start()
    return MyPublisher(publisher)
