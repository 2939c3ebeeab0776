"""What the publisher's tests read back, from the real log and the real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from redis.asyncio import Redis

from dualstream_lab import DualPublisher, Event
from dualstream_lab.errors import PublishError
from dualstream_lab.event import event_key
from dualstream_lab.publisher import Durable, InLog, Outcome, Rejected, Unknown
from dualstream_lab.stack import ManagedProcess


def events(count: int, *, sources: int = 20, start: int = 0, size: int = 50) -> list[Event]:
    """Events whose data is their number, round robin over the sources."""
    return [
        Event(
            type="push",
            source_type="repo",
            source_id=f"owner/r{number % sources}",
            data={"n": number, "x": "x" * size},
        )
        for number in range(start, start + count)
    ]


async def read_log(kafka_url: str, topic: str, *, partitions: int = 6) -> list[ConsumerRecord]:
    """Every record of the topic up to its end as of now, partition by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_url, auto_offset_reset="earliest")
    await consumer.start()
    try:
        targets = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(targets)
        ends = await consumer.end_offsets(targets)
        records: dict[TopicPartition, list[ConsumerRecord]] = {target: [] for target in targets}
        async with asyncio.timeout(60):
            for target in targets:
                while await consumer.position(target) < ends[target]:
                    for found, batch in (await consumer.getmany(*targets, timeout_ms=500)).items():
                        records[found] += batch
        return [record for target in targets for record in records[target]]
    finally:
        await consumer.stop()


def key_of(event: Event) -> str:
    return event_key(f"{event.source_type}:{event.source_id}", event.id)


def ids_of(records: list[ConsumerRecord]) -> list[str]:
    return [dict(record.headers)["ce_id"].decode() for record in records]


def assert_in_order(records: list[ConsumerRecord]) -> None:
    """The numbers of each source rise."""
    import msgspec

    last: dict[bytes, int] = {}
    for record in records:
        number = msgspec.json.decode(record.value)["data"]["n"]
        assert number > last.get(record.key, -1), f"{record.key!r}: {number} after {last[record.key]}"
        last[record.key] = number


@asynccontextmanager
async def heard(redis_url: str, pattern: str = "events:*") -> AsyncIterator[list[tuple[str, bytes]]]:
    """(channel, message) as they come to a real subscriber."""
    messages: list[tuple[str, bytes]] = []
    async with Redis.from_url(redis_url) as client, client.pubsub() as pubsub:
        await pubsub.psubscribe(pattern)
        first = await pubsub.get_message(timeout=20)
        assert first is not None
        assert first["type"] == "psubscribe"

        async def listen() -> None:
            while True:
                message = await pubsub.get_message(timeout=1)
                if message is not None and message["type"] == "pmessage":
                    messages.append((message["channel"].decode(), message["data"]))

        task = asyncio.create_task(listen())
        try:
            yield messages
        finally:
            task.cancel()
            await asyncio.wait([task])


async def until(condition: Callable[[], Any], *, timeout: float = 60) -> None:
    """Poll for what cannot be awaited."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def mute(process: ManagedProcess) -> None:
    """SIGSTOP; returns when it stands still."""
    process.pause()
    await until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


class Ledger:
    """What a publisher said of every event."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def of(self, kind: type) -> set[str]:
        return {event_id for event_id, outcome in self.outcomes.items() if isinstance(outcome, kind)}

    async def publish(self, publisher: DualPublisher, batch: list[Event]) -> None:
        try:
            receipt = await publisher.publish_batch(batch)
        except PublishError as error:
            known: list[Any] = error.outcomes
            self.outcomes |= {event.id: outcome for event, outcome in zip(batch, known, strict=True)}
        else:
            self.outcomes |= {r.event_id: Durable(r.partition, r.offset) for r in receipt}

    async def check(self, publisher: DualPublisher, kafka_url: str, topic: str) -> None:
        """Everything durable is in the log once, nothing rejected is, and the unknown are resolved truly."""
        log = ids_of(await read_log(kafka_url, topic))
        assert len(log) == len(set(log)), "an event is in the log twice"
        assert self.of(Durable) <= set(log)
        assert not self.of(Rejected) & set(log)
        resolved = await publisher.resolve(self.of(Unknown))
        assert {i for i, answer in resolved.items() if isinstance(answer, InLog)} == self.of(Unknown) & set(
            log
        )
