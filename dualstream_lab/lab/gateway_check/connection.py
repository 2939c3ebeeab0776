"""One connection, read as it comes: as much of it as the client cares to take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol, cast

from dualstream_lab.load.gateway_wire import Incoming, SseIncoming, pong
from dualstream_lab.subscriber.wire import Dropped, ServerEvent, SseParser

CLOSE: Final = b"\x88\x82\0\0\0\0\x03\xe8"
"""A client's WebSocket frame: it leaves, normally (1000)."""


class _Parser(SseParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        events = super().feed(chunk)
        self.ids += [event.id for event in events]
        return events


class IdentifiedEvents(SseIncoming):
    """A reader of SSE that keeps what the load's own leaves out: ``ids``, from which each message of the last
    call of :meth:`feed` the stream would be resumed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parser = parser = _Parser()
        self.ids = parser.ids

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete."""
        self.ids.clear()
        return super().feed(data)


class _Client(Protocol):
    def opened(self, transport: asyncio.Transport) -> None:
        """The gateway accepted the connection."""

    def take(self, text: bytes, resume: str | None, now: float) -> None:
        """A message came, and (SSE) the stream's id with it. Raises ValueError, Dropped."""

    def dropped(self, why: str, *, expected: bool) -> None:
        """The gateway ended the connection."""

    def misunderstood(self, why: str) -> None:
        """The gateway sent what is not of the wire protocol."""


class Connection(asyncio.Protocol):
    """One connection to a gateway, whose messages its client takes.

    ``cut``: where it is not 0, that share of the next bytes is taken, and the connection aborted;
    ``leaving``: the client has said that it goes.
    """

    def __init__(self, client: _Client, incoming: Incoming) -> None:
        self._client = client
        self._incoming = incoming
        self.transport: asyncio.Transport
        self.ended = asyncio.Event()
        self.cut = 0.0
        self.leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open; asyncio calls it."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Give the client the messages that these bytes complete, and answer pings."""
        if self.ended.is_set():
            return
        now, incoming = time.monotonic(), self._incoming
        if self.cut:
            data = data[: int(len(data) * self.cut)]
        opened = incoming.opened
        try:
            texts = incoming.feed(data)
            if incoming.opened and not opened:
                self._client.opened(self.transport)
            ids: Sequence[str | None] = [None] * len(texts)
            if isinstance(incoming, IdentifiedEvents):
                ids = incoming.ids
            for text, resume in zip(texts, ids, strict=True):
                self._client.take(text, resume, now)
        except Dropped as error:
            self._client.dropped(str(error), expected=self.leaving)
            self.end()
        except ValueError as error:
            self._client.misunderstood(str(error))
            self.end()
        while incoming.pings and not self.ended.is_set():
            self.transport.write(pong(incoming.pings.pop()))
        if self.cut:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed; asyncio calls it."""
        if not self.ended.is_set():
            self._client.dropped(str(exc or "the gateway closed the connection"), expected=self.leaving)
            self.ended.set()

    def end(self) -> None:
        """Abort the connection, without telling the gateway."""
        self.ended.set()
        self.transport.abort()
