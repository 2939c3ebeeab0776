"""``GET /ws``: a WebSocket, its sources, and its commands."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import WSCloseCode, WSMsgType, web

from dualstream_lab.gateway.access import Denied
from dualstream_lab.gateway.answers import bad_request, bearer, grant_of
from dualstream_lab.gateway.clients import WebSocketConnection
from dualstream_lab.gateway.issuer_keys import KeysUnavailable
from dualstream_lab.gateway.session import keep, parse_command
from dualstream_lab.gateway.since import Refused, parse_since
from dualstream_lab.http_server import client_of, printable

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.access import Access, Grant
    from dualstream_lab.gateway.clients import Seats
    from dualstream_lab.gateway.session import Session, Sessions

__all__ = ["WebSockets"]

BAD_MESSAGE, UNAUTHENTICATED, SLOW = 4400, 4401, 4408
_HEARTBEAT: Final = 15.0  # s: a client that does not answer a ping for half of it is gone
_GOODBYE: Final = 2.0  # s for a client to take its close frame
_MAX_ERRORS: Final = 20  # refused commands after which a client is closed


class WebSockets:
    """The handler of ``/ws``, and all that are connected."""

    def __init__(self, settings: ServeSettings, access: Access, sessions: Sessions, seats: Seats) -> None:
        self._settings = settings
        self._access = access
        self._sessions = sessions
        self._seats = seats
        self._open: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A connection from its handshake to its end."""
        with self._seats.taken():
            grant = None
            if bearer(request) is not None or not self._access.required:
                grant = await grant_of(request, self._access)
            socket = web.WebSocketResponse(
                heartbeat=_HEARTBEAT, max_msg_size=self._settings.max_message_bytes, compress=False
            )
            try:
                await socket.prepare(request)
            except ValueError as error:  # of aiohttp, for a key that is not ASCII
                raise bad_request("Sec-WebSocket-Key is malformed") from error
            self._open.add(socket)
            try:
                if grant is None:
                    grant = await self._first_message(socket)
                if grant is not None and request.transport is not None:
                    await self._converse(request, socket, request.transport, grant)
            finally:
                self._open.discard(socket)
            return socket

    async def close(self) -> None:
        """Say goodbye to everybody; bounded."""
        closing = [
            asyncio.create_task(_close(one, WSCloseCode.GOING_AWAY, "going away")) for one in self._open
        ]
        if closing:
            await asyncio.wait(closing)

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
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        grant: Grant,
    ) -> None:
        slow = asyncio.Event()
        connection = WebSocketConnection(
            transport, self._seats.backlog, limit=self._settings.client_buffer_bytes, slow=slow.set
        )
        session = self._sessions.open(connection, grant, client_of(request, grant.name))
        watch = keep(asyncio.create_task(self._watch(socket, transport, connection, slow, grant)))
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

    async def _watch(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        connection: WebSocketConnection,
        slow: asyncio.Event,
        grant: Grant,
    ) -> None:
        """Closes it when it is too slow, or when its token has expired."""
        try:
            async with asyncio.timeout(grant.left()):
                await slow.wait()
            self._seats.slow += 1
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
    """Tell the client why, and end; bounded."""
    with suppress(TimeoutError, ConnectionError, RuntimeError):
        async with asyncio.timeout(_GOODBYE):
            await socket.close(code=code, message=_short(reason))


def _short(reason: str) -> bytes:
    """What a close frame has room for, and UTF-8: a client breaks off at half a character."""
    return printable(reason).encode()[:120].decode(errors="ignore").encode()
