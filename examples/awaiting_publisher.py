"""How it is often written: the event to Kafka, then `await redis.publish`, with errors caught and logged.

It never fails because of Redis, and looks safe. But it waits for Redis in the path of every publish: when
Redis is mute or slow, so is publishing. This shows it:

    dualstream prove redis-isolation --quick --rate 2000 --publisher examples/awaiting_publisher.py
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from dualstream_lab import channel_of, encode_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab import Event

log = logging.getLogger(__name__)


class AwaitingPublisher:
    """Kafka first; then Redis, within half a second."""

    def __init__(self, producer: AIOKafkaProducer, redis: Redis, topic: str) -> None:
        self._producer = producer
        self._redis = redis
        self._topic = topic

    async def publish_batch(self, events: Sequence[Event]) -> None:
        """Returns when all of them are durable."""
        sent = [
            await self._producer.send(self._topic, encode_event(event), key=event.source_id.encode())
            for event in events
        ]
        await asyncio.gather(*sent)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for event in events:
                    note = {"id": event.id, "type": event.type, "source_id": event.source_id}
                    pipeline.publish(channel_of(event.source_type, event.source_id), json.dumps(note))
                await pipeline.execute()
        except RedisError as error:
            log.debug("not notified: %s", error)  # best effort, it says

    async def close(self) -> None:
        """Disconnect."""
        await self._producer.stop()
        await self._redis.aclose()


async def make_publisher(kafka_url: str, redis_url: str, topic: str) -> AwaitingPublisher:
    """Where the proof begins."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka_url, acks="all", enable_idempotence=True)
    await producer.start()
    redis = Redis.from_url(redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
    return AwaitingPublisher(producer, redis, topic)
