"""A listener in a process of its own: notes when each event of a run arrived, on Redis or on Kafka.

``python -m dualstream_lab.load.listener`` is not for people: it reads its task from its argument, says
``ready`` on stdout, listens until its stdin ends, and writes its rows to a file.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from dualstream_lab.config import Settings
from dualstream_lab.errors import StackError
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Listener"]

_RETRY = 0.02


class Listener:
    """Starts the process; :meth:`finish` ends it and returns its rows. Times are ns of the monotonic clock.

    ``ids``: the prefix of the run's event ids; others are ignored. Leaving the ``with`` block kills it.
    """

    def __init__(self, kind: Literal["redis", "kafka"], settings: Settings, *, ids: str, file: Path) -> None:
        self._file = file
        self._kind = kind
        task = {"kind": kind, "ids": ids, "file": str(file), "settings": settings.model_dump()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dualstream_lab.load.listener", json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_ready(self) -> None:
        """Wait until it hears everything that is sent from now on. Raises StackError if it ends instead."""
        assert self._process.stdout is not None  # noqa: S101
        if self._process.stdout.readline() != b"ready\n":
            raise StackError(f"the {self._kind} listener did not start (exit code {self._process.wait(10)})")

    def finish(self, count: int) -> tuple[npt.NDArray[np.int64], int]:
        """End it. Returns when each of ``count`` events first arrived (0: never), and how many came again."""
        self._process.communicate(timeout=30)
        rows = np.load(self._file)
        self._file.unlink()
        seqs, times = rows["seq"], rows["time"]
        arrived = np.zeros(count, np.int64)
        # Backwards, so that the first arrival is the one that stays.
        arrived[seqs[::-1]] = times[::-1]
        return arrived, len(seqs) - len(np.unique(seqs))


class _Rows:
    def __init__(self, ids: str) -> None:
        self._ids = RunIds(ids)
        self.seqs = array("q")
        self.times = array("q")

    def add(self, event_id: str, now: int) -> None:
        seq = self._ids.seq(event_id)
        if seq is not None:
            self.seqs.append(seq)
            self.times.append(now)


async def _redis(settings: Settings, rows: _Rows) -> None:
    """One plain connection: what redis-py's PubSub would cost an event would be measured as latency."""
    import hiredis  # noqa: PLC0415
    from redis.asyncio import ConnectionPool  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    said_ready = False
    while True:
        connection: Any = ConnectionPool.from_url(settings.redis_url or "", protocol=2).make_connection()  # type: ignore[no-untyped-call]
        reader = hiredis.Reader()
        try:
            await connection.connect()
            connection._writer.write(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$8\r\nevents:*\r\n")  # noqa: SLF001
            while data := await connection._reader.read(262_144):  # noqa: SLF001
                now = time.monotonic_ns()
                reader.feed(data)
                while message := reader.gets():
                    if message[0] == b"pmessage":
                        # {"id":"…", is how every notification begins
                        rows.add(message[3][7:43].decode("ascii", "replace"), now)
                    elif not said_ready:
                        said_ready = _say_ready()
        except (RedisError, OSError):
            pass
        finally:
            await connection.disconnect(nowait=True)
        await asyncio.sleep(_RETRY)


async def _kafka(settings: Settings, rows: _Rows) -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415

    from dualstream_lab.config import kafka_client_options  # noqa: PLC0415

    consumer = AIOKafkaConsumer(
        **kafka_client_options(settings.kafka_url or ""),
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
        auto_offset_reset="latest",
    )
    await consumer.start()
    try:
        await consumer._client._wait_on_metadata(settings.topic)  # noqa: SLF001
        targets = [
            TopicPartition(settings.topic, p) for p in consumer.partitions_for_topic(settings.topic) or ()
        ]
        consumer.assign(targets)
        await consumer.seek_to_end(*targets)
        for target in targets:
            await consumer.position(target)
        _say_ready()
        while True:
            batches = await consumer.getmany(timeout_ms=200)
            now = time.monotonic_ns()
            for records in batches.values():
                for record in records:
                    rows.add(dict(record.headers)["ce_id"].decode("ascii", "replace"), now)
    finally:
        await consumer.stop()


def _say_ready() -> bool:
    print("ready", flush=True)
    return True


async def _main(task: dict[str, Any]) -> None:
    rows = _Rows(task["ids"])
    settings = Settings.load(**task["settings"])
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # The end of stdin is the order to stop, and what a dead parent leaves behind.
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    listening = asyncio.create_task((_redis if task["kind"] == "redis" else _kafka)(settings, rows))
    reading = asyncio.create_task(stdin.read())
    reading.add_done_callback(lambda _: ended.set())
    listening.add_done_callback(lambda _: ended.set())
    await ended.wait()
    if listening.done():
        listening.result()
    listening.cancel()
    await asyncio.wait([listening], timeout=3)
    np.savez(Path(task["file"]), seq=np.asarray(rows.seqs, np.int64), time=np.asarray(rows.times, np.int64))


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(json.loads(sys.argv[1])))
