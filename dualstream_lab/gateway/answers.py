"""HTTP answers that say what was wrong and what is allowed, as JSON; and where a request has its token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from dualstream_lab.errors import StoreError
from dualstream_lab.gateway.access import Denied
from dualstream_lab.gateway.issuer_keys import KeysUnavailable
from dualstream_lab.http_server import printable, report_refusal

if TYPE_CHECKING:
    from dualstream_lab.errors import DualStreamError
    from dualstream_lab.gateway.access import Access, Grant

__all__ = [
    "bad_request",
    "bearer",
    "error_text",
    "forbidden",
    "grant_of",
    "not_found",
    "public_reason",
    "too_many",
    "unavailable",
    "unsupported",
    "writer_of",
]

_JSON = "application/json"


def public_reason(error: DualStreamError) -> str:
    """What a client may know of trouble: the error's own words name files, servers and users."""
    if isinstance(error, StoreError):
        return "the store of recent events cannot be read now"
    return "Kafka cannot be asked now"


def error_text(reason: str) -> str:
    """The body of an answer that says what was wrong."""
    return msgspec.json.encode({"error": printable(reason)}).decode()


def bad_request(reason: str) -> web.HTTPBadRequest:
    """400."""
    return web.HTTPBadRequest(text=error_text(reason), content_type=_JSON)


def forbidden(reason: str) -> web.HTTPForbidden:
    """403."""
    return web.HTTPForbidden(text=error_text(reason), content_type=_JSON)


def not_found(reason: str, *, retry: bool = False) -> web.HTTPNotFound:
    """404; ``retry``: it may be there in a second."""
    headers = {"Retry-After": "1"} if retry else None
    return web.HTTPNotFound(text=error_text(reason), content_type=_JSON, headers=headers)


def too_many(reason: str, *, retry_after: float) -> web.HTTPTooManyRequests:
    """429, to be tried again after so many seconds."""
    return web.HTTPTooManyRequests(
        text=error_text(reason), content_type=_JSON, headers={"Retry-After": str(math.ceil(retry_after))}
    )


def unsupported(reason: str) -> web.HTTPUnsupportedMediaType:
    """415."""
    return web.HTTPUnsupportedMediaType(text=error_text(reason), content_type=_JSON)


def unavailable(reason: str) -> web.HTTPServiceUnavailable:
    """503, to be tried again."""
    return web.HTTPServiceUnavailable(
        text=error_text(reason), content_type=_JSON, headers={"Retry-After": "2"}
    )


def bearer(request: web.Request) -> str | None:
    """The token of a request: its header, or ``access_token`` where a browser cannot set one."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and token:
        return token.strip()
    return request.query.get("access_token")


async def grant_of(request: web.Request, access: Access) -> Grant:
    """What the request's token allows. Raises 401, and 503 where tokens cannot be checked."""
    token = bearer(request)
    try:
        return await access.grant(token)
    except KeysUnavailable as error:
        raise unavailable(str(error)) from error
    except Denied as error:
        if token:
            report_refusal(request, str(error))
        raise web.HTTPUnauthorized(
            text=error_text(str(error)), content_type=_JSON, headers={"WWW-Authenticate": "Bearer"}
        ) from error


async def writer_of(request: web.Request, access: Access) -> Grant:
    """The same of one who sends events. Raises 403, too, for one who may write nothing."""
    grant = await grant_of(request, access)
    if not grant.write:
        raise forbidden("the token does not allow to write anything")
    return grant
