"""What tests of the gateway publish, and a client beside whom it may be attacked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self
from uuid import uuid4

from dualstream_lab import DualPublisher, Event
from dualstream_lab.config import Settings
from tests.gateway.clients import joined
from tests.gateway.serving import Delivery, Server


class Place(NamedTuple):
    """A published event."""

    id: str
    partition: int
    offset: int

    @property
    def pos(self) -> str:
        return f"{self.partition}:{self.offset}"


class Published:
    """Publishes to the topic of a delivery, and says what Kafka said. ``silent``: not a word on Redis."""

    def __init__(self, delivery: Delivery, **more: object) -> None:
        where = {name: delivery.where[name] for name in ("kafka_url", "redis_url", "topic")}
        settings = Settings.load(**(where | more))
        self._loud = DualPublisher(settings)
        self._silent = DualPublisher(settings.model_copy(update={"redis_url": None}))

    async def __aenter__(self) -> Self:
        await self._loud.start()
        await self._silent.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loud.close()
        await self._silent.close()

    async def __call__(
        self, source: str, count: int = 1, *, silent: bool = False, size: int = 0
    ) -> list[Place]:
        kind, _, name = source.partition(":")
        data = {"x": "x" * size}
        batch = [Event(type="push", source_type=kind, source_id=name, data=data) for _ in range(count)]
        receipt = await (self._silent if silent else self._loud).publish_batch(batch)
        return [Place(one.event_id, one.partition, one.offset) for one in receipt]

    async def named(self, source: str, *names: str, data: object = None, silent: bool = False) -> list[Place]:
        """Events with these ids."""
        kind, _, name = source.partition(":")
        batch = [Event(id=one, type="push", source_type=kind, source_id=name, data=data) for one in names]
        receipt = await (self._silent if silent else self._loud).publish_batch(batch)
        return [Place(one.event_id, one.partition, one.offset) for one in receipt]


def new_source() -> str:
    return f"repo:o/{uuid4().hex[:12]}"


def ids(places: list[Place]) -> list[str]:
    return [place.id for place in places]


def at(cursor: str, offset: int) -> str:
    """The cursor of another place of the same source."""
    return cursor.rpartition(":")[0] + f":{offset}"


def place_of(cursor: str) -> int:
    return int(cursor.rpartition(":")[2])


@asynccontextmanager
async def undisturbed(server: Server, publish: Published, **options: Any) -> AsyncIterator[None]:
    """Beside a healthy client, which keeps its connection, misses nothing, and waits for nothing."""
    source = new_source()
    sent: list[str] = []

    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            sent.extend(ids(await publish(source, 2)))
            await asyncio.sleep(0.02)

    async with joined(server.ws, source, **options) as ear:
        going = asyncio.create_task(go_on())
        try:
            await ear.receive(2)
            yield
        finally:
            stop.set()
            await going
        sent.extend(ids(await publish(source, 2)))
        heard = await ear.receive(len(sent))
        assert sorted(heard) == sorted(sent)
        assert not list(ear.of("degraded"))
