"""The HTTP application around the routes: whose pages and names are let in, and errors as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from aiohttp import web

from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.answers import error_text, forbidden, grant_of, unavailable
from dualstream_lab.gateway.openapi import openapi_document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dualstream_lab.gateway.access import Access

__all__ = ["api_document", "application", "live_page"]

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_POLICY: Final = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(routes: Iterable[web.RouteDef], access: Access) -> web.Application:
    """The application, with ``/healthz``."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if not access.host_allowed(request.host):
            raise forbidden(f"without tokens this server answers to localhost only, not to {request.host}")
        if not access.origin_allowed(origin, request.host):
            raise forbidden(f"pages of {origin} may not connect (DUALSTREAM_ALLOWED_ORIGINS)")
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204, headers=_PREFLIGHT)
        if request.method == "POST" and request.path == "/ingest":
            grant_of(request, access)  # nobody's body is read before that
        return await handler(request)

    async def let_read(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and access.origin_allowed(origin, request.host):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"

    app = web.Application(middlewares=[_errors_in_json, guard])
    app.on_response_prepare.append(let_read)
    app.add_routes([web.get("/healthz", _alive), *routes])
    return app


@web.middleware
async def _errors_in_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.content_type == "text/plain":  # aiohttp's own words: no such path, method not allowed
            error.text = error_text(f"{error.reason}: {request.method} {request.path}")
            error.content_type = "application/json"
        raise
    except (StoreError, StreamUnavailable) as error:
        raise unavailable(str(error)) from error
    except ConnectionError:  # the client has left: there is nobody to tell
        return web.Response()


async def live_page(_request: web.Request) -> web.Response:
    """``GET /``."""
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
    return web.Response(body=_page(), headers=headers)


async def api_document(_request: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return web.Response(body=openapi_document(), content_type="application/json")


@cache
def _page() -> bytes:
    return resources.files(__package__).joinpath("page.html").read_bytes()


async def _alive(_request: web.Request) -> web.Response:
    return web.Response(text='{"alive":true}', content_type="application/json")
