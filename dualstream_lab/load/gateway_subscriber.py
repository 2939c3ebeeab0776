"""Subscribers through a gateway, thousands in a process: one plain connection each, WebSocket or SSE.

A :class:`dualstream_lab.subscriber.Subscriber` has tasks, queues and an HTTP client each, and what those cost
a message would be measured as latency. So the bytes are read here, in the protocol's callback. What a message
means for the cursor is the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from dualstream_lab.cursor import Cursor, position_of
from dualstream_lab.errors import EventError, StreamUnavailable
from dualstream_lab.load.gateway_wire import (
    Incoming,
    SseIncoming,
    Transport,
    WsIncoming,
    pong,
    request,
    subscriptions,
)
from dualstream_lab.load.receive_recorder import ReceiveRecorder
from dualstream_lab.load.subscriber import Connection
from dualstream_lab.subscriber.progress import Progress, Recent
from dualstream_lab.subscriber.wanted import LATEST, checked_url
from dualstream_lab.subscriber.wire import WHOLE, Dropped, Message, decode

if TYPE_CHECKING:
    from yarl import URL


SOURCES_EACH: Final = {"ws": 100, "sse": 50}
"""Of one connection: a gateway's own limit; SSE has them in a URL."""

_RETRY: Final = 1.0  # s
_ANSWER: Final = 5.0
_READY: Final = 20.0


async def checked_gateway(url: str) -> URL:
    """The base URL of a gateway, if one is there, and ready within 20 s: its processor may have just begun.

    Raises ConfigError, StreamUnavailable.
    """
    base = checked_url(url)
    deadline = asyncio.get_running_loop().time() + _READY
    while True:
        status, said = await _readiness(url, base)
        if status == HTTPStatus.OK:
            return base
        if status != HTTPStatus.SERVICE_UNAVAILABLE or asyncio.get_running_loop().time() > deadline:
            raise StreamUnavailable(f"the gateway {url} is not ready: {status} {said}; check --gateway")
        await asyncio.sleep(_RETRY)


async def _readiness(url: str, base: URL) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=_ANSWER)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(base / "readyz") as answer:
            return answer.status, (await answer.content.read(500)).decode(errors="replace")
    except (aiohttp.ClientError, OSError) as error:
        reason = str(error) or f"no answer within {_ANSWER:g} s"
        raise StreamUnavailable(
            f"the gateway {url} could not be reached: {reason}; check --gateway"
        ) from error


class _Place:
    """How far one source of a connection has come; ``joined``: this connection has told its past."""

    __slots__ = ("_cursor", "joined", "progress")

    def __init__(self, source: str) -> None:
        self.progress = Progress(source, Recent(100))
        self.joined = False
        self._cursor = ""

    def confirm(self, cursor: str) -> None:
        """As the gateway told. Most events have the cursor of the one before."""
        if cursor != self._cursor:
            self._cursor = cursor
            self.progress.confirm(Cursor.parse(cursor))

    def restart(self, cursor: str) -> None:
        """The gateway goes on from there, whatever was told before."""
        self._cursor = cursor
        self.progress.restart(Cursor.parse(cursor))


