"""How our HTTP servers refuse: in JSON; what is refused is neither read, nor unpacked, nor kept open."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from dualstream_lab.errors import DualStreamError, StoreError

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader
    from aiohttp.typedefs import Handler


log = logging.getLogger(__name__)

_LINE: Final = 8190  # bytes of a request line, or of a header
_LINES: Final = 64  # headers: with the above, what a connection may hold before it has asked for anything

SERVER_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,  # a URL may hold a token
    "auto_decompress": False,  # a few compressed bytes may stand for gigabytes
    "lingering_time": 0.0,  # what follows a refusal is not read to its end
    "max_line_size": _LINE,
    "max_field_size": _LINE,
    "max_headers": _LINES,
    "read_bufsize": 2**16,  # what of a body may wait to be read
}
"""For aiohttp's server, and its runners."""

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # a URL may hold a token
    "Server": "dualstream",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer."""

_HEAD: Final = 32 * 1024  # bytes of a request before its body
_HEADS: Final = 16 * 2**20  # of all that have not come to their end; beyond, of each:
_SMALL_HEAD: Final = 4 * 1024
_CLOSING: Final = frozenset({400, 401, 403, 408, 413, 415, 417, 429, 431})
_FAREWELL: Final = 1.0  # s for a client that still sends to read its answer
_BURST: Final = 1.0  # s whose units may be had at once
_MOST: Final = 10_000  # clients that are remembered


class RateLimit:
    """Lets each client have ``rate`` units/s in the mean, and those of a second at once; 0: any number.

    What was begun may take more than is left, and the client waits the longer afterwards. So a request need
    not say beforehand how much it is, and one that is larger than a second's units still passes.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._paid_at: dict[str, float] = {}  # when each client's units so far will have been paid for

    def wait(self, client: str, now: float) -> float:
        """How long (s) the client has to wait until it may take something; 0.0: it may now."""
        return max(0.0, self._paid_at.get(client, now) - now - _BURST)

    def take(self, client: str, units: float, now: float) -> None:
        """Count what the client has had."""
        if self.rate == 0:
            return
        before = max(now, self._paid_at.pop(client, now))
        self._paid_at[client] = before + units / self.rate
        if len(self._paid_at) > _MOST:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Those that owe nothing; if all do, those that took something the longest ago."""
        owing = {client: at for client, at in self._paid_at.items() if at > now}
        self._paid_at = dict(list(owing.items())[-_MOST // 2 :])


_reports: Final = RateLimit(10.0)


def printable(text: str) -> str:
    """The text, with what is no Unicode (bytes of a request may be none) escaped."""
    return text.encode(errors="backslashreplace").decode()


def json_answer(status: int, fields: Mapping[str, object]) -> web.Response:
    """The fields as JSON."""
    return web.Response(status=status, body=msgspec.json.encode(fields), content_type="application/json")


class HttpRefusal(web.HTTPException):
    """An answer in JSON: ``error`` says what is wrong, ``allowed`` what would be right.

    ``retry_after``: s until it may be right. ``more``: further fields.
    """

    def __init__(
        self,
        status: int,
        error: str,
        allowed: str | None = None,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        **more: object,
    ) -> None:
        self.status_code = status
        fields = {"error": printable(error)} | ({} if allowed is None else {"allowed": allowed}) | more
        text = msgspec.json.encode(fields).decode()
        super().__init__(text=text, content_type="application/json", headers=headers)
        self.charset = None
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, ceil(retry_after)))

    def answer(self) -> web.Response:
        """The same without what the error's frames hold: a body that counts no more, until all is written."""
        return web.Response(status=self.status, headers=self.headers, body=self.body)


def public_reason(error: DualStreamError) -> str:
    """What a client may know of trouble: the error's own words name files, servers and users."""
    if isinstance(error, StoreError):
        return "the store of recent events cannot be read now"
    return "Kafka cannot be asked now"


def client_of(request: web.BaseRequest, name: str) -> str:
    """Who has so much of something: the bearer of a token, by ``name``, or without tokens an address."""
    return name or f"address {request.remote}"


def report_refusal(request: web.BaseRequest, reason: str) -> None:
    """Log what was refused, in one line; at most ten lines a second, whatever anybody sends."""
    now = time.monotonic()
    if _reports.wait("", now) == 0.0:
        _reports.take("", 1, now)
        log.warning("refused %s: %s", request.remote, reason.encode("unicode_escape")[:300].decode())


@web.middleware
async def close_refused(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End the connection after a refusal, and after any answer to a body that was not read to its end.

    Not a byte more is read: the client has a second to read its answer, whatever it still sends.
    """
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        await _close(request, refusal)
        raise
    await _close(request, response)
    return response


async def _close(request: web.Request, response: web.StreamResponse) -> None:
    if response.status in _CLOSING:
        response.force_close()
    transport = request.transport
    if request.content.is_eof() or transport is None:
        return
    response.force_close()
    request.protocol.close()  # what comes is dropped, and not parsed
    if request.content.exception() is None:
        request.content.read_nowait()
    with suppress(ConnectionError):  # it has left
        transport.pause_reading()
        await response.prepare(request)
        await response.write_eof()
        # To close now would reset the connection, and take the answer from who has not read it yet.
        if transport.can_write_eof():
            transport.write_eof()
            await asyncio.sleep(_FAREWELL)
    request.protocol.force_close()


_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


def _refusal(status: int, reason: str) -> web.Response:
    response = json_answer(status, {"error": reason})
    response.headers.update(HEADERS)
    response.force_close()
    return response


def expect_nothing_else(server: web.Server) -> None:
    """Have the server refuse an ``Expect`` that is not ``100-continue``: aiohttp fails to quote some."""
    handle = server.request_handler

    async def understood(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "100-continue").lower() == "100-continue":
            return await handle(request)
        return _refusal(417, "Expect: only 100-continue is understood")

    server.request_handler = understood


class HttpProtocol(web.RequestHandler):
    """aiohttp's, but heads are bounded, and what is no HTTP is worth one line and our headers.

    Of a head that does not come to its end nothing says who sends it: aiohttp alone would keep 64 headers of
    8 KiB for a minute, on every connection.
    """

    __slots__ = ("_body", "_head")
    heads: ClassVar[int] = 0
    """Bytes of unfinished heads, of all connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._body: StreamReader | None = None  # of the request that was begun last
        self._head = 0
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """A client has left."""
        self._count_head(0)
        super().connection_lost(exc)
        self._data_received_cb = None  # a WebSocket's, which knows this: aiohttp (3.14) leaves the cycle

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        behind = (self._body is None or self._body.is_eof()) and not self._upgraded
        begun = self._request_count
        super().data_received(data)
        if self._request_count != begun:
            self._body = self._messages[-1][1]
            self._count_head(0)
        elif behind:
            self._count_head(self._head + len(data))
        if self._head > (_HEAD if HttpProtocol.heads <= _HEADS else _SMALL_HEAD):
            if self.transport is not None:
                self.transport.write(_HEAD_TOO_LARGE)
            self.force_close()

    def _count_head(self, size: int) -> None:
        HttpProtocol.heads += size - self._head
        self._head = size

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what no handler has answered."""
        if isinstance(exc, HttpProcessingError):
            report_refusal(request, f"not HTTP: {type(exc).__name__}")  # its words quote what may be a token
            reason = f"not HTTP, or a line of more than {_LINE} bytes, or more than {_LINES} headers"
            return _refusal(status, reason)
        super().handle_error(request, status, exc, message)  # logs it: a mistake of ours
        return _refusal(status, "an error of the server's")
