"""The gateway, put together: its parts, its routes, and the HTTP application around them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.access import Access, grant_of
from dualstream_lab.gateway.clients import ConnectionLimit
from dualstream_lab.gateway.endpoints import Endpoints
from dualstream_lab.gateway.entry import Entry
from dualstream_lab.gateway.health import Health
from dualstream_lab.gateway.hub import Hub
from dualstream_lab.gateway.log import Log
from dualstream_lab.gateway.metrics import Metrics
from dualstream_lab.gateway.openapi import openapi_document
from dualstream_lab.gateway.query import Queries
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.session import Sessions
from dualstream_lab.gateway.since import Refused
from dualstream_lab.gateway.upstream import Upstream
from dualstream_lab.http_server import (
    HEADERS,
    HttpRefusal,
    RateLimit,
    close_refused,
    json_answer,
    public_reason,
    report_refusal,
)
from dualstream_lab.kafka_log import LogClient, LogIdentity, open_consumer, topic_info
from dualstream_lab.store import Store
from dualstream_lab.store.schema import REBUILD

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler


log = logging.getLogger(__name__)

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Gateway:
    """Serves what ``store`` has and Redis announces. Use it as an async context manager; :meth:`run` it.

    Raises ConfigError for settings that cannot be served, StoreError for a store of another log, and
    StreamUnavailable when Kafka does not answer. Redis may be away: then clients are served from the store.
    """

    def __init__(self, settings: ServeSettings, access: Access, store: Store) -> None:
        self.settings = settings
        self._access = access
        self._store = store

    async def __aenter__(self) -> Self:
        settings, store = self.settings, self._store
        info = await topic_info(settings)
        held = await store.epoch()
        if held not in {None, info.log.epoch}:
            raise StoreError(
                f"{settings.store} holds another log (epoch {held}, Kafka's is {info.log.epoch}): give "
                f"another file (DUALSTREAM_STORE); or {REBUILD}"
            )
        info.warn_of_contradictions(
            settings.topic,
            retention_age=settings.retention_age,
            retention_bytes=settings.retention_bytes,
        )
        async with AsyncExitStack() as exits:
            self.assemble(info.log, await exits.enter_async_context(open_consumer(settings)))
            if settings.redis_url is not None:
                self.hub.upstream = Upstream(
                    settings.redis_url,
                    received=self.hub.receive,
                    confirmed=self.hub.confirmed,
                    refused=self.hub.refused,
                    lost=self.hub.lost,
                    pattern=self.hub.pattern,
                    resync=self.hub.resync,
                )
            self._exits = exits.pop_all()
        return self

    def assemble(self, log: LogIdentity, client: LogClient) -> None:
        """Put its parts together, of which ``client`` asks Kafka; the hub has no upstream yet."""
        settings, access = self.settings, self._access
        self._log = Log(settings, log, client, self._change)
        self._reads = Reads(self._store, limit=settings.catch_up_events)
        self.health = Health(settings, self._log, self._store, self._reads, client)
        self.hub = Hub(settings, self._reads, self._log)
        entry = Entry(settings, self.hub, self._reads, self._log)
        limit, rate = ConnectionLimit(settings), RateLimit(settings.subscribe_rate)
        self._endpoints = Endpoints(Sessions(settings, access, self.hub, entry, limit, rate), self._log)
        self._queries = Queries(settings, access, self._log, self._reads)
        self.metrics = Metrics(self.hub, limit, self.health)

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def run(self) -> None:
        """Work until it is cancelled."""
        hub = self.hub
        work = [self._log.run, self._reads.run, self.health.run, hub.repairs.run, hub.claims.run]
        if hub.upstream is not None:
            work.append(hub.upstream.run)
        async with asyncio.TaskGroup() as group:
            for part in work:
                group.create_task(part())

    def _change(self, before: LogIdentity, after: LogIdentity) -> None:
        topic, count = self.settings.topic, after.partitions
        if before.epoch == after.epoch:
            log.warning("topic %s has %d partitions now, after %d", topic, count, before.partitions)
        else:
            log.error("topic %s was made anew: epoch %s after %s", topic, after.epoch, before.epoch)
            self.health.renew()
        self.hub.change(before, after)

    def attach_processor(self, *, trouble: Callable[[], str], hasten: Callable[[], None]) -> None:
        """It is in the same process: what is wrong with it, and what is called while clients wait for it."""
        self.health.beside, self._reads.hasten = trouble, hasten

    async def goodbye(self) -> None:
        """Tell the clients that the gateway ends, within seconds."""
        await self._endpoints.close()

    def routes(self) -> list[web.RouteDef]:
        """The HTTP routes of the gateway: all but the ingester's."""
        return [
            web.get("/", _live_page),
            web.get("/ws", self._endpoints.ws, allow_head=False),
            web.get("/sse", self._endpoints.sse, allow_head=False),
            web.get("/events", self._queries.events),
            web.get("/event", self._queries.event),
            web.get("/events/{id:[^/]+}", self._queries.event),  # (the default leaves braces out)
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/openapi.json", _api_document),
        ]

    async def _ready(self, _request: web.Request) -> web.Response:
        ready, parts = await self.health.ready()
        redis = {"redis": "up" if self.hub.upstream and self.hub.upstream.up else "away"}
        return json_answer(200 if ready else 503, {"ready": ready, **redis, **parts})

    async def _metrics(self, request: web.Request) -> web.Response:
        await grant_of(request, self._access)
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self.metrics.text(), headers=headers)


