"""Connected clients: what they are told, as bytes into a transport, and a bound on what may wait there."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from dualstream_lab.http_server import HttpRefusal

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings

_SEND_BUFFER: Final = 128 * 1024  # Linux's 4 MB and more a transport never sees: a slow client looks quick
_ROOM: Final = 0.02  # s between looks whether a client that catches up has room for more
_LITTLE: Final = 32 * 1024  # bytes that may wait for a client without being counted
_STUCK: Final = 1.0  # s in which a client takes something, if it takes anything
_ROOM_WAIT: Final = 0.1  # s between looks whether there is room, what waits for all considered
_ROOM_LOOKS: Final = 20


class EventFrame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="event"):
    """An event happened. ``pos``: where it is, to fetch it; ``cursor``: where to resume from.

    ``late``: it was found by comparing with the store. ``old``: it is from before the client came. ``ts``:
    ns since the epoch, of Kafka's ack (live) or of the record (late and old).
    """

    source: str
    id: str
    type: str
    pos: str
    cursor: str
    ts: int | None = None
    late: bool = False
    old: bool = False


class StateFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something about a source, or (error) about what the client said."""

    kind: str
    source: str | None = None
    cursor: str | None = None
    recovered: bool | None = None
    reason: str | None = None
    error: str | None = None


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A message: what an EventSource calls it, where it resumes, and its JSON."""

    kind: str
    cursor: str
    body: bytes


_encode: Final = msgspec.json.Encoder().encode


def event_frame(message: EventFrame) -> Frame:
    """Encode an event for the wire."""
    return Frame("event", message.cursor, _encode(message))


def state_frame(message: StateFrame) -> Frame:
    """Encode a state message for the wire."""
    return Frame(message.kind, message.cursor or "", _encode(message))


def websocket_frames(frames: Iterable[Frame]) -> bytes:
    """Each as a text frame of its own (RFC 6455, unmasked), joined for one write."""
    parts: list[bytes] = []
    for frame in frames:
        body = frame.body
        size = len(body)
        parts += (_HEADS[size] if size < _SHORT else _head(size), body)
    return b"".join(parts)


def _head(size: int) -> bytes:
    if size < 126:
        return b"\x81" + size.to_bytes(1)
    return b"\x81\x7e" + size.to_bytes(2) if size < 65_536 else b"\x81\x7f" + size.to_bytes(8)


_SHORT: Final = 512
_HEADS: Final = tuple(map(_head, range(_SHORT)))


def sse_chunk(frames: Iterable[Frame], resume: str | None = None) -> bytes:
    """All as events of a stream, in one chunk of a chunked body. ``resume``: the id, if not their own."""
    parts: list[bytes] = []
    for frame in frames:
        place = frame.cursor if resume is None else resume
        head = f"event: {frame.kind}\nid: {place}\ndata: " if place else f"event: {frame.kind}\ndata: "
        parts += (head.encode(), frame.body, b"\n\n")
    text = b"".join(parts)
    return b"%x\r\n%b\r\n" % (len(text), text)


class ConnectionLimit:
    """How many clients may be connected, and what may wait for one of them, and for all together.

    Beyond that clients are cut off: first those that have taken nothing for a second, of these whoever has
    the most waiting; then the latter. ``used``: how many are connected; ``slow``: closed for slowness.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._most = settings.max_connections
        self._limit = settings.all_clients_buffer_bytes
        self.buffer = settings.client_buffer_bytes
        self.used = 0
        self.slow = 0
        self._waiting: dict[Connection, int] = {}  # as far as it is known: what has been taken since is not
        self._bytes = 0
        self._taken: dict[Connection, int] = {}
        self._taken_at = -math.inf
        self._stuck: set[Connection] = set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """One connection, for as long as it is open. Raises 503 where there are too many."""
        if self.used >= self._most:
            raise HttpRefusal(503, "too many connections", retry_after=2)
        self.used += 1
        try:
            yield
        finally:
            self.used -= 1

    def count(self, connection: Connection, size: int) -> None:
        """Note that so many bytes wait for the connection now."""
        self._bytes += size - self._waiting.get(connection, 0)
        self._waiting[connection] = size
        if self._bytes > self._limit:
            self._relieve()

    def forget(self, connection: Connection) -> None:
        """Count the connection no more: it is gone, or is about to be."""
        self._bytes -= self._waiting.pop(connection, 0)
        self._taken.pop(connection, None)
        self._stuck.discard(connection)

    def backlog_bytes(self) -> int:
        """How many bytes wait now for those that more than a little waits for."""
        self._waiting = {one: size for one in self._waiting if (size := one.waiting) > _LITTLE}
        self._bytes = sum(self._waiting.values())
        return self._bytes

    async def room(self) -> None:
        """Until less waits than half of what may; bounded: those that take nothing keep nobody else away."""
        for _ in range(_ROOM_LOOKS):
            if self._bytes <= self._limit // 2 or self.backlog_bytes() <= self._limit // 2:
                return
            await asyncio.sleep(_ROOM_WAIT)

    def _relieve(self) -> None:
        if self.backlog_bytes() <= self._limit:
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
    """A client that is told; telling never blocks and never raises.

    ``ended`` is set once more bytes wait than may: it is to be closed. What is told to catch up may wait
    beside the limit: of one source at a time.
    """

    def __init__(self, transport: asyncio.Transport, limit: ConnectionLimit) -> None:
        self._transport = transport
        self._limit = limit
        self._written = 0
        self._most = self._allowed = limit.buffer
        self.ended = asyncio.Event()
        self._silent = False
        self._catch_up_lock = asyncio.Lock()
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    @property
    def waiting(self) -> int:
        """Bytes that were written and wait for the client to take them."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        """Bytes that the client's machine has taken so far."""
        return self._written - self.waiting

    def end(self) -> None:
        """Write nothing to the client from now on."""
        self._silent = True
        self._limit.forget(self)

    def cut(self) -> None:
        """End it at once, as what waits for it takes too much room."""
        self._end_slow()
        self._transport.abort()

    def _end_slow(self) -> None:
        self._silent = True
        self._limit.slow += not self.ended.is_set()
        self.ended.set()

    @asynccontextmanager
    async def catch_up_slot(self) -> AsyncIterator[None]:
        """To be told a source's past: one source at a time, and not before there is room."""
        async with self._catch_up_lock:
            while self.waiting > self._most:  # noqa: ASYNC110  (the transport's own word goes to aiohttp)
                await asyncio.sleep(_ROOM)
            await self._limit.room()
            yield

    def send(self, frames: list[Frame], shared: dict[str, bytes], source: str) -> None:
        """Write the frames, all of one source. ``shared``: bytes made for others of the same frames."""
        raise NotImplementedError

    def catch_up(self, frames: list[Frame], source: str) -> None:
        """Write a source's past: these bytes may wait beside the client's limit."""
        before = self._allowed
        self._allowed = 2**62
        self.send(frames, {}, source)
        self._allowed = max(before, self.waiting + self._most)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if self._silent or transport.is_closing():
            return
        transport.write(data)
        self._written += len(data)
        size = transport.get_write_buffer_size()
        if size > _LITTLE:
            self._limit.count(self, size)
        if size > self._allowed and not self._silent:
            self._end_slow()
        elif size <= self._most:
            self._allowed = self._most


class WebSocketConnection(Connection):
    """Writes each message as a text frame of its own."""

    def send(self, frames: list[Frame], shared: dict[str, bytes], source: str) -> None:  # noqa: ARG002
        """As :class:`Connection`."""
        data = shared.get("ws")
        if data is None:
            data = shared["ws"] = websocket_frames(frames)
        self._write(data)


class SseConnection(Connection):
    """One event a message. Of several sources, an event's id holds every one's cursor, in their order."""

    def __init__(self, transport: asyncio.Transport, limit: ConnectionLimit, sources: Sequence[str]) -> None:
        super().__init__(transport, limit)
        self._cursors = dict.fromkeys(sources, "")

    def _end_slow(self) -> None:
        super()._end_slow()
        self._transport.abort()  # it could not read a word of ours: it finds it broken, and resumes

    def send(self, frames: list[Frame], shared: dict[str, bytes], source: str) -> None:
        """As :class:`Connection`."""
        if len(self._cursors) == 1:
            data = shared.get("sse")
            if data is None:
                data = shared["sse"] = sse_chunk(frames)
            self._write(data)
            return
        for frame in frames:
            self._cursors[source] = frame.cursor or self._cursors[source]
            self._write(sse_chunk([frame], ",".join(self._cursors.values())))
