"""The listeners of a run, a process each: when each event arrived, from Redis, from Kafka or by a gateway.

``python -m dualstream_lab.load.listener`` is not for people: see :mod:`dualstream_lab.load.child`.
"""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from dualstream_lab.config import Settings
from dualstream_lab.kafka_log import Records, log_identity
from dualstream_lab.load.child import Orders, say, serve, settle_memory
from dualstream_lab.load.log_reader import open_log_reader, record_unread
from dualstream_lab.load.probes import ask_kafka, probe_redis
from dualstream_lab.load.receive_recorder import ReceiveRecorder
from dualstream_lab.load.recorder import Recorder
from dualstream_lab.load.subscriber import RedisSubscriber, all_channels, allow_connections
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds, source_name

_DRAIN = 10.0
_PROBE_KAFKA = 0.1
_JOIN = 30.0  # s for a gateway's clients


async def _listen_redis(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    settings, count = Settings(**task["settings"]), task["subscribers"]
    epoch = (await log_identity(settings)).epoch
    ids, every = RunIds(task["ids"]), task["sample"]
    recorder = ReceiveRecorder(Path(task["directory"]), "redis", ids, every=every, epoch=epoch)
    allow_connections(count)
    url, pattern = settings.redis_url or "", all_channels(settings.channel_prefix)
    subscribers = [
        RedisSubscriber(url, [pattern], recorder, number=number, pattern=True, listening=recorder.listening)
        for number in range(count)
    ]
    async with recorder.of(subscribers, 5) as running:
        direct = task.get("direct_redis_url") or url  # past a fault proxy
        running.append(asyncio.create_task(probe_redis(direct, recorder.meter)))
        await _listen(recorder, orders, running)
    return {}


async def _listen_gateway(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    """Record what clients get by WebSocket that all follow one source."""
    from dualstream_lab.load.gateway_subscriber import (  # noqa: PLC0415
        GatewayReceiveRecorder,
        GatewaySubscriber,
        checked_gateway,
    )

    base, count = await checked_gateway(task["gateway"]), task["clients"]
    directory, ids = Path(task["directory"]), RunIds(task["ids"])
    recorder = GatewayReceiveRecorder(directory, "clients", ids, details=True, every=task["sample"])
    allow_connections(count)
    source, listening = ":".join(source_name(0)), recorder.listening
    clients = [
        GatewaySubscriber(base, [source], recorder, via="ws", number=number, listening=listening, ranks=(0,))
        for number in range(count)
    ]
    async with recorder.of(clients, _JOIN, server="the gateway", option="the gateway") as running:
        await _listen(recorder, orders, running)
    return {}


async def _listen_kafka(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    settings = Settings(**task["settings"])
    recorder = Recorder(Path(task["directory"]), "consumed", "kafka", every=task["sample"])
    async with open_log_reader(settings, _Consumed(RunIds(task["ids"]), recorder)) as reader:

        async def ask() -> None:
            recorder.meter.peak("consumed.lag_messages", await reader.lag())

        asking = ask_kafka(ask, recorder.meter, _PROBE_KAFKA)
        running = [asyncio.create_task(work) for work in (reader.run(), asking)]
        try:
            await _listen(recorder, orders, running)
            await end_tasks(running)
            unread = await reader.finish(_DRAIN)
            record_unread(recorder.meter, unread)
            recorder.close()
        finally:
            await end_tasks(running)
    return {"caught_up": not unread}


class _Consumed:
    """Puts the records of a run's events into rows."""

    def __init__(self, ids: RunIds, recorder: Recorder) -> None:
        self._prefix = ids.prefix.encode()
        self._recorder = recorder

    def __call__(self, part: Records, now: int) -> None:
        """See :class:`LogReader`."""
        seqs, offsets = array("q"), array("q")
        prefix = self._prefix
        for record in part.records:
            event_id = next((value for name, value in record.headers if name == "ce_id"), b"")
            if event_id.startswith(prefix):
                seqs.append(int(event_id[24:], 16))
                offsets.append(record.offset)
        self._recorder.meter.count("consumed", len(seqs))
        seq, offset = np.asarray(seqs, np.int64), np.asarray(offsets, np.int64)
        self._recorder.rows(seq, at=now, partition=part.partition, offset=offset)


async def _listen(recorder: Recorder, orders: Orders, running: list[asyncio.Task[None]]) -> None:
    """Be ready, and record until told to stop; what is ``running`` must go on all the time."""
    settle_memory()
    say(ready=True)
    await record(recorder, orders, running)


async def record(recorder: Recorder, orders: Orders, running: list[asyncio.Task[None]]) -> None:
    """From the order to start until the one to stop."""
    if await beside(running, orders.started()) is None:
        return
    recording = asyncio.create_task(recorder.run())
    await beside([*running, recording], orders.stopped.wait())
    await end_tasks([recording])


_KINDS = {"redis": _listen_redis, "kafka": _listen_kafka, "gateway": _listen_gateway}

if __name__ == "__main__":
    serve(lambda task, orders: _KINDS[task["kind"]](task, orders))
