"""An estate that is not all ours: topics that change, other producers, other users of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from dualstream_lab.event import Event, encode_event
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import curl, escaped
from tests.gateway.published import Place
from tests.gateway.serving import Delivery, Server, until_so


@contextmanager
def estate(
    stack: LocalStack,
    name: str,
    *,
    partitions: int = 6,
    topic_settings: Mapping[str, str] = {},
    **settings: object,
) -> Iterator[Delivery]:
    """A topic of its own, and what serves it."""
    topic = f"{name}-{uuid4().hex[:12]}"
    stack.create_topic(topic, partitions=partitions, settings=topic_settings)
    given = {"check_interval": 1.0, "linger": 0.2, "request_timeout": 2.0, "refresh_interval": 1.0}
    with Delivery(stack, topic, **(given | settings)) as made:
        yield made
        made.assert_no_traceback()


@asynccontextmanager
async def admin(stack: LocalStack) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def grow(stack: LocalStack, topic: object, partitions: int) -> None:
    """Add partitions to a topic; returns when a broker has them."""
    async with admin(stack) as client:
        await client.create_partitions({str(topic): NewPartitions(partitions)})

        async def known() -> int:
            (about,) = await client.describe_topics([str(topic)])
            return len(about["partitions"])

        await until_so(known, partitions)


async def make_anew(stack: LocalStack, topic: object, *, partitions: int = 6) -> None:
    """Delete a topic and make another one of the same name."""
    async with admin(stack) as client:
        await client.delete_topics([str(topic)])

        async def gone() -> bool:
            return str(topic) not in await client.list_topics()

        await until_so(gone, True)
    await asyncio.to_thread(lambda: stack.create_topic(str(topic), partitions=partitions))


async def delete_below(stack: LocalStack, topic: object, partition: int, offset: int) -> None:
    """As Kafka's retention does."""
    async with admin(stack) as client:
        await client.delete_records(
            {TopicPartition(str(topic), partition): RecordsToDelete(before_offset=offset)}
        )


@asynccontextmanager
async def producer(stack: LocalStack, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Somebody else's."""
    made = AIOKafkaProducer(bootstrap_servers=stack.kafka_url, acks="all", **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def value_of(source: str, name: str, data: object = None) -> tuple[bytes, bytes]:
    """Key and value of an event, as any producer may write it."""
    kind, _, source_id = source.partition(":")
    event = Event(id=name, type="push", source_type=kind, source_id=source_id, data=data)
    return source_id.encode(), encode_event(event)


async def write(
    kafka: AIOKafkaProducer, topic: object, source: str, *names: str, partition: int | None = None
) -> list[str]:
    """Write events, where it is said; their positions."""
    found = []
    for name in names:
        key, value = value_of(source, name)
        where = await kafka.send_and_wait(str(topic), value, key=key, partition=partition)
        found.append(f"{where.partition}:{where.offset}")
    return found


async def ends_of(stack: LocalStack, topic: object, partitions: int) -> dict[int, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_url)
    await consumer.start()
    try:
        found = await consumer.end_offsets([TopicPartition(str(topic), p) for p in range(partitions)])
        return {target.partition: end for target, end in found.items()}
    finally:
        await consumer.stop()


async def events_of(server: Server, source: str, **query: object) -> dict[str, Any]:
    """The answer of `GET /events`, with the ids of its events."""
    more = "".join(f"&{name}={escaped(str(value))}" for name, value in query.items())
    answer = (await curl(f"{server.url}/events?source={escaped(source)}{more}")).json
    return answer | {"events": [event["id"] for event in answer["events"]]} if "events" in answer else answer


async def event_of(server: Server, **query: str) -> tuple[int, Any]:
    """Status and JSON of `GET /event`."""
    asked = "&".join(f"{name}={escaped(value)}" for name, value in query.items())
    answer = await curl(f"{server.url}/event?{asked}")
    return answer.status, answer.json


async def ready_of(server: Server) -> tuple[int, dict[str, Any]]:
    answer = await curl(f"{server.url}/readyz")
    return answer.status, answer.json


async def metric(server: Server, name: str) -> float:
    """The sum of a metric over its labels."""
    text = (await curl(f"{server.url}/metrics")).body.decode()
    lines = [
        line for line in text.splitlines() if line.startswith((f"dualstream_{name} ", f"dualstream_{name}{{"))
    ]
    assert lines, name
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def until_stored(server: Server, place: Place) -> None:
    """The store has it."""

    async def status() -> int:
        return (await event_of(server, id=place.id, pos=place.pos))[0]

    await until_so(status, 200)


async def until_ready(server: Server) -> None:
    """Its store is fed, and as far as the log."""

    async def status() -> int:
        return (await ready_of(server))[0]

    await until_so(status, 200)
