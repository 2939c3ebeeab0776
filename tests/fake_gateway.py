"""A fake of the gateway's wire protocol, for moments that a real one cannot be made to have on demand.

Every connection is played by a script of the test: drop in mid-frame, repeat, refuse, be slow, fall silent.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from dualstream_lab.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SOURCE = "repo:octo/hello"


def cursor(offset: int, *, epoch: str = "e0", partition: int = 0, **others: int) -> str:
    """``others``: more partitions, as ``p4=17``."""
    offsets = {partition: offset} | {int(name[1:]): more for name, more in others.items()}
    return str(Cursor.of(epoch, offsets))


def event(offset: int, confirmed: int, *, source: str = SOURCE, **more: Any) -> dict[str, Any]:
    return {
        "kind": "event",
        "source": source,
        "id": f"id-{offset}",
        "type": "push",
        "pos": f"0:{offset}",
        "ts": 1_700_000_000_000_000_000 + offset,
        "cursor": cursor(confirmed),
    } | more


def subscribed(confirmed: int, *, source: str = SOURCE, **more: Any) -> dict[str, Any]:
    return {"kind": "subscribed", "source": source, "cursor": cursor(confirmed), "recovered": True} | more


def sync(confirmed: int, *, source: str = SOURCE) -> dict[str, Any]:
    return {"kind": "sync", "source": source, "cursor": cursor(confirmed)}


def whole(event_id: str, *, source: str = SOURCE, **data: Any) -> bytes:
    """The event's JSON, as it is in Kafka."""
    source_type, _, source_id = source.partition(":")
    about = {"id": event_id, "type": "push", "source_type": source_type, "source_id": source_id}
    return json.dumps(
        about | {"occurred_at": "2026-01-01T00:00:00Z", "data": {"id": event_id} | data}
    ).encode()


class Talk:
    """One connection, as its script sees it. ``since``: what the client asked for, by source."""

    def __init__(self, request: web.Request, since: dict[str, str]) -> None:
        self.since = since
        self.token = request.headers.get("Authorization")
        assert request.transport is not None
        self.transport = request.transport

    async def say(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self._send(json.dumps(message, separators=(",", ":")))

    async def _send(self, text: str) -> None:
        raise NotImplementedError

    async def half(self, message: dict[str, Any]) -> None:
        """The first half of a message's bytes, and the end of the connection."""
        raise NotImplementedError

    def drop(self) -> None:
        """End without a word."""
        self.transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        """A WebSocket's goodbye."""
        raise NotImplementedError

    async def stay(self) -> None:
        """Until the client leaves."""
        await asyncio.Event().wait()


class WsTalk(Talk):
    def __init__(self, request: web.Request, since: dict[str, str], socket: web.WebSocketResponse) -> None:
        super().__init__(request, since)
        self._socket = socket

    async def _send(self, text: str) -> None:
        await self._socket.send_str(text)

    async def half(self, message: dict[str, Any]) -> None:
        text = json.dumps(message).encode()
        frame = b"\x81\x7e" + len(text).to_bytes(2) + text
        self.transport.write(frame[: len(frame) // 2])
        await asyncio.sleep(0)
        self.transport.close()

    async def close(self, code: int, reason: str = "") -> None:
        await self._socket.close(code=code, message=reason.encode())

    async def stay(self) -> None:
        while (await self._socket.receive()).type is WSMsgType.TEXT:
            pass


class SseTalk(Talk):
    def __init__(self, request: web.Request, since: dict[str, str], stream: web.StreamResponse) -> None:
        super().__init__(request, since)
        self._stream = stream

    async def _send(self, text: str) -> None:
        kind = json.loads(text)["kind"]
        await self._stream.write(f"event: {kind}\ndata: {text}\n\n".encode())

    async def half(self, message: dict[str, Any]) -> None:
        text = f"event: event\ndata: {json.dumps(message)}\n".encode()
        await self._stream.write(text)  # without the empty line
        self.transport.close()


class FakeGateway:
    """``scripts``: one a connection; the last one for all that follow. ``answers``: what ``/event`` answers
    for an id, one a request, then 200; ``wrong``: (position, event) that it answers instead. ``pages``: what
    ``/events`` answers, by cursor. ``refusals``: statuses of the first connections, instead of a stream."""

    def __init__(self) -> None:
        self.url = ""
        self.sources = 1
        self.scripts: list[Callable[[Talk], Awaitable[None]]] = []
        self.refusals: list[int] = []
        self.answers: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self.wrong: dict[str, tuple[str, bytes]] = {}
        self.pages: dict[str, dict[str, Any] | list[dict[str, Any]]] = {}
        self.talks: list[Talk] = []
        self.asked: list[str] = []
        self.most_at_once = 0
        self.hold: asyncio.Event | None = None
        self._at_once = 0
        self.tokens: list[str | None] = []

    async def ws(self, request: web.Request) -> web.StreamResponse:
        self._refuse(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        since: dict[str, str] = {}
        for _ in range(self.sources):
            said = json.loads(await socket.receive_str(timeout=30))
            since[said["subscribe"]] = said["since"]
        await self._play(WsTalk(request, since, socket))
        return socket

    async def sse(self, request: web.Request) -> web.StreamResponse:
        self._refuse(request)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        places = request.headers["Last-Event-ID"].split(",")
        since = dict(zip(request.query.getall("source"), places, strict=True))
        await self._play(SseTalk(request, since, stream))
        return stream

    def _refuse(self, request: web.Request) -> None:
        self.tokens.append(request.headers.get("Authorization"))
        if self.refusals and (status := self.refusals.pop(0)) != 200:
            raise _STATUS[status](text=json.dumps({"error": f"refused with {status}"}))

    async def _play(self, talk: Talk) -> None:
        script = self.scripts[min(len(self.talks), len(self.scripts) - 1)]
        self.talks.append(talk)
        await script(talk)

    async def event(self, request: web.Request) -> web.Response:
        event_id, source = request.query["id"], request.query["source"]
        self.asked.append(f"{event_id} {request.query.get('pos')}")
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if answers := self.answers.get(event_id):
                status, headers = answers.pop(0)
                return web.Response(status=status, headers=headers)
            if event_id in self.wrong:
                position, value = self.wrong[event_id]
                return web.Response(body=value, headers={"X-Position": position})
            position = request.query.get("pos", "0:0")
            return web.Response(body=whole(event_id, source=source), headers={"X-Position": position})
        finally:
            self._at_once -= 1

    async def events(self, request: web.Request) -> web.Response:
        self.asked.append(f"page {request.query['since']}")
        page = self.pages[request.query["since"]]
        return web.json_response(page.pop(0) if isinstance(page, list) else page)


_STATUS: dict[int, type[web.HTTPException]] = {
    400: web.HTTPBadRequest,
    401: web.HTTPUnauthorized,
    403: web.HTTPForbidden,
    404: web.HTTPNotFound,
    500: web.HTTPInternalServerError,
    503: web.HTTPServiceUnavailable,
}


@asynccontextmanager
async def fake_gateway(
    *scripts: Callable[[Talk], Awaitable[None]], sources: int = 1
) -> AsyncIterator[FakeGateway]:
    fake = FakeGateway()
    fake.scripts = list(scripts)
    app = web.Application()
    fake.sources = sources
    app.add_routes(
        [
            web.get("/ws", fake.ws),
            web.get("/sse", fake.sse),
            web.get("/events", fake.events),
            web.get("/event", fake.event),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()
