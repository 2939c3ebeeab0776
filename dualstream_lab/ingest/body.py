"""Request bodies, within bounds: of one, of one client's, of all, and of the time that one takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from dualstream_lab.http_server import HttpRefusal

_TIME: Final = 60.0
_PATIENCE: Final = 5.0  # s that a body may be behind its minimum rate
_OVERHEAD: Final = 16 * 1024  # bytes that a body counts before its first one has come


@dataclass(slots=True)
class _Holding:
    """What one client's bodies hold; ``coming``: those that are not whole yet, the oldest first."""

    size: int = 0
    coming: dict[Body, None] = field(default_factory=dict)


class Bodies:
    """The bodies that are held now: each of at most ``max_bytes``, all together of at most ``max_held``.

    One client's are at most half of that, or one body. Where there is no room, whose bodies hold the most
    gives way: the oldest of them that is still coming is cut off with 503. One that comes more slowly than
    ``min_rate`` bytes/s for 5 s, or takes longer than ``timeout`` s, is cut off with 408. ``limit``: the name
    of the setting ``max_bytes``.
    """

    def __init__(
        self, max_bytes: int, max_held: int, min_rate: float, limit: str, timeout: float = _TIME
    ) -> None:
        self.max_bytes = max_bytes
        self.min_rate = min_rate
        self.timeout = timeout
        self.limit = limit
        self.held = 0
        self._max_held = max(max_held, max_bytes + _OVERHEAD)
        self._max_client = max(max_held // 2, max_bytes + _OVERHEAD)
        self._clients: dict[str, _Holding] = {}

    def enter(self, body: Body) -> None:
        """Count a body that begins to come. Raises HttpRefusal."""
        self._clients.setdefault(body.client, _Holding()).coming[body] = None
        self.add(body, _OVERHEAD)

    def add(self, body: Body, size: int) -> None:
        """Count so many bytes more of a body. Raises HttpRefusal where nobody else can give way."""
        holding = self._clients[body.client]
        body.size += size
        holding.size += size
        self.held += size
        while holding.size > self._max_client:
            self._cut([holding], body)
        while self.held > self._max_held:
            self._cut(list(self._clients.values()), body)

    def complete(self, body: Body) -> None:
        """Note that a body has come whole: what is done with it now is not the client's to delay."""
        self._clients[body.client].coming.pop(body, None)

    def leave(self, body: Body) -> None:
        """Count a body no more: it holds nothing now."""
        holding = self._clients.get(body.client)
        if holding is None:
            return
        holding.coming.pop(body, None)
        holding.size -= body.size
        self.held -= body.size
        body.size = 0
        if holding.size == 0 and not holding.coming:
            del self._clients[body.client]

    def _cut(self, holdings: Sequence[_Holding], newcomer: Body) -> None:
        coming = [one for one in holdings if one.coming]
        body = next(iter(max(coming, key=lambda one: one.size).coming)) if coming else newcomer
        if body is newcomer:
            raise self.no_room()
        self.leave(body)
        body.cut()

    def no_room(self) -> HttpRefusal:
        """Make the answer to a body that there is no room for."""
        return HttpRefusal(503, f"{self._max_held:,} bytes of requests are being worked on", retry_after=1)


class Body:
    """One request's body, of a ``client``, held from its first byte until the block ends."""

    def __init__(self, bodies: Bodies, request: web.Request, client: str) -> None:
        self.client = client
        self.size = 0
        self._bodies = bodies
        self._request = request
        self._content = request.content
        self._length = 0
        self._cut_off = False
        self._timer: asyncio.Timeout | None = None
        self._patience = _PATIENCE if bodies.min_rate else bodies.timeout
        self._deadline = asyncio.get_running_loop().time() + bodies.timeout
        self._awaited = request.headers.get("Expect", "").lower() == "100-continue"
        if (request.content_length or 0) > bodies.max_bytes:
            raise self._too_large()

    def __enter__(self) -> Self:
        try:
            self._bodies.enter(self)
        except HttpRefusal:
            self._bodies.leave(self)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.leave(self)

    def cut(self) -> None:
        """End a body, as others need its room."""
        self._cut_off = True
        if self._timer is not None:
            self._timer.reschedule(asyncio.get_running_loop().time())

    def move(self, bodies: Bodies) -> None:
        """Count a body that is whole among others from now on. Raises HttpRefusal."""
        size = self.size
        self._bodies.leave(self)
        self._bodies = bodies
        bodies.enter(self)
        bodies.complete(self)
        bodies.add(self, size - self.size)

    async def chunk(self) -> bytes:
        """Wait for bytes, and return what has come; nothing at the end. Raises HttpRefusal."""
        if self._awaited:  # only now: who is refused before need not send it
            self._awaited = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0
        data = b"" if self._cut_off else await self._receive()
        if self._cut_off:
            raise self._bodies.no_room()
        if not data:
            self._bodies.complete(self)
            return data
        self._length += len(data)
        if self._length > self._bodies.max_bytes:
            raise self._too_large()
        self._bodies.add(self, len(data))
        return data

    async def _receive(self) -> bytes:
        time = asyncio.get_running_loop().time
        began = time()
        try:
            async with asyncio.timeout_at(min(self._deadline, began + self._patience)) as self._timer:
                data = await self._content.readany()
        except TimeoutError as error:
            raise (self._bodies.no_room() if self._cut_off else self._too_slow()) from error
        except (web.RequestPayloadError, BadHttpMessage) as error:
            raise HttpRefusal(400, f"the body cannot be read: {error}") from error
        finally:
            self._timer = None
        if rate := self._bodies.min_rate:
            # Only waiting costs patience: while we are busy, the client is not to blame.
            self._patience = min(_PATIENCE, self._patience - (time() - began) + len(data) / rate)
        return data

    async def whole(self) -> bytes:
        """Wait for the whole body. Raises HttpRefusal."""
        pieces = []
        while data := await self.chunk():
            pieces.append(data)
        return b"".join(pieces)

    def _too_large(self) -> HttpRefusal:
        limit = self._bodies.max_bytes
        allowed = f"at most {limit:,} bytes a request ({self._bodies.limit}); send several"
        return HttpRefusal(413, f"the body is larger than {limit:,} bytes", allowed)

    def _too_slow(self) -> HttpRefusal:
        rate, seconds = self._bodies.min_rate, self._bodies.timeout
        reason = f"the body did not come at {rate:g} bytes/s, or not within {seconds:g} s"
        return HttpRefusal(408, reason, "a smaller one, or faster (DUALSTREAM_MIN_BODY_RATE)")


class LineSplitter:
    """Cuts bytes, as they come, into lines without their ends. A line may come in any number of pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Take more bytes; the lines that are complete now."""
        first, *others = data.split(b"\n")
        self._pieces.append(first)
        if not others:
            return ()
        lines = [b"".join(self._pieces), *others[:-1]]
        self._pieces = [others[-1]]
        return lines

    def rest(self) -> bytes:
        """The last line, where no line end follows it."""
        return b"".join(self._pieces)


def content_type(request: web.Request, *allowed: str) -> str:
    """Check that a body has one of these content types, and is not compressed. Raises HttpRefusal."""
    if "Content-Encoding" in request.headers:
        raise HttpRefusal(415, "Content-Encoding is not taken", "the body as it is, without that header")
    kind = request.content_type if "Content-Type" in request.headers else "none"
    if kind not in allowed:
        raise HttpRefusal(415, f"Content-Type is {kind}", " or ".join(allowed))
    if (charset := request.charset or "utf-8").lower().replace("_", "-") not in {"utf-8", "utf8", "us-ascii"}:
        raise HttpRefusal(415, f"charset is {charset}", "utf-8")
    return kind
