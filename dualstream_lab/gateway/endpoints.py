"""``GET /ws`` and ``GET /sse``: the two ways to follow sources."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from aiohttp import HttpVersion11, WSCloseCode, WSMsgType, web

from dualstream_lab.gateway.access import Denied, Grant, bearer, grant_of
from dualstream_lab.gateway.clients import SseConnection, WebSocketConnection
from dualstream_lab.gateway.issuer_keys import KeysUnavailable
from dualstream_lab.gateway.log import Log
from dualstream_lab.gateway.session import Session, Sessions, keep, parse_command
from dualstream_lab.gateway.since import Refused, Since, check_since, parse_since
from dualstream_lab.http_server import HttpRefusal, client_of, printable

BAD_MESSAGE, UNAUTHENTICATED, SLOW = 4400, 4401, 4408
_HEARTBEAT: Final = 15.0  # s: a client that does not answer a ping for half of it is gone
_KEEP_ALIVE: Final = 15.0  # s between comments
_GOODBYE: Final = 2.0  # s for a client to take what it is told last
_MAX_ERRORS: Final = 20  # refused commands after which a client is closed
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Endpoints:
    """The handlers of ``/ws`` and ``/sse``, and all that are connected."""

    def __init__(self, sessions: Sessions, log: Log) -> None:
        self._sessions = sessions
        self._log = log
        self._settings, self._access = sessions.settings, sessions.access
        self._sockets: set[web.WebSocketResponse] = set()
        self._streams: set[SseConnection] = set()

    async def close(self) -> None:
        """End all streams, and say goodbye to all sockets; bounded."""
        for stream in self._streams:
            stream.ended.set()
        closing = (_close(one, WSCloseCode.GOING_AWAY, "going away") for one in self._sockets)
        await asyncio.gather(*closing, return_exceptions=True)

    async def ws(self, request: web.Request) -> web.StreamResponse:
        """Serve ``GET /ws``: a WebSocket from its handshake to its end."""
        with self._sessions.limit.held():
            grant = None
            if bearer(request) is not None or not self._access.required:
                grant = await grant_of(request, self._access)
            most = self._settings.max_message_bytes
            socket = web.WebSocketResponse(heartbeat=_HEARTBEAT, max_msg_size=most, compress=False)
            try:
                await socket.prepare(request)
            except ValueError as error:  # of aiohttp, for a key that is not ASCII
                raise HttpRefusal(400, "Sec-WebSocket-Key is malformed") from error
            self._sockets.add(socket)
            try:
                if grant is None:
                    grant = await self._first_message(socket)
                if grant is not None and request.transport is not None:
                    await self._converse(request, socket, request.transport, grant)
            finally:
                self._sockets.discard(socket)
            return socket

    async def _first_message(self, socket: web.WebSocketResponse) -> Grant | None:
        """What the client's token allows; None: it was told why it is closed."""
        try:
            async with asyncio.timeout(self._settings.auth_timeout):
                message = await socket.receive()
            text = message.data if message.type is WSMsgType.TEXT else ""
            return await self._access.grant(parse_command(text).token)
        except TimeoutError:
            await _close(socket, UNAUTHENTICATED, "no token came in time")
        except (Denied, Refused) as error:
            await _close(socket, UNAUTHENTICATED, str(error))
        except KeysUnavailable as error:
            await _close(socket, WSCloseCode.TRY_AGAIN_LATER, str(error))
        return None

    async def _converse(
        self, request: web.Request, socket: web.WebSocketResponse, transport: asyncio.Transport, grant: Grant
    ) -> None:
        connection = WebSocketConnection(transport, self._sessions.limit)
        session = Session(self._sessions, connection, grant, client_of(request, grant.name))
        watch = keep(asyncio.create_task(_watch(socket, transport, connection, grant)))
        try:
            since = parse_since(request.query.get("since"))
            if sources := request.query.getall("source", []):
                session.check(sources)
                session.subscribe([(source, since) for source in sources])
            await _listen(socket, session)
        except Refused as error:
            await _close(socket, error.code or BAD_MESSAGE, str(error))
        finally:
            session.close()
            watch.cancel()

    async def sse(self, request: web.Request) -> web.StreamResponse:
        """A stream from its request to its end. As long as nothing was sent a refusal is an answer."""
        if request.version < HttpVersion11:
            raise HttpRefusal(400, "HTTP/1.1 is needed: a stream is sent in chunks")
        with self._sessions.limit.held():
            grant = await grant_of(request, self._access)
            transport = request.transport
            assert transport is not None  # noqa: S101
            wanted = _wanted(request)
            sources = [source for source, _ in wanted]
            connection = SseConnection(transport, self._sessions.limit, sources)
            session = Session(self._sessions, connection, grant, client_of(request, grant.name))
            response = web.StreamResponse(headers=_HEADERS)
            response.enable_chunked_encoding()
            try:
                session.check(sources)
                for _, since in wanted:
                    await check_since(self._log, since)
                await response.prepare(request)
                await response.write(b"retry: 1000\n\n")
                self._streams.add(connection)
                session.subscribe(wanted)
                async with asyncio.timeout(grant.left()):
                    await _keep_alive(response, connection.ended)
            except TimeoutError:
                connection.end()  # not a word more, however long the client takes to read
                await _say_expired(response, transport)
            finally:
                self._streams.discard(connection)
                session.close()
            return response


