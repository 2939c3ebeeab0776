"""``GET /sse``: server-sent events, for an ``EventSource`` or ``curl -N``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, web

from dualstream_lab.gateway.answers import bad_request, forbidden, grant_of, too_many
from dualstream_lab.gateway.clients import SseConnection
from dualstream_lab.gateway.since import Refused, parse_since
from dualstream_lab.http_server import client_of

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.access import Access
    from dualstream_lab.gateway.clients import Seats
    from dualstream_lab.gateway.session import Session, Sessions
    from dualstream_lab.gateway.since import Since

__all__ = ["ServerSentEvents"]

_KEEP_ALIVE: Final = 15.0  # s between comments
_GOODBYE: Final = 2.0  # s for a client to take what it is told last


class ServerSentEvents:
    """The handler of ``/sse``, and all that are connected."""

    def __init__(self, settings: ServeSettings, access: Access, sessions: Sessions, seats: Seats) -> None:
        self._settings = settings
        self._access = access
        self._sessions = sessions
        self._seats = seats
        self._open: set[asyncio.Event] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """A stream from its request to its end."""
        if request.version < HttpVersion11:
            raise bad_request("HTTP/1.1 is needed: a stream is sent in chunks")
        with self._seats.taken():
            grant = await grant_of(request, self._access)
            transport = request.transport
            assert transport is not None  # noqa: S101
            ended = asyncio.Event()

            def slow() -> None:
                # It could not read a word of ours: it finds its connection broken, and resumes.
                self._seats.slow += 1
                ended.set()
                transport.abort()

            wanted = _wanted(request)
            connection = SseConnection(
                transport,
                self._seats.backlog,
                [source for source, _ in wanted],
                limit=self._settings.client_buffer_bytes,
                slow=slow,
            )
            session = self._sessions.open(connection, grant, client_of(request, grant.name))
            response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",
                }
            )
            response.enable_chunked_encoding()
            try:
                await self._check(session, wanted)
                await response.prepare(request)
                await response.write(b"retry: 1000\n\n")
                self._open.add(ended)
                session.subscribe(wanted)
                async with asyncio.timeout(grant.left()):
                    await _keep_alive(response, ended)
            except TimeoutError:
                connection.end()  # not a word more, however long the client takes to read
                await _say_expired(response, transport)
            finally:
                self._open.discard(ended)
                session.close()
            return response

    async def _check(self, session: Session, wanted: list[tuple[str, Since]]) -> None:
        """A refusal is an answer, as long as nothing was sent. Raises 400, 403 or 429."""
        try:
            session.check([source for source, _ in wanted])
            for _, since in wanted:
                await self._sessions.entry.check(since)
        except Refused as error:
            if error.retry_after is not None:
                raise too_many(str(error), retry_after=error.retry_after) from error
            raise (bad_request if error.code is None else forbidden)(str(error)) from error

    def close(self) -> None:
        """End all streams."""
        for ended in self._open:
            ended.set()


def _wanted(request: web.Request) -> list[tuple[str, Since]]:
    """The sources and where each begins; ``Last-Event-ID`` goes before ``since``. Raises 400."""
    sources = list(dict.fromkeys(request.query.getall("source", [])))
    if not sources:
        raise bad_request("source: at least one is needed, for example ?source=repo:owner/name")
    since = request.query.get("since")
    places = [since] * len(sources)
    if last := request.headers.get("Last-Event-ID"):
        places = [place or since for place in last.split(",")]  # of some nothing was told yet
        if len(places) != len(sources):
            raise bad_request(f"Last-Event-ID: has {len(places)} cursors for {len(sources)} sources")
    try:
        return [(source, parse_since(place)) for source, place in zip(sources, places, strict=True)]
    except Refused as error:
        raise bad_request(str(error)) from error


async def _keep_alive(response: web.StreamResponse, ended: asyncio.Event) -> None:
    """Until the client leaves, or is too slow."""
    while not ended.is_set():
        try:
            async with asyncio.timeout(_KEEP_ALIVE):
                await ended.wait()
        except TimeoutError:
            try:
                await response.write(b":\n\n")
            except ConnectionError:
                return


async def _say_expired(response: web.StreamResponse, transport: asyncio.Transport) -> None:
    """Tell the client why it ends; bounded, as it may not read."""
    try:
        async with asyncio.timeout(_GOODBYE):
            await response.write(b'event: error\ndata: {"kind":"error","error":"the token has expired"}\n\n')
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        transport.abort()
