"""The gateway, put together: its parts, its routes, and what they need to run."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

import msgspec
from aiohttp import web

from dualstream_lab.errors import DualStreamError, StoreError
from dualstream_lab.gateway.answers import grant_of
from dualstream_lab.gateway.app import api_document, live_page
from dualstream_lab.gateway.clients import Seats
from dualstream_lab.gateway.entry import Entry
from dualstream_lab.gateway.hub import Hub
from dualstream_lab.gateway.metrics import Metrics
from dualstream_lab.gateway.query import Queries
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.sse import ServerSentEvents
from dualstream_lab.gateway.tails import Tails
from dualstream_lab.gateway.upstream import Upstream
from dualstream_lab.gateway.websocket import WebSockets
from dualstream_lab.kafka_log import LogEnds, consumer_of, log_identity

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.access import Access
    from dualstream_lab.gateway.tails import Tail
    from dualstream_lab.store import Store

__all__ = ["Gateway"]


class Gateway:
    """Serves what ``store`` has and Redis announces. Use it as an async context manager; :meth:`run` it.

    Raises ConfigError for settings that cannot be served, StoreError for a store of another log, and
    StreamUnavailable when Kafka does not answer. Redis may be away: then clients are served from the store.
    """

    def __init__(self, settings: ServeSettings, access: Access, store: Store) -> None:
        self.settings = settings
        self._access = access
        self.seats = Seats(settings.max_connections)
        self._store = store
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings, store = self.settings, self._store
        self._log_is = await log_identity(settings)
        held = await store.epoch()
        if held not in {None, self._log_is.epoch}:
            raise StoreError(
                f"{settings.store} holds another log (epoch {held}, Kafka's is {self._log_is.epoch}): "
                "give another file (DUALSTREAM_STORE)"
            )
        self._ends = LogEnds(settings, await self._exits.enter_async_context(consumer_of(settings)))
        self._tails = Tails(settings)
        self._reads = Reads(store, limit=settings.catch_up_events)
        self.hub = Hub(settings, self._log_is, self._reads, self)
        if settings.redis_url is not None:
            self.hub.upstream = Upstream(
                settings.redis_url,
                heard=self.hub.hear,
                confirmed=self.hub.confirmed,
                lost=self.hub.lost,
                pattern=self.hub.pattern,
            )
        entry = Entry(settings, self._log_is, self.hub, self._reads, self)
        self._sockets = WebSockets(settings, self._access, self.hub, entry, self.seats)
        self._events = ServerSentEvents(settings, self._access, self.hub, entry, self.seats)
        self._queries = Queries(settings, self._access, self._log_is, store, self._reads)
        self.metrics = Metrics(self.hub, self.seats)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ends.run())
            group.create_task(self._reads.run())
            group.create_task(self._tails.run())
            group.create_task(self.hub.repairs.run())
            if self.hub.upstream is not None:
                group.create_task(self.hub.upstream.run())

    async def goodbye(self) -> None:
        """Tell the clients that it ends; bounded."""
        self._events.close()
        await self._sockets.close()

    async def end(self, partition: int) -> int:
        """As :class:`Log`."""
        return await self._ends.end(partition)

    async def read(self, source: str, partition: int, first: int, end: int) -> Tail:
        """As :class:`Log`."""
        return await self._tails.read(source, partition, first, end)

    # --- HTTP

    def routes(self) -> list[web.RouteDef]:
        """All but the ingester's."""
        return [
            web.get("/", live_page),
            web.get("/ws", self._sockets.handle, allow_head=False),
            web.get("/sse", self._events.handle, allow_head=False),
            web.get("/events", self._queries.events),
            web.get("/events/{id}", self._queries.event),
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/openapi.json", api_document),
        ]

    async def _ready(self, _request: web.Request) -> web.Response:
        parts: dict[str, str] = {"redis": "up" if self.hub.upstream and self.hub.upstream.up else "away"}
        ready = True
        for name, ask in (("kafka", self._ends.end(0)), ("store", self._store.positions())):
            try:
                await ask
                parts[name] = "up"
            except DualStreamError as error:
                parts[name] = str(error)
                ready = False
        body = msgspec.json.encode({"ready": ready} | parts)
        return web.Response(body=body, status=200 if ready else 503, content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        grant_of(request, self._access)
        return web.Response(
            body=self.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
