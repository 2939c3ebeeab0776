"""Gateways' connections to Redis, in a process of their own: they subscribe in one moment, and listen.

``python -m dualstream_lab.lab.scaling.gateways`` is not for people: see :mod:`dualstream_lab.load.child`.
It is told ``subscribe`` first, and says how long the storm took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import EventError
from dualstream_lab.event import decode_notification
from dualstream_lab.gateway.upstream import Channels, Upstream
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.load.child import Orders, say, serve, settle_memory
from dualstream_lab.load.listener import record
from dualstream_lab.load.probes import probe_redis
from dualstream_lab.load.receive_recorder import ReceiveRecorder
from dualstream_lab.load.subscriber import Connection
from dualstream_lab.recording import Ending
from dualstream_lab.tasks import end_tasks
from dualstream_lab.workload import RunIds, source_name

_STORM: Final = 120.0  # s


class _Gateway(Connection):
    """What a gateway does with Redis, and nothing else of it.

    ``read``: messages that it was sent; those of sources that it does not follow it throws away, as a
    gateway does.
    """

    def __init__(
        self, settings: ServeSettings, recorder: ReceiveRecorder, number: int, sources: Sequence[int]
    ) -> None:
        super().__init__(recorder, number=number, listening=recorder.listening, sources=sources)
        self._channels = Channels(settings)
        names = [":".join(source_name(rank)) for rank in sources]
        channels = map(self._channels.channel, names)
        self._wanted = list(dict.fromkeys(channels))
        self._own = set(names if self._channels.shared else self._wanted)
        self.upstream = Upstream(
            settings.redis_url or "",
            received=self._receive,
            confirmed=self._confirmed,
            lost=self._lose,
            pattern=self._channels.pattern,
            resync=self._channels.resync,
        )
        self._left = self.read = 0

    async def want(self) -> None:
        """Ask for every channel before there is a connection, as a gateway does whose Redis comes back."""
        asked = [asyncio.create_task(self.upstream.subscribe(channel)) for channel in self._wanted]
        await asyncio.sleep(0)
        await end_tasks(asked)  # who is cancelled leaves it wanted
        self._left = self.upstream.channels

    async def run(self) -> None:
        """Stay connected to Redis until cancelled."""
        await self.upstream.run()

    @property
    def subscriptions(self) -> int:
        """How many subscriptions Redis keeps for this gateway."""
        return 1 if self._channels.pattern else self.upstream.channels

    def _confirmed(self, channels: list[bytes]) -> None:
        self._left -= len(channels)
        if self._left <= 0 and not self.since:
            self._confirm(time.monotonic_ns())

    def _lose(self, reason: str) -> None:
        self.trouble = reason
        self.lost += self.ready.is_set()
        self._left = self.upstream.channels
        self.ready.clear()
        self.over(Ending.LOST, time.monotonic_ns())

    def _receive(self, channel: bytes, message: bytes) -> None:
        try:
            notification = decode_notification(message)
        except EventError:
            return
        self.read += 1
        source = self._channels.source(channel, notification) if self._channels.shared else channel
        if source in self._own:
            self._on_message(self.number, message, time.monotonic_ns())


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    settings = ServeSettings(**task["settings"], upstream=task["policy"])
    epoch = (await log_identity(settings)).epoch
    recorder = ReceiveRecorder(
        Path(task["directory"]), "redis", RunIds(task["ids"]), details=True, every=task["sample"], epoch=epoch
    )
    count = task["gateways"]
    gateways = [
        _Gateway(settings, recorder, number, range(number, task["sources"], count)) for number in range(count)
    ]
    for gateway in gateways:
        await gateway.want()
    settle_memory()
    say(ready=True)
    if await orders.next() != "subscribe":
        return {}
    begin, cpu = time.monotonic(), time.process_time()
    async with recorder.of(gateways, _STORM) as running:
        seconds, spent = time.monotonic() - begin, time.process_time() - cpu
        subscriptions = sum(gateway.subscriptions for gateway in gateways)
        say(subscribed={"seconds": seconds, "cpu": spent, "subscriptions": subscriptions})
        recorder.collect()  # of each source a row: not while latency is measured
        running.append(asyncio.create_task(probe_redis(settings.redis_url or "", recorder.meter)))
        await record(recorder, orders, running)
    return {"read": sum(gateway.read for gateway in gateways)}


if __name__ == "__main__":
    serve(_main)
