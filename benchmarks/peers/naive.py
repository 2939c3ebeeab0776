"""The pattern written down naively: aiokafka's send() for each event, then a redis-py pipeline of PUBLISH."""

import asyncio
import time
from collections import Counter

import msgspec
import uvloop
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from benchmarks.peers.common import EPOCH, NONCE, Task, event_headers, spend
from dualstream_lab.event import Event, Notification, channel_of, encode_event


class Naive:
    def __init__(self, producer: AIOKafkaProducer, redis: Redis | None, topic: str) -> None:
        self.producer = producer
        self.redis = redis
        self.topic = topic
        self.acked = 0
        self.notified = 0
        self.counts: Counter[str] = Counter()

    async def one(self, event: Event) -> None:
        await self.many([event])

    async def many(self, events: list[Event]) -> None:
        futures = [
            await self.producer.send(
                self.topic,
                key=event.source_id.encode(),
                value=encode_event(event),
                headers=event_headers(event),
            )
            for event in events
        ]
        places = await asyncio.gather(*futures)
        self.acked += len(events)
        if self.redis is None:
            return
        now = time.time_ns()
        pipeline = self.redis.pipeline(transaction=False)
        for event, place in zip(events, places, strict=True):
            self.counts[event.source_id] += 1
            note = Notification(
                id=event.id,
                type=event.type,
                source_id=event.source_id,
                pos=f"{place.partition}:{place.offset}",
                log=EPOCH,
                pub=f"{NONCE}:{self.counts[event.source_id]}",
                ts=now,
            )
            pipeline.publish(channel_of(event.source_type, event.source_id), msgspec.json.encode(note))
        answers = await pipeline.execute()
        self.notified += len(answers)


async def main() -> None:
    task = Task.read()
    producer = AIOKafkaProducer(
        bootstrap_servers=task.kafka, acks="all", enable_idempotence=True, linger_ms=2, max_batch_size=262_144
    )
    await producer.start()
    redis = Redis.from_url(task.redis) if task.redis else None
    naive = Naive(producer, redis, task.topic)
    clock = await spend(task, naive.one, naive.many)
    clock.stop()
    await producer.stop()
    if redis is not None:
        await redis.aclose()
    clock.report(acked=naive.acked, notified=naive.notified)


uvloop.run(main())
