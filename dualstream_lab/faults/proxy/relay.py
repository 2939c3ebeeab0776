"""A port of the fault proxy and the connections through it, all within one event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from dualstream_lab.errors import StackError
from dualstream_lab.faults.evidence import Address
from dualstream_lab.faults.proxy.kafka_codec import KafkaCodec
from dualstream_lab.faults.proxy.toxics import BlackHole, Refuse, Reset, Road, Toxic
from dualstream_lab.stack.ports import HOST, free_ports

_BUFFER = 256 * 2**10  # bytes that may wait for an end which does not read
_BACKLOG = 1024
_MOST = 10_000  # ends
_DIAL = 10.0  # s
_SOON = 0.0005  # s: the loop's timers are no finer
_RST: Final = struct.pack("ii", 1, 0)  # linger for 0 s


class Relay:
    """Accepts on a free port of 127.0.0.1 and passes everything to ``upstream`` and back.

    Construction listens; the first :meth:`become` accepts. Without a toxic a connection ends at one side as
    it did at the other; a server that cannot be reached is seen as a reset after the connect. What is read is
    bounded: an end that does not read stops the other from being read. Where the ``codec`` of a connection
    raises ValueError or StackError it is reset.
    """

    def __init__(self, upstream: Address, *, codec: Callable[[], KafkaCodec | None]) -> None:
        self.upstream = upstream
        (self.port,) = free_ports(1)
        self.ends: set[_End] = set()
        self.toxic: Toxic | None = None
        self.outbound, self.inbound = Road(1), Road(2)
        self._codec = codec
        self._socket: socket.socket | None = _listen(self.port)
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._becoming = asyncio.Lock()

    async def close(self) -> None:
        """End everything: the port is closed and every connection reset."""
        self._shut()
        self._reset_all()
        for dial in self._dials:
            dial.cancel()
        if self._dials:
            await asyncio.wait(self._dials)
        await asyncio.sleep(0)
        while self.ends:  # noqa: ASYNC110  (the loop closes them in its next round)
            await asyncio.sleep(0)

    async def become(self, toxic: Toxic | None) -> None:
        """Exert this toxic on what passes; None: let it pass. What was on the way arrives first, and
        connections that lost bytes to the last toxic are reset.
        """
        async with self._becoming:
            for end in tuple(self.ends):
                end.flush()
                if end.lost or (end.mute and end.other is None):
                    end.reset()
                end.mute = isinstance(toxic, BlackHole)
            self.toxic = toxic
            self.outbound.become(toxic)
            self.inbound.become(toxic)
            if isinstance(toxic, (Reset, Refuse)):
                self._reset_all()
            if isinstance(toxic, Refuse):
                self._shut()
            elif self._server is None:
                self._socket = self._socket or _listen(self.port)
                self._server = await asyncio.get_running_loop().create_server(
                    lambda: _End(self, self.outbound, self._codec()), sock=self._socket, backlog=_BACKLOG
                )

    def _reset_all(self) -> None:
        for end in tuple(self.ends):
            end.reset()

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        self._server = self._socket = None

    def admit(self, client: _End) -> None:
        """Connect a client that came; or not, as the toxic says."""
        if isinstance(self.toxic, (Reset, Refuse)) or len(self.ends) > _MOST:
            client.reset()
        elif isinstance(self.toxic, BlackHole):
            client.mute = True
        else:
            dial = asyncio.get_running_loop().create_task(self._dial(client))
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)

    async def _dial(self, client: _End) -> None:
        try:
            async with asyncio.timeout(_DIAL):
                await asyncio.get_running_loop().create_connection(
                    lambda: _End(self, self.inbound, client.codec, client), *self.upstream
                )
        except (OSError, TimeoutError):
            client.reset()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        raise StackError(f"the fault proxy cannot listen on port {port}: {reason}") from error


class _End(asyncio.Protocol):
    """One end of a connection; what it reads goes down ``road`` to the other end."""

    transport: asyncio.Transport

    def __init__(
        self, relay: Relay, road: Road, codec: KafkaCodec | None, client: _End | None = None
    ) -> None:
        self.is_client = client is None
        self.codec = codec
        self.other = client
        self.mute = False
        self.blocked = False  # the other end takes no more
        self.lost = False  # bytes, or the word that it has ended
        self._relay = relay
        self._road = road
        self._queue: deque[tuple[float, bytes | None]] = deque()  # when it arrives, and what: None is the end
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reset = False
        self._received_eof = False
        self._sent_eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(_BUFFER)
        self._relay.ends.add(self)
        client = self.other
        if client is None:
            self._relay.admit(self)
        elif client.transport.is_closing():
            self.reset()
        else:
            client.other, self.mute = self, client.mute
            client.wake()  # what came before

    def data_received(self, data: bytes) -> None:
        if self.mute:
            self.lost = True
            return
        if self.codec is not None:
            try:
                data = self.codec.request(data) if self.is_client else self.codec.answer(data)
            except (ValueError, StackError):
                self.reset()
                return
            if not data:
                return
        self._send(data)

    def eof_received(self) -> bool:
        self._received_eof = True
        if not self.mute:
            self._send(None)
        self.lost = self.mute
        # It may still read, or is not to be told yet. Nothing is left to do for one that came into a hole.
        return self.other is not None or not self.mute

    def connection_lost(self, _error: Exception | None) -> None:
        self._relay.ends.discard(self)
        self._stop_timer()
        if self.other is None:
            return
        self.other.other = None
        if self.mute:
            self.other.lost = True
        elif not self.other.transport.is_closing():
            self.other.reset()

    def pause_writing(self) -> None:
        self._let_other_read(False)

    def resume_writing(self) -> None:
        self._let_other_read(True)

    def _let_other_read(self, may: bool) -> None:
        if self.other is not None:
            self.other.blocked = not may
            self.other.regulate()

    def regulate(self) -> None:
        """Read on only while there is room for it."""
        if self._received_eof or self.transport.is_closing():
            return
        full = self.blocked or self._held >= self._road.room
        if full and self.transport.is_reading():
            self.transport.pause_reading()
        elif not full and not self.transport.is_reading():
            self.transport.resume_reading()

    def reset(self) -> None:
        """End both ends with RST, also one that is closing but still has something to say."""
        self._queue.clear()
        self._held = 0
        if self._reset or self not in self._relay.ends:
            return
        self._reset = True
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self.transport.abort()
        if self.other is not None:
            self.other.reset()

    def flush(self) -> None:
        """Let what is on the way arrive now."""
        self._queue = deque((0.0, data) for _, data in self._queue)
        self.wake()

    def _send(self, data: bytes | None) -> None:
        if self._road.open and not self._queue and self.other is not None:
            self._arrive(data)
            return
        after = self._queue[-1][0] if self._queue else 0.0
        now = time.monotonic()
        for piece in self._road.slices(data) if data is not None else [None]:
            after = self._road.arrival(now, len(piece or b""), after)
            self._queue.append((after, piece))
            self._held += len(piece or b"")
        if self._timer is None:
            self.wake()
        self.regulate()

    def wake(self) -> None:
        """Pass on what has arrived by now, and come again for the rest. Nothing before there is a server."""
        self._stop_timer()
        if self.other is None:
            return
        now = time.monotonic()
        while self._queue and self._queue[0][0] <= now + _SOON:
            data = self._queue.popleft()[1]
            self._held -= len(data or b"")
            self._arrive(data)
        if self._queue:
            wait = self._queue[0][0] - now
            self._timer = asyncio.get_running_loop().call_later(wait, self.wake)
        self.regulate()

    def _arrive(self, data: bytes | None) -> None:
        """Give the other end what has arrived; None is the end."""
        other = self.other
        if other is None or other.transport.is_closing():
            return
        if data is not None:
            other.transport.write(data)
            return
        self._sent_eof = True
        if other._sent_eof:  # noqa: SLF001  (of its own class)
            self.transport.close()
            other.transport.close()
        else:
            other.transport.write_eof()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
