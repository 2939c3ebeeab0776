"""One connection, read as it comes: as much of it as the client cares to take."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol, cast

from dualstream_lab.lab.gateway_check.incoming import IdentifiedEvents
from dualstream_lab.load.gateway_wire import pong
from dualstream_lab.subscriber.wire import Dropped

if TYPE_CHECKING:
    from dualstream_lab.load.gateway_wire import Incoming

__all__ = ["Line"]


class Ear(Protocol):
    """Who is told."""

    def opened(self, transport: asyncio.Transport) -> None:
        """The gateway took the request."""

    def take(self, text: bytes, resume: str | None, now: float) -> None:
        """A message, and (SSE) the stream's id with it. Raises ValueError, Dropped."""

    def dropped(self, why: str, *, expected: bool) -> None:
        """The gateway ended it."""

    def misunderstood(self, why: str) -> None:
        """It says what is not the wire's."""


class Line(asyncio.Protocol):
    """One connection. ``cut``: take only a part of what comes next, and be gone."""

    def __init__(self, ear: Ear, incoming: Incoming) -> None:
        self._ear = ear
        self._incoming = incoming
        self.transport: asyncio.Transport
        self.ended = asyncio.Event()
        self.cut = 0.0
        self.leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of every Protocol."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes from the gateway."""
        if self.ended.is_set():
            return
        now, incoming = time.monotonic(), self._incoming
        if self.cut:
            data = data[: int(len(data) * self.cut)]
        opened = incoming.opened
        try:
            texts = incoming.feed(data)
            if incoming.opened and not opened:
                self._ear.opened(self.transport)
            ids = incoming.ids if isinstance(incoming, IdentifiedEvents) else None
            for place, text in enumerate(texts):
                self._ear.take(text, None if ids is None else ids[place], now)
        except Dropped as error:
            self._ear.dropped(str(error), expected=self.leaving)
            self.end()
        except ValueError as error:
            self._ear.misunderstood(str(error))
            self.end()
        while incoming.pings and not self.ended.is_set():
            self.transport.write(pong(incoming.pings.pop()))
        if self.cut:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if not self.ended.is_set():
            self._ear.dropped(str(exc or "the gateway closed the connection"), expected=self.leaving)
            self.ended.set()

    def end(self) -> None:
        """Without a word."""
        self.ended.set()
        self.transport.abort()
