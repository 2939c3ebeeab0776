"""The HTTP application around the routes: whose pages and names are let in, and errors as JSON."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from aiohttp import web

from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.access import is_host, is_origin
from dualstream_lab.gateway.answers import (
    bad_request,
    error_text,
    forbidden,
    public_reason,
    unavailable,
    unsupported,
)
from dualstream_lab.gateway.openapi import openapi_document
from dualstream_lab.http_server import HEADERS, close_refused, report_refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.typedefs import Handler

    from dualstream_lab.gateway.access import Access

__all__ = ["api_document", "application", "live_page"]

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def application(routes: Iterable[web.RouteDef], access: Access) -> web.Application:
    """The application, with ``/healthz``."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        _let_in(request, access)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204, headers=_PREFLIGHT)
        if request.body_exists and "Content-Encoding" in request.headers:
            raise unsupported("Content-Encoding is not taken: send the body as it is, without that header")
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


def _let_in(request: web.Request, access: Access) -> None:
    """Raises 400 or 403 for a page, or a name of ours, that may not."""
    host, origin = request.host, request.headers.get("Origin")
    if not is_host(host):
        raise _malformed(request, "Host", host)
    if origin is not None and not is_origin(origin):
        raise _malformed(request, "Origin", origin)
    if not access.host_allowed(host):
        raise forbidden(f"without tokens this server answers to localhost only, not to {host}")
    if not access.origin_allowed(origin, host):
        raise forbidden(f"pages of {origin} may not connect (DUALSTREAM_ALLOWED_ORIGINS)")


def _malformed(request: web.Request, name: str, value: str) -> web.HTTPBadRequest:
    report_refusal(request, f"{name} is malformed: {value!r}")
    return bad_request(f"{name} is malformed")


@web.middleware
async def _errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.content_type == "text/plain":  # aiohttp's own words: no such path, method not allowed
            error.text = error_text(f"{error.reason}: {request.method} {request.path}")
            error.content_type = "application/json"
        raise
    except (StoreError, StreamUnavailable) as error:
        report_refusal(request, str(error))
        raise unavailable(public_reason(error)) from error
    except ConnectionError:  # the client has left: there is nobody to tell
        return web.Response()


async def live_page(_request: web.Request) -> web.Response:
    """``GET /``."""
    page, policy = _page()
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    return web.Response(body=page, headers=headers)


async def api_document(_request: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return web.Response(body=openapi_document(), content_type="application/json")


@cache
def _page() -> tuple[bytes, str]:
    """The page, and a policy that lets it run its own script and no other."""
    page = resources.files(__package__).joinpath("page.html").read_bytes()
    script = page.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return page, _POLICY.format(script=digest)


async def _alive(_request: web.Request) -> web.Response:
    return web.Response(text='{"alive":true}', content_type="application/json")
