"""Connected clients as the hub sees them: bytes into a transport, and a bound on what may wait there."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from dualstream_lab.gateway.answers import unavailable
from dualstream_lab.gateway.frames import sse_chunk, websocket_frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from dualstream_lab.gateway.frames import Frame

__all__ = ["Connection", "Seats", "SseConnection", "WebSocketConnection"]

# Linux lets a socket keep 4 MB and more, which a transport never sees: a slow client would look quick.
_SEND_BUFFER: Final = 128 * 1024
_ROOM: Final = 0.02  # s between looks whether a client that catches up has room for more


class Seats:
    """How many clients may be connected. ``used``: how many are; ``slow``: closed for slowness."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0
        self.slow = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One for as long as it is open. Raises 503 where none is left."""
        if self.used >= self._limit:
            raise unavailable("too many connections")
        self.used += 1
        try:
            yield
        finally:
            self.used -= 1


class Connection:
    """Writes frames as they are. ``slow()`` is called once, when more than ``limit`` bytes wait.

    What is told to catch up may wait beside the limit: of one source at a time.
    """

    def __init__(self, transport: asyncio.Transport, *, limit: int, slow: Callable[[], None]) -> None:
        self._transport = transport
        self._limit = limit
        self._allowed = limit
        self._slow = slow
        self._ended = False
        self._turn = asyncio.Lock()
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def end(self) -> None:
        """Write no more."""
        self._ended = True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """As :class:`Client`."""
        async with self._turn:
            while self.waiting > self._limit:  # noqa: ASYNC110  (the transport's own word goes to aiohttp)
                await asyncio.sleep(_ROOM)
            yield

    def tell(self, frames: list[Frame], shared: dict[str, bytes], source: str) -> None:
        """As :class:`Client`."""
        raise NotImplementedError

    def catch_up(self, frames: list[Frame], source: str) -> None:
        """As :class:`Client`."""
        before = self._allowed
        self._allowed = 2**62
        self.tell(frames, {}, source)
        self._allowed = max(before, self.waiting + self._limit)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if self._ended or transport.is_closing():
            return
        transport.write(data)
        size = transport.get_write_buffer_size()
        if size > self._allowed:
            self._ended = True
            self._slow()
        elif size <= self._limit:
            self._allowed = self._limit


class WebSocketConnection(Connection):
    """One text frame a message."""

    def tell(self, frames: list[Frame], shared: dict[str, bytes], source: str) -> None:  # noqa: ARG002
        """As :class:`Client`."""
        data = shared.get("ws")
        if data is None:
            data = shared["ws"] = websocket_frames(frames)
        self._write(data)


class SseConnection(Connection):
    """One event a message. Of several sources, an event's id holds every one's cursor, in their order."""

    def __init__(
        self,
        transport: asyncio.Transport,
        sources: list[str],
        *,
        limit: int,
        slow: Callable[[], None],
    ) -> None:
        super().__init__(transport, limit=limit, slow=slow)
        self._cursors = dict.fromkeys(sources, "")

    def tell(self, frames: list[Frame], shared: dict[str, bytes], source: str) -> None:
        """As :class:`Client`."""
        if len(self._cursors) == 1:
            data = shared.get("sse")
            if data is None:
                data = shared["sse"] = sse_chunk(frames)
            self._write(data)
            return
        for frame in frames:
            self._cursors[source] = frame.cursor or self._cursors[source]
            self._write(sse_chunk([frame], ",".join(self._cursors.values())))