def application(routes: Iterable[web.RouteDef], access: Access) -> web.Application:
    """The HTTP application of these routes, with ``/healthz``."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        access.let_in(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204, headers=_PREFLIGHT)
        if request.body_exists and "Content-Encoding" in request.headers:
            reason = "Content-Encoding is not taken: send the body as it is, without that header"
            raise HttpRefusal(415, reason)
        return await handler(request)

    async def let_read(request: web.Request, response: web.StreamResponse) -> None:
        policy = response.headers.get("Content-Security-Policy")  # the page has one of its own
        response.headers.update(HEADERS)
        if policy is not None:
            response.headers["Content-Security-Policy"] = policy
        origin = request.headers.get("Origin")
        if origin is not None and access.origin_allowed(origin, request.host):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"

    app = web.Application(middlewares=[close_refused, _errors_in_json, guard])
    app.on_response_prepare.append(let_read)
    app.add_routes([web.get("/healthz", _alive), *routes])
    return app


@web.middleware
async def _errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.content_type == "text/plain":  # aiohttp's own words: no such path, method not allowed
            error.body = HttpRefusal(error.status, f"{error.reason}: {request.method} {request.path}").body
            error.content_type = "application/json"
        raise
    except Refused as error:
        status = 400 if error.code is None else 403
        if error.retry_after is not None:
            status = 429
        raise HttpRefusal(status, str(error), retry_after=error.retry_after) from error
    except (StoreError, StreamUnavailable) as error:
        report_refusal(request, str(error))
        raise HttpRefusal(503, public_reason(error), retry_after=2) from error
    except ConnectionError:  # the client has left: there is nobody to tell
        return web.Response()


async def _live_page(_request: web.Request) -> web.Response:
    page, headers = _page()
    return web.Response(body=page, headers=headers)


async def _api_document(_request: web.Request) -> web.Response:
    return web.Response(body=openapi_document(), content_type="application/json")


@cache
def _page() -> tuple[bytes, dict[str, str]]:
    """The page, and with it a policy that lets it run its own script and no other."""
    page = resources.files(__package__).joinpath("page.html").read_bytes()
    script = page.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = _POLICY.format(script=digest)
    return page, {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}


async def _alive(_request: web.Request) -> web.Response:
    return json_answer(200, {"alive": True})
