"""Connected clients as the hub sees them: bytes into a transport, and a bound on what may wait there."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from dualstream_lab.gateway.answers import unavailable
from dualstream_lab.gateway.frames import sse_chunk, websocket_frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.frames import Frame

__all__ = ["Backlog", "Connection", "Seats", "SseConnection", "WebSocketConnection"]

# Linux lets a socket keep 4 MB and more, which a transport never sees: a slow client would look quick.
_SEND_BUFFER: Final = 128 * 1024
_ROOM: Final = 0.02  # s between looks whether a client that catches up has room for more
_LITTLE: Final = 32 * 1024  # bytes that may wait for a client without being counted
_STUCK: Final = 1.0  # s in which a client takes something, if it takes anything
_ROOM_WAIT: Final = 0.1  # s between looks whether there is room, what waits for all considered
_ROOM_LOOKS: Final = 20


class Seats:
    """How many clients may be connected, and what they may have together.

    ``used``: how many are; ``slow``: closed for slowness.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._limit = settings.max_connections
        self.used = 0
        self.slow = 0
        self.backlog = Backlog(settings.all_clients_buffer_bytes)

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


class Backlog:
    """What waits for all clients together. Beyond ``limit`` bytes clients are cut off.

    First those that have taken nothing for a second, of these whoever has the most waiting; then the latter.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Connection, int] = {}  # as far as it is known: what has been taken since is not
        self._bytes = 0
        self._taken: dict[Connection, int] = {}
        self._taken_at = -math.inf
        self._stuck: set[Connection] = set()

    def count(self, connection: Connection, size: int) -> None:
        """So much waits for it now."""
        self._bytes += size - self._waiting.get(connection, 0)
        self._waiting[connection] = size
        if self._bytes > self._limit:
            self._relieve()

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._bytes -= self._waiting.pop(connection, 0)
        self._taken.pop(connection, None)
        self._stuck.discard(connection)

    def look(self) -> int:
        """How many bytes wait now for those that more than a little waits for."""
        self._waiting = {one: size for one in self._waiting if (size := one.waiting) > _LITTLE}
        self._bytes = sum(self._waiting.values())
        return self._bytes

    async def room(self) -> None:
        """Until less waits than half of what may; bounded: those that take nothing keep nobody else away."""
        for _ in range(_ROOM_LOOKS):
            if self._bytes <= self._limit // 2 or self.look() <= self._limit // 2:
                return
            await asyncio.sleep(_ROOM_WAIT)

    def _relieve(self) -> None:
        if self.look() <= self._limit:
            return
        if (now := time.monotonic()) - self._taken_at > _STUCK:
            self._stuck = {one for one in self._waiting if self._taken.get(one, -1) == one.taken}
            self._taken = {one: one.taken for one in self._waiting}
            self._taken_at = now
        for one in sorted(self._waiting, key=lambda one: (one in self._stuck, one.waiting), reverse=True):
            if self._bytes <= self._limit * 7 // 8:  # not one by one, as each look is at all of them
                return
            self.forget(one)
            one.cut()


class Connection:
    """Writes frames as they are. ``slow()`` is called once, when more than ``limit`` bytes wait.

    What is told to catch up may wait beside the limit: of one source at a time.
    """

    def __init__(
        self, transport: asyncio.Transport, backlog: Backlog, *, limit: int, slow: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._backlog = backlog
        self._written = 0
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

    @property
    def taken(self) -> int:
        """Bytes that went out to the client."""
        return self._written - self.waiting

    def end(self) -> None:
        """Write no more."""
        self._ended = True
        self._backlog.forget(self)

    def cut(self) -> None:
        """End it at once, as what waits for it takes too much room."""
        self._ended = True
        self._slow()
        self._transport.abort()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """As :class:`Client`."""
        async with self._turn:
            while self.waiting > self._limit:  # noqa: ASYNC110  (the transport's own word goes to aiohttp)
                await asyncio.sleep(_ROOM)
            await self._backlog.room()
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
        self._written += len(data)
        size = transport.get_write_buffer_size()
        if size > _LITTLE:
            self._backlog.count(self, size)
        if size > self._allowed and not self._ended:
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
        backlog: Backlog,
        sources: list[str],
        *,
        limit: int,
        slow: Callable[[], None],
    ) -> None:
        super().__init__(transport, backlog, limit=limit, slow=slow)
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
