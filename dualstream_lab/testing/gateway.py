"""A gateway in this process, of the events that a publisher in memory holds."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import msgspec
from aiohttp import web

from dualstream_lab.config import ServeSettings
from dualstream_lab.event import Event, Notification, channel_of, encode_event
from dualstream_lab.gateway.access import Access
from dualstream_lab.gateway.gateway import Gateway, application
from dualstream_lab.gateway.upstream import Upstream
from dualstream_lab.kafka_log import LogClient, LogIdentity, partition_of
from dualstream_lab.store import SqliteStore, StoredEvent
from dualstream_lab.tasks import end_tasks
from dualstream_lab.testing.publisher import MemoryPublisher

_REPORT: Final = 2.0  # s between reports to the store, as a processor gives them
_PATIENCE: Final = 60.0  # s for the store: behind it there is no Kafka that could be read instead


class MemoryGateway:
    """The gateway of ``dualstream serve`` on a free port of this machine, serving what ``publisher`` holds.

    ``/ws``, ``/sse``, ``/events`` and the rest are the real ones, on a store in a temporary directory; in
    place of Kafka and Redis is the publisher's memory, which never fails. What was published before the
    gateway is opened is the past; what is published while it is open comes live. Use it as an async context
    manager, in the event loop that publishes.

    ``publisher``: left out, one of its own, started and closed with it. ``settings``: for example of tokens
    or limits; what they say of brokers, of the store and of where to listen counts for nothing.
    """

    def __init__(
        self, publisher: MemoryPublisher | None = None, *, settings: ServeSettings | None = None
    ) -> None:
        self._own = publisher is None
        self._settings = settings if settings is not None else ServeSettings()
        self._unstored: list[StoredEvent] = []
        self._wake = asyncio.Event()
        self.publisher = publisher if publisher is not None else MemoryPublisher()
        """Publish here."""
        self.url = ""
        """Where it serves: ``http://127.0.0.1:PORT``; empty before it is opened."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            if self._own:
                await exits.enter_async_context(self.publisher)
            path = Path(exits.enter_context(TemporaryDirectory(prefix="dualstream-"))) / "store.db"
            own = {"store": path, "store_timeout": _PATIENCE, "listen": "127.0.0.1:0"}
            settings = self._settings.model_copy(update=own)
            access, store = Access(settings), await SqliteStore.open(path)
            exits.push_async_callback(store.close)
            self._log = _MemoryLog(self.publisher.partitions)
            await store.begin(self._log.epoch, dict.fromkeys(range(self._log.partitions), 0))
            self._gateway = gateway = Gateway(settings, access, store)
            gateway.assemble(await self._log.identity(), self._log)
            gateway.hub.upstream = _MemoryUpstream()
            self._deliver(self.publisher.events)
            self.publisher.followers.append(self._deliver)
            exits.callback(self.publisher.followers.remove, self._deliver)
            self._tasks = [asyncio.create_task(work) for work in (gateway.run(), self._fill(store))]
            exits.push_async_callback(end_tasks, self._tasks)
            app = application(gateway.routes(), access)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
            exits.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            exits.push_async_callback(self.disconnect)
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        dead = [task for task in self._tasks if task.done()]
        await self._exits.aclose()
        for task in dead:
            task.result()  # nobody would know why nothing came

    async def disconnect(self) -> None:
        """End every client's connection, as a gateway that is restarted does: subscribers come again."""
        await self._gateway.goodbye()

    def _deliver(self, events: Iterable[Event]) -> None:
        """These are in the log now: announce them, and have them stored."""
        log, hub = self._log, self._gateway.hub
        for event in events:
            source, ts = f"{event.source_type}:{event.source_id}", time.time_ns()
            partition = partition_of(source, log.partitions)  # as the publisher's, and in its order
            offset = log.lengths[partition]
            log.lengths[partition] += 1
            where = partition, offset, event.id, event.type, source
            self._unstored.append(StoredEvent(*where, ts // 1_000_000 * 1_000_000, encode_event(event)))
            channel = channel_of(event.source_type, event.source_id, self._settings.channel_prefix)
            about = {"id": event.id, "type": event.type, "source_id": event.source_id, "log": log.epoch}
            note = Notification(**about, pos=f"{partition}:{offset}", ts=ts)
            hub.receive(channel.encode(), msgspec.json.encode(note))
        self._wake.set()

    async def _fill(self, store: SqliteStore) -> None:
        """Do a processor's work, until cancelled."""
        log = self._log
        while True:
            self._wake.clear()
            found: defaultdict[int, list[StoredEvent]] = defaultdict(list)
            unstored, self._unstored = self._unstored, []
            for event in unstored:
                found[event.partition].append(event)
            for partition, events in found.items():
                await store.apply(partition, events[0].offset, events[-1].offset + 1, events)
            await store.report("memory", group="memory", partitions=range(log.partitions), troubles={})
            with suppress(TimeoutError):
                async with asyncio.timeout(_REPORT):
                    await self._wake.wait()


class _MemoryLog(LogClient):
    """What a gateway asks of Kafka, answered for a log of which the lengths of its partitions are known."""

    def __init__(self, partitions: int) -> None:  # nothing is connected
        self.partitions = partitions
        self.epoch = secrets.token_hex(6)
        self.lengths: Counter[int] = Counter()

    async def identity(self) -> LogIdentity:
        return LogIdentity(epoch=self.epoch, partitions=self.partitions, origin=self.epoch)

    async def leaders(self, partitions: Iterable[int]) -> dict[Hashable, list[int]]:
        return {"memory": list(partitions)}

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        return {partition: self.lengths[partition] for partition in partitions}

    async def behind_transactions(self, partitions: Iterable[int]) -> dict[int, int]:  # noqa: ARG002
        return {}


class _MemoryUpstream(Upstream):
    """A Redis that is always there, where every subscription is in effect at once."""

    up = True

    def __init__(self) -> None:  # nothing is connected
        self.connects = 1

    async def subscribe(self, channel: bytes) -> str | None:  # noqa: ARG002
        return None

    def confirms(self, channel: bytes) -> bool:  # noqa: ARG002
        return True

    def unsubscribe(self, channel: bytes) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()
