"""Events from Kafka: history from an offset or a time, then what follows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import ConfigError, StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiokafka import ConsumerRecord

    from dualstream_lab.config import Settings

__all__ = ["Start", "replay"]

_STALL = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to begin in every partition; with neither, at the end as it is now.

    ``offset``: the first one; a negative one counts from the end. ``timestamp``: ms since the epoch.
    """

    offset: int | None = None
    timestamp: int | None = None


async def replay(
    settings: Settings, start: Start, *, source_id: str | None = None, follow: bool = True
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """Records of the topic, in order within a partition; with ``source_id`` only of that key.

    Without ``follow`` it ends at the end of the log as it was when asked. Raises ConfigError for a topic that
    does not exist, StreamUnavailable when Kafka cannot be reached or does not answer for 30 s.
    """
    options = kafka_client_options(settings.kafka_url or "")
    consumer = AIOKafkaConsumer(
        **options, request_timeout_ms=round(settings.request_timeout * 1000), enable_auto_commit=False
    )
    try:
        try:
            async with asyncio.timeout(settings.start_timeout):
                await consumer.start()
                targets = await _targets(consumer, settings.topic, source_id)
                ends = await _seek(consumer, targets, start)
        except (KafkaError, OSError, TimeoutError) as error:
            servers = ", ".join(options["bootstrap_servers"])
            raise StreamUnavailable(
                f"Kafka at {servers} could not be read: {error or 'no answer'}"
            ) from error
        key = None if source_id is None else source_id.encode()
        async for record in _records(consumer, targets, None if follow else ends):
            if key is None or record.key == key:
                yield record
    finally:
        # With a dead broker stop() raises CancelledError and leaves its client open (aiokafka 0.14).
        stopping = asyncio.ensure_future(consumer.stop())
        await asyncio.wait([stopping], timeout=2)
        with suppress(Exception):
            await consumer._client.close()  # noqa: SLF001


async def _targets(consumer: AIOKafkaConsumer, topic: str, source_id: str | None) -> list[TopicPartition]:
    if topic not in await consumer.topics():
        raise ConfigError(f"topic {topic!r} does not exist; set DUALSTREAM_TOPIC to one that does")
    await consumer._client._wait_on_metadata(topic)  # noqa: SLF001
    partitions = sorted(consumer.partitions_for_topic(topic) or ())
    if source_id is not None:
        partitions = [partitions[(murmur2(source_id.encode()) & 0x7FFFFFFF) % len(partitions)]]
    return [TopicPartition(topic, partition) for partition in partitions]


async def _seek(
    consumer: AIOKafkaConsumer, targets: list[TopicPartition], start: Start
) -> dict[TopicPartition, int]:
    """Begin there; returns the ends of the log as of now."""
    consumer.assign(targets)
    first = await consumer.beginning_offsets(targets)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(targets)
    begin = dict(ends)
    if start.timestamp is not None:
        found = await consumer.offsets_for_times(dict.fromkeys(targets, start.timestamp))
        begin = {target: found[target].offset if found[target] else ends[target] for target in targets}
    elif start.offset is not None:
        offset = start.offset
        begin = {target: ends[target] + offset if offset < 0 else offset for target in targets}
    for target in targets:
        consumer.seek(target, min(max(begin[target], first[target]), ends[target]))
    return ends


async def _records(
    consumer: AIOKafkaConsumer, targets: list[TopicPartition], ends: dict[TopicPartition, int] | None
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    loop = asyncio.get_running_loop()
    unread = set(targets) if ends is None else {t for t in targets if await consumer.position(t) < ends[t]}
    progressed = loop.time()
    while unread:
        for target, records in (await consumer.getmany(*unread, timeout_ms=500)).items():
            progressed = loop.time()
            for record in records:
                if ends is None or record.offset < ends[target]:
                    yield record
            if ends is not None and records[-1].offset + 1 >= ends[target]:
                unread.discard(target)
        if ends is not None and loop.time() - progressed > _STALL:
            raise StreamUnavailable(
                f"Kafka gave nothing for {_STALL:g} s with {len(unread)} partitions unread"
            )