async def _watch(
    socket: web.WebSocketResponse, transport: asyncio.Transport, connection: WebSocketConnection, grant: Grant
) -> None:
    """Closes it when it is too slow, or when its token has expired."""
    try:
        async with asyncio.timeout(grant.left()):
            await connection.ended.wait()
        await _close(socket, SLOW, "too slow: reconnect with your cursor")
    except TimeoutError:
        connection.end()  # not a word more, however long the client takes to leave
        await _close(socket, UNAUTHENTICATED, "the token has expired")
    transport.abort()


async def _listen(socket: web.WebSocketResponse, session: Session) -> None:
    """Obey commands until the client leaves. Raises Refused for what it may not go on after."""
    errors = 0
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            return
        if message.type is not WSMsgType.TEXT:
            raise Refused("only text messages are understood", WSCloseCode.UNSUPPORTED_DATA)
        command = parse_command(message.data)
        try:
            if command.subscribe is not None:
                since = parse_since(command.since)
                session.check([command.subscribe])
                session.subscribe([(command.subscribe, since)])
            elif command.unsubscribe is not None:
                session.unsubscribe(command.unsubscribe)
        except Refused as error:
            errors += 1
            if error.code is not None or errors > _MAX_ERRORS:
                raise
            session.complain(str(error), command.subscribe or command.unsubscribe)


async def _close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    # As much as a close frame has room for, and UTF-8: a client breaks off at half a character.
    short = printable(reason).encode()[:120].decode(errors="ignore").encode()
    with suppress(TimeoutError, ConnectionError, RuntimeError):
        async with asyncio.timeout(_GOODBYE):
            await socket.close(code=code, message=short)
    socket._exception = None  # noqa: SLF001  (aiohttp keeps what failed, and with it all that knew the socket)


def _wanted(request: web.Request) -> list[tuple[str, Since]]:
    """The sources and where each begins; ``Last-Event-ID`` goes before ``since``. Raises 400, Refused."""
    sources = list(dict.fromkeys(request.query.getall("source", [])))
    if not sources:
        raise HttpRefusal(400, "source: at least one is needed, for example ?source=repo:owner/name")
    since = request.query.get("since")
    places = [since] * len(sources)
    if last := request.headers.get("Last-Event-ID"):
        places = [place or since for place in last.split(",")]  # of some nothing was told yet
        if len(places) != len(sources):
            raise HttpRefusal(400, f"Last-Event-ID: has {len(places)} cursors for {len(sources)} sources")
    return [(source, parse_since(place)) for source, place in zip(sources, places, strict=True)]


async def _keep_alive(response: web.StreamResponse, ended: asyncio.Event) -> None:
    """Write comments until the client leaves, or is found too slow."""
    with suppress(ConnectionError):
        while not ended.is_set():
            try:
                async with asyncio.timeout(_KEEP_ALIVE):
                    await ended.wait()
            except TimeoutError:
                await response.write(b":\n\n")


async def _say_expired(response: web.StreamResponse, transport: asyncio.Transport) -> None:
    """Tell the client why it ends; bounded, as it may not read."""
    try:
        async with asyncio.timeout(_GOODBYE):
            await response.write(b'event: error\ndata: {"kind":"error","error":"the token has expired"}\n\n')
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        transport.abort()
