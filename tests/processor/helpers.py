"""What the processor's tests write to the real log, and what they wait for."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from dualstream_lab.event import Event, encode_event
from dualstream_lab.processor import Processor
from dualstream_lab.store import Query

PARTITIONS = 6
_running: set[Processor] = set()


def events(count, *, start=0, sources=20):
    """Events whose id is their number."""
    return [
        Event(
            id=f"n{number:06}",
            type="push",
            source_type="repo",
            source_id=f"owner/r{number % sources}",
            data={"n": number},
        )
        for number in range(start, start + count)
    ]


@asynccontextmanager
async def producer(url, **options):
    made = AIOKafkaProducer(bootstrap_servers=url, acks="all", **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def write(url, topic, made):
    """Write the events as the publisher does; they are durable on return."""
    async with producer(url, linger_ms=5) as kafka:
        futures = [
            await kafka.send(topic, encode_event(event), key=event.source_id.encode()) for event in made
        ]
        return await asyncio.gather(*futures)


async def ends(url, topic, partitions=PARTITIONS):
    """Where the partitions end."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(bootstrap_servers=url)
    await consumer.start()
    try:
        found = await consumer.end_offsets([TopicPartition(topic, p) for p in range(partitions)])
        return {target.partition: end for target, end in found.items()}
    finally:
        await consumer.stop()


@asynccontextmanager
async def running(settings, store, handlers=()):
    """A started processor whose run() is on; what ends it is raised here."""
    async with Processor(settings, store, handlers) as processor:
        task = asyncio.create_task(processor.run())
        _running.add(processor)
        try:
            yield processor
        finally:
            _running.discard(processor)
            if not task.done():
                task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            raise ended


async def positions_of(store):
    return {partition: place.position for partition, place in (await store.places()).items()}


async def reached(store, goal, *, timeout=60):
    """Wait until the store's positions are these, and processors have counted what they applied."""
    async with asyncio.timeout(timeout):
        while await positions_of(store) != goal:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        # The store's own thread has it before the processor's loop goes on.
        applying = [one._pipeline._applying for one in _running if one._pipeline is not None]
        if waited := [task for task in applying if task is not None]:
            await asyncio.wait(waited)


async def stored(store, sources=20):
    """The ids of every source, in order; nothing is said of sources with another name."""
    asked = [f"repo:owner/r{number}" for number in range(sources)]
    queries = [Query(source, {}) for source in asked]
    pages = await store.pages(queries, 10**6)
    return {source: [row.id for row in page.rows] for source, page in zip(asked, pages, strict=True)}


def by_source(made, sources=20):
    """What :func:`stored` should say of these events."""
    found = {f"repo:owner/r{number}": [] for number in range(sources)}
    for event in made:
        found[f"repo:{event.source_id}"].append(event.id)
    return found


@asynccontextmanager
async def admin(url):
    made = AIOKafkaAdminClient(bootstrap_servers=url)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
