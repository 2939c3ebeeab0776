"""DualPublisher."""

import time

import uvloop

from benchmarks.peers.common import Task, report, spend
from dualstream_lab import DualPublisher, Settings


async def main() -> None:
    task = Task.read()
    settings = Settings.load(
        kafka_url=task.kafka, redis_url=task.redis, topic=task.topic, compression=task.compression
    )
    async with DualPublisher(settings) as publisher:
        started = await spend(task, publisher.publish, publisher.publish_batch)
        await publisher.flush()
        seconds = time.perf_counter() - started
        stats = publisher.stats()
    report(acked=stats.durable, notified=stats.notified, dropped=sum(stats.dropped.values()), seconds=seconds)


uvloop.run(main())
