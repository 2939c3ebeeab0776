"""What really became of a block's events, in a process of its own: it reads the topic, and listens on Redis.

``python -m dualstream_lab.lab.isolation.observer`` is not for people: see :mod:`dualstream_lab.load.child`.
It is told ``block {…}``, ``await SEQ`` (tell when an event from this one on is received) and ``end``, again
and again. Records and notifications may be of anybody's make: an event is known by its id, and by its source
where a record tells it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dualstream_lab.config import Settings
from dualstream_lab.kafka_log import Records
from dualstream_lab.load.child import Orders, say, serve, settle_memory
from dualstream_lab.load.log_reader import LogReader, open_log_reader, record_unread
from dualstream_lab.load.recorder import Recorder
from dualstream_lab.load.subscriber import RedisSubscriber, all_ready
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds, Workload, source_name

_NEVER = 1e9  # s
_QUIET = 0.05  # s without a message: then nothing more comes
_RECEIVE = 3.0
_READ = 30.0
_FETCH_BYTES = 8 * 2**20


class _Identity(msgspec.Struct):
    id: str | None = None
    source_type: str | None = None
    source_id: str | None = None


_decoder = msgspec.json.Decoder(_Identity)


def identity_of_record(
    headers: Iterable[tuple[str, bytes]], value: bytes | None
) -> tuple[str | None, str | None]:
    """(source, id) of the event in a record of any make, each None where it is not told.

    The id: header ``ce_id``, else ``id`` of the JSON object; the source: its ``source_type`` and
    ``source_id``. A header ``ce_source`` is in words of the maker's own, and says nothing here.
    """
    found = _Identity()
    with suppress(msgspec.DecodeError, UnicodeError):
        found = _decoder.decode(value or b"")
    source = None
    if found.source_type is not None and found.source_id is not None:
        source = f"{found.source_type}:{found.source_id}"
    for name, content in headers:
        if name == "ce_id":
            return source, content.decode("ascii", "replace")
    return source, found.id


class SourcesOfPlan:
    """The source (``type:id``) of each event of a plan, by its number, worked out as far as it is asked."""

    def __init__(self, workload: Workload) -> None:
        self._slots = workload.slots()
        self._ranks: list[int] = []

    def __getitem__(self, seq: int) -> str:
        while len(self._ranks) <= seq:
            slots = next(self._slots, None)
            if slots is None:
                raise IndexError(f"the plan has no event {seq}")
            self._ranks += slots.source.tolist()
        return ":".join(source_name(self._ranks[seq]))


class _Observed:
    """Collects what becomes of a block's events: on Redis, any message in which an id of the block stands;
    and in the topic.
    """

    def __init__(self) -> None:
        self.start("", Workload())

    def start(self, prefix: str, workload: Workload) -> None:
        """Observe the events whose ids begin with ``prefix``, from now on, and forget those of before."""
        self._prefix, self._ids = prefix.encode(), RunIds(prefix)
        self._sources = SourcesOfPlan(workload)
        self.received = {name: array("q") for name in ("seq", "at")}
        self.last = time.monotonic()
        self._wanted: int | None = None
        self._arrived = asyncio.Event()
        self.consumed = {name: array("q") for name in ("seq", "at", "partition", "offset")}
        self.nameless = self.wrong_source = 0

    def receive(self, _number: int, message: bytes, now: int) -> None:
        """Take a message that a :class:`RedisSubscriber` received at ``now`` ns."""
        at = message.find(self._prefix) if self._prefix else -1
        if at < 0:
            return
        with suppress(ValueError):
            at += len(self._prefix)
            seq = int(message[at : at + 12], 16)
            self.received["seq"].append(seq)
            self.received["at"].append(now)
            self.last = time.monotonic()
            if self._wanted is not None and seq >= self._wanted:
                self._arrived.set()

    async def wait(self, seq: int, timeout: float) -> bool:
        """Whether an event from ``seq`` on is received within ``timeout`` s."""
        self._arrived.clear()
        self._wanted = seq
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        return self._arrived.is_set()

    def read(self, part: Records, now: int) -> None:
        """Take records of a partition that a :class:`LogReader` read at ``now`` ns."""
        seqs, times, partitions, offsets = self.consumed.values()
        for record in part.records:
            source, event_id = identity_of_record(record.headers, record.value)
            if event_id is None:
                self.nameless += 1
            elif (seq := self._ids.seq(event_id)) is None:
                continue
            elif source not in {None, self._sources[seq]}:
                self.wrong_source += 1
            else:
                seqs.append(seq)
                times.append(now)
                partitions.append(part.partition)
                offsets.append(record.offset)

    def write(self, directory: Path, unread: list[str]) -> None:
        """Write the rows of the block. ``unread``: what of the topic was not read."""
        _recorder(directory, "delivered", "witness-redis", self.received, subscriber=0).close()
        reading = _recorder(directory, "consumed", "witness-kafka", self.consumed)
        reading.meter.count("nameless", self.nameless)
        reading.meter.count("wrong_source", self.wrong_source)
        record_unread(reading.meter, unread)
        reading.close()


def _recorder(
    directory: Path, kind: str, writer: str, columns: dict[str, array[int]], **more: Any
) -> Recorder:
    """A recorder that has all rows of a block, and their number."""
    recorder = Recorder(directory, kind, writer, period=_NEVER)
    rows: dict[str, Any] = {name: np.array(column, np.int64) for name, column in columns.items()} | more
    recorder.meter.count(kind, len(columns["seq"]))
    recorder.rows(rows.pop("seq"), **rows)
    return recorder


async def _block(
    task: dict[str, Any], orders: Orders, observed: _Observed, reader: LogReader
) -> dict[str, Any] | None:
    """Observe one block, until all of it is read, received and written; None when the parent has gone.

    The topic is read when the block is over, as reading takes a part of the machine.
    """
    reader.pause()
    observed.start(task["ids"], Workload(**task["workload"]))
    say(ready=True)
    while (order := await orders.next()) and order != "end":
        _, seq, timeout = order.split()
        say(live=await observed.wait(int(seq), float(timeout)))
    if not order:
        return None
    unread = await reader.finish(_READ)
    deadline = time.monotonic() + _RECEIVE
    while time.monotonic() - observed.last < _QUIET and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    observed.write(Path(task["directory"]), unread)
    return {}


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    os.nice(19)  # what is measured is the publisher, on the same cores
    settings, observed = Settings(**task["settings"]), _Observed()
    subscriber = RedisSubscriber(settings.redis_url or "", ["*"], observed.receive, pattern=True)
    running = [asyncio.create_task(subscriber.run())]
    try:
        async with open_log_reader(settings, observed.read, max_partition_fetch_bytes=_FETCH_BYTES) as reader:
            await all_ready([subscriber], 5)
            settle_memory()
            say(ready=True)
            while line := await beside(running, orders.next()):
                done = await beside(running, _block(json.loads(line), orders, observed, reader))
                if done is None:
                    break
                say(block=done)
    finally:
        await end_tasks(running)
    return {}


if __name__ == "__main__":
    serve(_main)
