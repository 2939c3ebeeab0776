"""How the brokers are, asked on connections of their own while a run goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.recording import Meter

__all__ = ["probe_kafka", "probe_redis"]

_PROBE = 0.5


async def probe_kafka(settings: Settings, meter: Meter) -> None:
    """Until cancelled: how long Kafka takes for a small request (the ends of the topic's partitions)."""
    from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from dualstream_lab.config import kafka_client_options  # noqa: PLC0415

    consumer = AIOKafkaConsumer(**kafka_client_options(settings.kafka_url or ""), enable_auto_commit=False)
    await consumer.start()
    try:
        targets = [TopicPartition(settings.topic, 0)]
        while True:
            try:
                before = time.monotonic()
                async with asyncio.timeout(1):
                    await consumer.end_offsets(targets)
                meter.peak("kafka.answer_ms", (time.monotonic() - before) * 1e3)
                meter.level("kafka.up", 1)
            except (KafkaError, OSError, TimeoutError):
                meter.level("kafka.up", 0)
            await asyncio.sleep(_PROBE)
    finally:
        await consumer.stop()


async def probe_redis(url: str, meter: Meter) -> None:
    """Redis's own CPU, what it keeps for slow clients and how many it kills, on a connection of its own."""
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=1, socket_connect_timeout=1)
    last: tuple[float, float] | None = None
    killed = 0.0
    async with client:
        while True:
            try:
                before = time.monotonic()
                cpu = await client.info("cpu")
                now = time.monotonic()
                clients = await client.info("clients")
                used = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
                if last is not None and used >= last[0]:
                    meter.level("redis.cpu", (used - last[0]) / (now - last[1]))
                last = used, now
                stats = await client.info("stats")
                slow = float(stats.get("client_output_buffer_limit_disconnections", 0))
                meter.count("redis.killed_slow", round(slow - killed if slow > killed and last else 0))
                killed = slow
                meter.peak("redis.answer_ms", (now - before) * 1e3)
                kept = float(clients.get("client_recent_max_output_buffer", 0))
                meter.peak("redis.output_buffer", kept)
                meter.level("redis.up", 1)
            except (RedisError, OSError):
                meter.level("redis.up", 0)
                last = None
            await asyncio.sleep(_PROBE)