class GatewaySubscriber(Connection):
    """One connection that follows ``sources``, resuming with its cursors.

    ``on_message`` gets every event once, from its ``id`` on like a notification of Redis. It is ``ready``
    while all sources are subscribed. ``recovered`` counts the events that were found by repair, ``gaps`` the
    times that the gateway could not tell what was missed. ``ranks``: of the sources, for whom ``listening``
    is told. ``options``: as of :class:`Connection`.
    """

    peer = "the gateway"

    def __init__(
        self, base: URL, sources: Sequence[str], on_message: Callable[[int, bytes, int], None], *,
        via: Transport, ranks: Sequence[int] = (), **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(on_message, sources=ranks, **options)
        self._base = base
        self._places = {source: _Place(source) for source in sources}
        self._via: Transport = via
        self._incoming: Incoming = WsIncoming()
        self.recovered = 0
        self.gaps = 0

    @property
    def epoch(self) -> str | None:
        """The epoch of the log that the gateway serves, once it has told a cursor."""
        cursors = (place.progress.confirmed for place in self._places.values())
        return next((cursor.epoch for cursor in cursors if cursor is not None), None)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._incoming = WsIncoming() if self._via == "ws" else SseIncoming()
        for place in self._places.values():
            place.joined = False
        secure = self._base.scheme == "https"
        transport, _ = await loop.create_connection(
            lambda: self, self._base.host or "", self._base.port or 0, ssl=secure or None
        )
        self._transport = transport
        transport.write(request(self._base, self._via, self._cursors()))

    def _cursors(self) -> dict[str, str]:
        cursors = {source: place.progress.confirmed for source, place in self._places.items()}
        return {source: LATEST if cursor is None else str(cursor) for source, cursor in cursors.items()}

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come from the gateway."""
        now = time.monotonic_ns()
        incoming, transport = self._incoming, self._transport
        if transport is None:
            return
        opened = incoming.opened
        try:
            for text in incoming.feed(data):
                self._take(text, now)
        except (Dropped, EventError, ValueError) as error:
            self.trouble = str(error)
            transport.abort()
            return
        if incoming.opened and not opened and self._via == "ws":
            transport.write(subscriptions(self._cursors()))
        while incoming.pings:
            transport.write(pong(incoming.pings.pop()))
        self._pause_if_slow(transport)

    def _take(self, text: bytes, now: int) -> None:
        message = decode(text)
        if message.kind == "error":
            raise Dropped(message.error or "an error")
        place = self._places.get(message.source or "")
        if place is None:
            return
        if message.kind == "event" and message.id and message.pos:
            fresh = place.progress.fresh(message.id, position_of(message.pos))
            if message.cursor and (message.old or place.joined) and not message.late:
                place.confirm(message.cursor)
            if fresh:
                self.recovered += message.late
                self._on_message(self.number, b"{" + text[text.index(b'"id":') :], now)
        elif message.kind == "subscribed":
            self._subscribed(place, message, now)
        elif message.kind == "sync" and message.cursor:
            place.confirm(message.cursor)

    def _subscribed(self, place: _Place, message: Message, now: int) -> None:
        if not message.recovered and message.reason not in WHOLE and place.progress.confirmed is not None:
            self.gaps += 1
        if message.cursor:
            place.restart(message.cursor)
        place.joined = True
        if not self.ready.is_set() and all(one.joined for one in self._places.values()):
            self._confirm(now)


class GatewayReceiveRecorder(ReceiveRecorder):
    """What clients get through a gateway: live, and later, as rows of ``caught_up``.

    ``live_delay`` (Kafka's ack to delivered) is of what came live; ``live`` ends with either. There are no
    running numbers in it to find holes by: counted is what the gateway says, ``gaps`` and ``recovered``.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, also={"caught_up": options.get("every", 1)}, **options)
        self._counted = {"gaps": 0, "recovered": 0}
        self._caught_up: list[tuple[int, int, int, bool]] = []

    def __call__(self, number: int, message: bytes, now: int) -> None:
        """Client ``number`` got an event at ``now`` (ns, monotonic): live, or recovered."""
        # These bytes cannot be within a text: a quote is escaped there.
        late = b'"late":' in message
        if not late and b'"old":' not in message:
            super().__call__(number, message, now)
        elif (seq := self._arrived(message, now)) is not None:
            self._caught_up.append((seq, now, number, late))

    def _inspect(self, number: int, message: bytes, now: int) -> None:  # noqa: ARG002
        at = message.find(b'"ts":')
        if at >= 0 and message.endswith(b"}"):
            self._spent["live_delay"].append(max(0, now + self._wall - int(message[at + 5 : -1])))

    def collect(self) -> None:
        """Put what was received live and later into rows, and the gaps into counters."""
        super().collect()
        self.meter.count("caught_up", len(self._caught_up))
        self.row_tuples("caught_up", ("seq", "at", "subscriber", "by_repair"), self._caught_up)
        for name, before in self._counted.items():
            total = sum(getattr(one, name) for one in self.subscribers)
            self.meter.count(name, total - before)
            self._counted[name] = total
        self.meter.level("delivered.via_gateway", 1)
