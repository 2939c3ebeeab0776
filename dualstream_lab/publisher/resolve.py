"""Reading the log to find out what became of events."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from dualstream_lab.config import kafka_client_options
from dualstream_lab.kafka_log import end_consumer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dualstream_lab.config import Settings
    from dualstream_lab.publisher.lane import Part

__all__ = ["find_in_log"]

_CLOCK_MARGIN_MS = 60_000  # topics may be stamped with the broker's clock


async def find_in_log(
    settings: Settings, ids: set[str], parts: Iterable[Part], *, timeout: float
) -> dict[str, tuple[int, int]]:
    """Where the log has these ids: partition and offset of the first one found.

    Reads the partitions of ``parts`` from where their events can be at the earliest up to the end
    as it was when asked. What could not be read within ``timeout`` seconds is left out.
    """
    found: dict[str, tuple[int, int]] = {}
    options = kafka_client_options(settings.kafka_url or "")
    consumer = AIOKafkaConsumer(
        **options, request_timeout_ms=round(settings.request_timeout * 1000), enable_auto_commit=False
    )
    try:
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(timeout):
                await consumer.start()
                await _read(consumer, settings.topic, ids, list(parts), found)
    finally:
        await end_consumer(consumer)
    return found


async def _starts(consumer: AIOKafkaConsumer, topic: str, parts: list[Part]) -> dict[TopicPartition, int]:
    """The earliest offset to look at, for each partition that can hold any of it."""
    starts: dict[TopicPartition, int] = {}
    for part in parts:
        target = TopicPartition(topic, part.partition)
        floor = part.floor
        if floor < 0:
            since = await consumer.offsets_for_times({target: part.timestamp - _CLOCK_MARGIN_MS})
            floor = since[target].offset if since[target] is not None else -1
        if floor >= 0:
            starts[target] = min(floor, starts.get(target, floor))
    return starts


async def _read(
    consumer: AIOKafkaConsumer,
    topic: str,
    ids: set[str],
    parts: list[Part],
    found: dict[str, tuple[int, int]],
) -> None:
    starts = await _starts(consumer, topic, parts)
    if not starts:
        return
    consumer.assign(list(starts))
    for target, offset in starts.items():
        consumer.seek(target, offset)
    ends = await consumer.end_offsets(list(starts))
    unread = {target for target in starts if starts[target] < ends[target]}
    while unread and len(found) < len(ids):
        for target, records in (await consumer.getmany(*unread, timeout_ms=500)).items():
            for record in records:
                event_id = dict(record.headers).get("ce_id", b"").decode("ascii", "replace")
                if event_id in ids:
                    found.setdefault(event_id, (record.partition, record.offset))
            if await consumer.position(target) >= ends[target]:
                unread.discard(target)
