"""The gateway, put together: its parts, its routes, and what they need to run."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

import msgspec
from aiohttp import web

from dualstream_lab.errors import StoreError
from dualstream_lab.gateway.answers import grant_of
from dualstream_lab.gateway.app import api_document, live_page
from dualstream_lab.gateway.clients import Seats
from dualstream_lab.gateway.entry import Entry
from dualstream_lab.gateway.health import Health
from dualstream_lab.gateway.hub import Hub
from dualstream_lab.gateway.log import KafkaLog
from dualstream_lab.gateway.metrics import Metrics
from dualstream_lab.gateway.query import Queries
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.session import Sessions
from dualstream_lab.gateway.sse import ServerSentEvents
from dualstream_lab.gateway.upstream import Upstream
from dualstream_lab.gateway.websocket import WebSockets
from dualstream_lab.kafka_log import open_consumer, topic_info
from dualstream_lab.store.schema import REBUILD

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.access import Access
    from dualstream_lab.kafka_log import LogIdentity
    from dualstream_lab.store import Store

__all__ = ["Gateway"]

log = logging.getLogger(__name__)


class Gateway:
    """Serves what ``store`` has and Redis announces. Use it as an async context manager; :meth:`run` it.

    Raises ConfigError for settings that cannot be served, StoreError for a store of another log, and
    StreamUnavailable when Kafka does not answer. Redis may be away: then clients are served from the store.
    """

    def __init__(self, settings: ServeSettings, access: Access, store: Store) -> None:
        self.settings = settings
        self._access = access
        self.seats = Seats(settings)
        self._store = store
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings, store = self.settings, self._store
        info = await topic_info(settings)
        held = await store.epoch()
        if held not in {None, info.log.epoch}:
            raise StoreError(
                f"{settings.store} holds another log (epoch {held}, Kafka's is {info.log.epoch}): give "
                f"another file (DUALSTREAM_STORE); or {REBUILD}"
            )
        for sentence in info.contradictions(retention_age=settings.retention_age):
            log.warning("topic %s: %s", settings.topic, sentence)
        try:
            await self._open(info.log)
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def _open(self, identity: LogIdentity) -> None:
        settings, store = self.settings, self._store
        consumer = await self._exits.enter_async_context(open_consumer(settings))
        self._log = KafkaLog(settings, identity, consumer, changed=self._change)
        self._reads = Reads(store, limit=settings.catch_up_events)
        self.health = Health(settings, self._log, store, self._reads, held=consumer.behind_transactions)
        self.hub = Hub(settings, self._reads, self._log)
        if settings.redis_url is not None:
            self.hub.upstream = Upstream(
                settings.redis_url,
                heard=self.hub.hear,
                confirmed=self.hub.confirmed,
                refused=self.hub.refused,
                lost=self.hub.lost,
                pattern=self.hub.pattern,
                resync=self.hub.resync,
            )
        entry = Entry(settings, self.hub, self._reads, self._log)
        sessions = Sessions(settings, self.hub, entry)
        self._sockets = WebSockets(settings, self._access, sessions, self.seats)
        self._events = ServerSentEvents(settings, self._access, sessions, self.seats)
        self._queries = Queries(settings, self._access, self._log, self._reads)
        self.metrics = Metrics(self.hub, self.seats, self.health)

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def run(self) -> None:
        """Until cancelled."""
        hub = self.hub
        work = [self._log.run, self._reads.run, self.health.run, hub.repairs.run, hub.claims.run]
        if hub.upstream is not None:
            work.append(hub.upstream.run)
        async with asyncio.TaskGroup() as group:
            for part in work:
                group.create_task(part())

    def _change(self, before: LogIdentity, after: LogIdentity) -> None:
        topic = self.settings.topic
        if before.epoch == after.epoch:
            log.warning(
                "topic %s has %d partitions now, after %d", topic, after.partitions, before.partitions
            )
        else:
            log.error("topic %s was made anew: epoch %s after %s", topic, after.epoch, before.epoch)
            self.health.renew()
        self.hub.change(before, after)

    async def goodbye(self) -> None:
        """Tell the clients that it ends; bounded."""
        self._events.close()
        await self._sockets.close()

    # --- HTTP

    def routes(self) -> list[web.RouteDef]:
        """All but the ingester's."""
        return [
            web.get("/", live_page),
            web.get("/ws", self._sockets.handle, allow_head=False),
            web.get("/sse", self._events.handle, allow_head=False),
            web.get("/events", self._queries.events),
            web.get("/event", self._queries.event),
            web.get("/events/{id:[^/]+}", self._queries.event),  # (the default leaves braces out)
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/openapi.json", api_document),
        ]

    async def _ready(self, _request: web.Request) -> web.Response:
        ready, parts = await self.health.ready()
        redis = {"redis": "up" if self.hub.upstream and self.hub.upstream.up else "away"}
        body = msgspec.json.encode({"ready": ready} | redis | dict(parts))
        return web.Response(body=body, status=200 if ready else 503, content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        await grant_of(request, self._access)
        return web.Response(
            body=self.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
