"""The listeners of a run, each in a process of its own: when each event arrived, on Redis or on Kafka.

``python -m dualstream_lab.load.listener`` is not for people: see :mod:`dualstream_lab.load.child`.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import consumer_of
from dualstream_lab.load.catching_up import catch_up
from dualstream_lab.load.child import Orders, say, serve, settle_memory
from dualstream_lab.load.hearing import Hearing
from dualstream_lab.load.probes import probe_redis
from dualstream_lab.load.recorder import Recorder
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import AIOKafkaConsumer


__all__: list[str] = []

_DRAIN = 10.0
_PROBE_KAFKA = 0.1


async def _listen_redis(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    from dualstream_lab.load.subscriber import RedisSubscriber, all_ready, allow_connections  # noqa: PLC0415

    settings = Settings.load(**task["settings"])
    heard = Hearing(Path(task["directory"]), "redis", RunIds(task["ids"]), every=task["sample"])
    count = task["subscribers"]
    allow_connections(count)
    subscribers = [
        RedisSubscriber(
            settings.redis_url or "",
            ["events:*"],
            heard,
            number=number,
            pattern=True,
            listening=heard.listening,
        )
        for number in range(count)
    ]
    running = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
    try:
        await all_ready(subscribers, 5)
        heard.subscribers = subscribers
        direct = task.get("direct_redis_url") or settings.redis_url or ""  # past a fault proxy
        running.append(asyncio.create_task(probe_redis(direct, heard.meter)))
        await _listen(heard, orders, running)
        await heard.drain()
        heard.close()
    finally:
        await end_tasks(running)
    return {}


async def _listen_kafka(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    from aiokafka import TopicPartition  # noqa: PLC0415
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    settings = Settings.load(**task["settings"])
    async with consumer_of(settings, fetch_max_wait_ms=100) as consumer:
        try:
            async with asyncio.timeout(settings.start_timeout):
                await consumer._client._wait_on_metadata(settings.topic)  # noqa: SLF001
                partitions = consumer.partitions_for_topic(settings.topic) or ()
                targets = [TopicPartition(settings.topic, p) for p in partitions]
                consumer.assign(targets)
                await consumer.seek_to_end(*targets)
                for target in targets:
                    await consumer.position(target)
        except (KafkaError, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {settings.start_timeout:g} s"
            raise StreamUnavailable(f"Kafka cannot be read: {reason}; check --kafka") from error
        recorder = Recorder(Path(task["directory"]), "consumed", "kafka", every=task["sample"])
        running = [
            asyncio.create_task(_consume(consumer, RunIds(task["ids"]), recorder)),
            asyncio.create_task(_probe_kafka(consumer, targets, recorder)),
        ]
        try:
            await _listen(recorder, orders, running)
            caught_up = await catch_up(consumer, targets, _DRAIN)
            # without it, nobody can say what the log does not have
            recorder.meter.level("consumed.caught_up", float(caught_up))
            recorder.close()
        finally:
            await end_tasks(running)
    return {"caught_up": caught_up}


async def _consume(consumer: AIOKafkaConsumer, ids: RunIds, recorder: Recorder) -> None:
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    prefix = ids.prefix.encode()
    while True:
        try:
            batches = await consumer.getmany(timeout_ms=200)
        except KafkaError as error:
            raise StreamUnavailable(f"Kafka cannot be read any more: {error!r}") from error
        now = time.monotonic_ns()
        for target, records in batches.items():
            seqs, offsets = array("q"), array("q")
            for record in records:
                event_id = _event_id(record.headers)
                if event_id.startswith(prefix):
                    seqs.append(int(event_id[24:], 16))
                    offsets.append(record.offset)
            recorder.meter.count("consumed", len(seqs))
            recorder.rows(
                np.asarray(seqs, np.int64),
                at=now,
                partition=target.partition,
                offset=np.asarray(offsets, np.int64),
            )


def _event_id(headers: Iterable[tuple[str, bytes]]) -> bytes:
    return next((value for name, value in headers if name == "ce_id"), b"")


async def _probe_kafka(consumer: AIOKafkaConsumer, targets: list[Any], recorder: Recorder) -> None:
    """The consumer's lag in messages, and how long Kafka takes for a small request."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    while True:
        try:
            before = time.monotonic()
            async with asyncio.timeout(1):
                ends = await consumer.end_offsets(targets)
                recorder.meter.peak("kafka.answer_ms", (time.monotonic() - before) * 1e3)
                lag = 0
                for target, end in ends.items():
                    # sampled a moment apart: the position may be ahead
                    lag += max(0, end - await consumer.position(target))
            recorder.meter.peak("consumed.lag_messages", lag)
            recorder.meter.level("kafka.up", 1)
        except (KafkaError, OSError, TimeoutError):
            recorder.meter.level("kafka.up", 0)
        await asyncio.sleep(_PROBE_KAFKA)


async def _listen(recorder: Recorder, orders: Orders, running: list[asyncio.Task[None]]) -> None:
    """Be ready, and record until told to stop; what is ``running`` must go on all the time."""
    settle_memory()
    say(ready=True)
    if await beside(running, orders.started()) is None:
        return
    recording = asyncio.create_task(recorder.run())
    await beside([*running, recording], orders.stopped.wait())
    await end_tasks([recording])


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    return await (_listen_redis if task["kind"] == "redis" else _listen_kafka)(task, orders)


if __name__ == "__main__":
    serve(_main)
