"""The bound: batches and commands are made before the clock starts, only the brokers are left to wait for.

Our KafkaWriter sends the batches, one in flight a partition, and our RedisLink the commands.
"""

import asyncio
import time
from dataclasses import dataclass

import uvloop

from benchmarks.peers.common import EPOCH, Clock, Task
from dualstream_lab import Settings
from dualstream_lab.kafka_log import topic_info
from dualstream_lab.publisher.core import publish_commands
from dualstream_lab.publisher.encoder import Encoder
from dualstream_lab.publisher.kafka import KafkaWriter
from dualstream_lab.publisher.partition_queue import PartitionQueue
from dualstream_lab.publisher.record_batch import BatchLimit, RecordBatch
from dualstream_lab.publisher.redis_link import RedisLink
from dualstream_lab.publisher.routes import Routes

_MOST = 1000  # commands in an exchange


@dataclass
class Prepared:
    """A batch, and the commands that announce it."""

    batch: RecordBatch
    commands: bytes
    count: int


def prepared(task: Task, encoder: Encoder, partitions: int, limit: int) -> list[list[Prepared]]:
    """By partition, in order."""
    events, queues = task.make(), [PartitionQueue(partition) for partition in range(partitions)]
    for first in range(0, len(events), 1000):
        call = encoder.call(events[first : first + 1000])
        for part in list(call.parts):
            part.call, part.base = call, first
            queues[part.partition].waiting.append(part)
    made: list[list[Prepared]] = [[] for _ in queues]
    ts = time.time_ns()
    for queue in queues:
        while queue.waiting:
            parts, batch = queue.next_batch(limit, None)
            texts = [text for part in parts for text in publish_commands(part, EPOCH, ts, details=True)]
            batch._chunks = [b"".join(batch._chunks)]  # noqa: SLF001
            made[queue.partition].append(Prepared(batch, "".join(texts).encode(), len(texts)))
    return made


class Announcer:
    """Sends the commands of what was acknowledged, as many at once as are there."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._queue: asyncio.Queue[Prepared | None] = asyncio.Queue()
        self.enqueue = self._queue.put_nowait
        self.notified = 0

    async def run(self) -> None:
        """Until there is a None in the queue."""
        ended = False
        while not ended:
            waiting, count = [await self._queue.get()], 0
            while waiting[-1] is not None and count < _MOST and not self._queue.empty():
                count += waiting[-1].count
                waiting.append(self._queue.get_nowait())
            ended = waiting[-1] is None
            taken = [each for each in waiting if each is not None]
            if taken:
                commands = b"".join(each.commands for each in taken)
                self.notified += len(await self._link.exchange(commands, sum(each.count for each in taken)))


async def main() -> None:
    task = Task.read()
    settings = Settings.load(kafka_url=task.kafka, redis_url=task.redis, topic=task.topic)
    info = await topic_info(settings)
    limit = BatchLimit(settings.batch_bytes, info.max_batch_bytes)
    encoder = Encoder(Routes(settings, partitions=info.partitions), limit=limit)
    batches = prepared(task, encoder, info.partitions, limit.bytes)
    writer = await KafkaWriter.open(settings)
    announcer = None
    if task.redis:
        link = RedisLink(task.redis, timeout=5.0)
        await link.connect()
        announcer = Announcer(link)
    acked = 0

    async def send(partition: int) -> None:
        nonlocal acked
        for each in batches[partition]:
            await writer.send(partition, each.batch)
            acked += each.count
            if announcer is not None:
                announcer.enqueue(each)

    clock = Clock()
    announcing = asyncio.create_task(announcer.run()) if announcer is not None else None
    await asyncio.gather(*(send(partition) for partition in range(info.partitions)))
    if announcer is not None and announcing is not None:
        announcer.enqueue(None)
        await announcing
    clock.stop()
    await writer.close()
    clock.report(acked=acked, notified=announcer.notified if announcer is not None else 0)


uvloop.run(main())
