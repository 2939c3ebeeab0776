"""Request bodies, within bounds: of one, of all that are held at once, and of the time that one takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from dualstream_lab.ingest.answers import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bodies", "Body", "LineSplitter"]

_TIME = 60.0


class Bodies:
    """The bodies that are held now: each at most ``max_bytes``, all together at most ``max_held``.

    What would be more is refused, not queued: a client that waits holds memory, too.
    """

    def __init__(self, *, max_bytes: int, max_held: int, timeout: float = _TIME) -> None:
        self.max_bytes = max_bytes
        self.max_held = max(max_held, max_bytes)
        self.timeout = timeout
        self.held = 0


class Body:
    """One request's body, counted as held from its first byte until the block ends. Raises Refusal."""

    def __init__(self, bodies: Bodies, request: web.Request) -> None:
        self._bodies = bodies
        self._content = request.content
        self._size = 0
        self._deadline = asyncio.get_running_loop().time() + bodies.timeout
        if (request.content_length or 0) > bodies.max_bytes:
            raise self._too_large()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.held -= self._size

    async def chunk(self) -> bytes:
        """What has come; nothing at the end."""
        try:
            async with asyncio.timeout_at(self._deadline):
                data = await self._content.readany()
        except TimeoutError as error:
            seconds = self._bodies.timeout
            raise Refusal(408, f"the body did not come within {seconds:g} s", "a smaller one") from error
        except (web.RequestPayloadError, BadHttpMessage) as error:
            raise Refusal(400, f"the body cannot be read: {error}") from error
        self._size += len(data)
        self._bodies.held += len(data)
        if self._size > self._bodies.max_bytes:
            raise self._too_large()
        if self._bodies.held > self._bodies.max_held:
            raise Refusal(
                503, f"{self._bodies.max_held:,} bytes of requests are being worked on", retry_after=1
            )
        return data

    async def whole(self) -> bytes:
        """All of it."""
        pieces = []
        while data := await self.chunk():
            pieces.append(data)
        return b"".join(pieces)

    def _too_large(self) -> Refusal:
        limit = self._bodies.max_bytes
        return Refusal(
            413,
            f"the body is larger than {limit:,} bytes",
            f"at most {limit:,} bytes a request (DUALSTREAM_MAX_BODY_BYTES); send several",
        )


class LineSplitter:
    """Bytes as they come into whole lines, without their ends. A line may come in any number of pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The lines that are complete now."""
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
