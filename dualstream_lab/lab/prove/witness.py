"""What really became of a block's events, in a process of its own: it reads the topic, and listens on Redis.

``python -m dualstream_lab.lab.prove.witness`` is not for people: see :mod:`dualstream_lab.load.child`. It is
told ``block {…}``, ``await SEQ`` (tell when an event from this one on is heard) and ``end``, again and again.
Records and notifications may be of anybody's make: an event is known by its id.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import consumer_of
from dualstream_lab.load.catching_up import catch_up
from dualstream_lab.load.child import Orders, say, serve, settle_memory
from dualstream_lab.load.recorder import Recorder
from dualstream_lab.load.subscriber import RedisSubscriber, all_ready
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["id_of_record"]

_NEVER = 1e9  # s
_QUIET = 0.05  # s without a message: then nothing more comes
_HEAR = 3.0
_READ = 30.0
_FETCH = {"fetch_max_wait_ms": 100, "max_partition_fetch_bytes": 8 * 2**20}


class _WithId(msgspec.Struct):
    id: str


_decoder = msgspec.json.Decoder(_WithId)


def id_of_record(headers: Iterable[tuple[str, bytes]], value: bytes | None) -> str | None:
    """The event's id in a record of any make: header ``ce_id``, else ``id`` of the JSON object; or None."""
    for name, content in headers:
        if name == "ce_id":
            return content.decode("ascii", "replace")
    with suppress(msgspec.DecodeError, UnicodeError):
        return _decoder.decode(value or b"").id
    return None


class _Heard:
    """What the subscriber hears of a block: any message in which an id of the block stands."""

    def __init__(self) -> None:
        self.start("")

    def start(self, prefix: str) -> None:
        """From now on, the events of these ids."""
        self._prefix = prefix.encode()
        self.seqs, self.times = array("q"), array("q")
        self.last = time.monotonic()
        self._wanted: int | None = None
        self._found = asyncio.Event()

    def __call__(self, _number: int, message: bytes, now: int) -> None:
        prefix = self._prefix
        at = message.find(prefix) if prefix else -1
        if at < 0:
            return
        with suppress(ValueError):
            at += len(prefix)
            seq = int(message[at : at + 12], 16)
            self.seqs.append(seq)
            self.times.append(now)
            self.last = time.monotonic()
            if self._wanted is not None and seq >= self._wanted:
                self._found.set()

    async def wait(self, seq: int, timeout: float) -> bool:
        """Whether an event from ``seq`` on is heard by then."""
        self._found.clear()
        self._wanted = seq
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._found.wait()
        return self._found.is_set()


class _Read:
    """What the topic holds of a block; read when it is over, as reading takes a part of the machine."""

    def __init__(self, consumer: AIOKafkaConsumer, targets: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._targets = targets
        self.start(RunIds(""))

    def start(self, ids: RunIds) -> None:
        """From now on, the events of these ids."""
        self._ids = ids
        self.columns = {name: array("q") for name in ("seq", "at", "partition", "offset")}
        self.nameless = 0
        self._consumer.pause(*self._targets)

    async def run(self) -> None:
        """Until cancelled."""
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        seqs, times, partitions, offsets = range(4)
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=1000)
            except KafkaError as error:
                raise StreamUnavailable(f"the topic cannot be read any more: {error!r}") from error
            now = time.monotonic_ns()
            columns = list(self.columns.values())
            for target, records in batches.items():
                for record in records:
                    event_id = id_of_record(record.headers, record.value)
                    if event_id is None:
                        self.nameless += 1
                    elif (seq := self._ids.seq(event_id)) is not None:
                        columns[seqs].append(seq)
                        columns[times].append(now)
                        columns[partitions].append(target.partition)
                        columns[offsets].append(record.offset)

    async def finish(self) -> bool:
        """Read all that is in the topic now; False if that takes too long."""
        self._consumer.resume(*self._targets)
        return await catch_up(self._consumer, self._targets, _READ)


async def _block(task: dict[str, Any], orders: Orders, heard: _Heard, read: _Read) -> dict[str, Any] | None:
    """One block, until all of it is read, heard and written; None when the parent has gone."""
    heard.start(task["ids"])
    read.start(RunIds(task["ids"]))
    say(ready=True)
    while (order := await orders.next()) and order != "end":
        _, seq, timeout = order.split()
        say(live=await heard.wait(int(seq), float(timeout)))
    if not order:
        return None
    caught_up = await read.finish()
    deadline = time.monotonic() + _HEAR
    while time.monotonic() - heard.last < _QUIET and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    directory = Path(task["directory"])
    seqs, times = (np.array(column, np.int64) for column in (heard.seqs, heard.times))
    listening = Recorder(directory, "heard", "witness-redis", period=_NEVER)
    listening.rows(seqs, at=times, subscriber=0)
    listening.meter.count("heard", len(seqs))
    listening.close()
    columns: dict[str, Any] = {name: np.array(column, np.int64) for name, column in read.columns.items()}
    reading = Recorder(directory, "consumed", "witness-kafka", period=_NEVER)
    reading.rows(columns.pop("seq"), **columns)
    reading.meter.count("consumed", len(columns["at"]))
    reading.meter.count("nameless", read.nameless)
    reading.meter.level("consumed.caught_up", float(caught_up))
    reading.close()
    return {}


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    from aiokafka import TopicPartition  # noqa: PLC0415
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    os.nice(19)  # what is measured is the publisher, on the same cores
    settings = Settings.load(**task["settings"])
    heard = _Heard()
    subscriber = RedisSubscriber(settings.redis_url or "", ["*"], heard, pattern=True)
    running = [asyncio.create_task(subscriber.run())]
    try:
        async with consumer_of(settings, **_FETCH) as consumer:
            try:
                async with asyncio.timeout(settings.start_timeout):
                    targets = [TopicPartition(settings.topic, p) for p in range(task["partitions"])]
                    consumer.assign(targets)
                    await consumer.seek_to_end(*targets)
                    for target in targets:
                        await consumer.position(target)
            except (KafkaError, OSError, TimeoutError) as error:
                raise StreamUnavailable(f"the topic cannot be read: {error!r}") from error
            await all_ready([subscriber], 5)
            read = _Read(consumer, targets)
            running.append(asyncio.create_task(read.run()))
            settle_memory()
            say(ready=True)
            while line := await beside(running, orders.next()):
                done = await beside(running, _block(json.loads(line), orders, heard, read))
                if done is None:
                    break
                say(block=done)
    finally:
        await end_tasks(running)
    return {}


if __name__ == "__main__":
    serve(_main)
