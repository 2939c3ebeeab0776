"""DualPublisher."""

import uvloop

from benchmarks.peers.common import Task, spend
from dualstream_lab import DualPublisher, Settings


async def main() -> None:
    task = Task.read()
    settings = Settings.load(
        kafka_url=task.kafka, redis_url=task.redis, topic=task.topic, compression=task.compression
    )
    async with DualPublisher(settings) as publisher:
        clock = await spend(task, publisher.publish, publisher.publish_batch)
        await publisher.flush()
        clock.stop()
        stats = publisher.stats()
    clock.report(acked=stats.durable, notified=stats.notified, dropped=sum(stats.dropped.values()))


uvloop.run(main())
