"""How the brokers are, asked on connections of their own while a run goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import open_consumer

if TYPE_CHECKING:
    from dualstream_lab.recording import Meter

_PROBE = 0.5
_ANSWER = 1.0


async def probe_kafka(settings: Settings, meter: Meter) -> None:
    """Until cancelled: how long Kafka takes for a small request (where a partition of the topic ends)."""
    while True:
        with suppress(StreamUnavailable):
            async with open_consumer(settings) as consumer:
                await ask_kafka(lambda: consumer.ends([0]), meter)
        meter.level("kafka.up", 0)
        await asyncio.sleep(_PROBE)


async def ask_kafka(ask: Callable[[], Awaitable[Any]], meter: Meter, pause: float = _PROBE) -> None:
    """Until cancelled: how long Kafka takes for what is asked, and whether it answers."""
    while True:
        try:
            before = time.monotonic()
            async with asyncio.timeout(_ANSWER):
                await ask()
            meter.peak("kafka.answer_ms", (time.monotonic() - before) * 1e3)
            meter.level("kafka.up", 1)
        except (StreamUnavailable, TimeoutError):
            meter.level("kafka.up", 0)
        await asyncio.sleep(pause)


async def probe_redis(url: str, meter: Meter) -> None:
    """Redis's own CPU, what it keeps for slow clients and how many it kills, on a connection of its own."""
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    # Bounded here: redis-py's own timeout is asyncio.wait_for, which can swallow the cancellation.
    client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=None)
    last: tuple[float, float] | None = None
    killed: float | None = None
    async with client:
        while True:
            try:
                before = time.monotonic()
                async with asyncio.timeout(_ANSWER):
                    cpu = await client.info("cpu")
                    now = time.monotonic()
                    clients = await client.info("clients")
                    stats = await client.info("stats")
                used = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
                if last is not None and used >= last[0]:
                    meter.level("redis.cpu", (used - last[0]) / (now - last[1]))
                last = used, now
                slow = float(stats.get("client_output_buffer_limit_disconnections", 0))
                if killed is not None and slow > killed:  # not what was before; nor less, after a restart
                    meter.count("redis.killed_slow", round(slow - killed))
                killed = slow
                meter.peak("redis.answer_ms", (now - before) * 1e3)
                kept = float(clients.get("client_recent_max_output_buffer", 0))
                meter.peak("redis.output_buffer", kept)
                meter.level("redis.up", 1)
            except (RedisError, OSError, TimeoutError, RuntimeError):  # the last: uvloop, of a reset one
                meter.level("redis.up", 0)
                last = None
            await asyncio.sleep(_PROBE)
