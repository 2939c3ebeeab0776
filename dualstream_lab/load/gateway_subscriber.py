"""Subscribers through a gateway, thousands in a process: one plain connection each, WebSocket or SSE.

A :class:`dualstream_lab.subscriber.Subscriber` has tasks, queues and an HTTP client each, and what those cost
a message would be measured as latency. So the bytes are read here, in the protocol's callback. What a message
means for the cursor is the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import numpy as np

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import EventError, StreamUnavailable
from dualstream_lab.load.gateway_wire import Incoming, SseIncoming, WsIncoming, pong, request, subscriptions
from dualstream_lab.load.hearing import Hearing
from dualstream_lab.recording import Ending
from dualstream_lab.subscriber.progress import Progress, Recent
from dualstream_lab.subscriber.wanted import LATEST, checked_url
from dualstream_lab.subscriber.wire import WHOLE, Dropped, Message, decode, position_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from yarl import URL

    from dualstream_lab.load.gateway_wire import Transport
    from dualstream_lab.load.subscriber import Presence

__all__ = ["SOURCES_EACH", "GatewayHearing", "GatewaySubscriber", "checked_gateway"]

SOURCES_EACH: Final = {
    "ws": 100,
    "sse": 50,
}  # of one connection: a gateway's own limit; SSE has them in a URL

_BACKOFF: Final = (0.02, 1.0)  # s: of the first retry, and at most
_CONNECT_TIMEOUT: Final = 10.0
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
        await asyncio.sleep(_BACKOFF[1])


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


class GatewaySubscriber(asyncio.Protocol):
    """One connection that follows ``sources`` and listens, for ever, resuming with its cursors.

    ``heard(subscriber, message, now)`` gets every event once, from its ``id`` on like a notification of
    Redis; ``now`` is when its bytes were read (ns, monotonic). ``slow``: s that it stops reading after every
    read. ``stay``: s after which it leaves and comes again. ``ready`` is set while all sources are
    subscribed; ``lost`` counts connections that ended without being asked to, ``late`` the events that were
    found by repair, ``gaps`` the times that the gateway could not tell what was missed; ``trouble`` is why
    it could not connect, the last time. ``listening(subscriber, begin, end, ending)`` is told each stretch in
    which it was ``ready``, when it begins (``end`` 0) and when it ends (ns, monotonic); ``ranks``: of the
    sources, for whom it is told.
    """

    def __init__(
        self,
        base: URL,
        sources: Sequence[str],
        heard: Callable[[int, bytes, int], None],
        *,
        via: Transport,
        number: int = 0,
        slow: float = 0.0,
        stay: float | None = None,
        listening: Presence | None = None,
        ranks: Sequence[int] = (),
    ) -> None:
        self._base = base
        self._places = {source: _Place(source) for source in sources}
        self._heard = heard
        self._via: Transport = via
        self._listening = listening
        self.number = number
        self.sources = ranks
        self._ready_since = 0
        self._slow = slow
        self._stay = stay
        self._transport: asyncio.Transport | None = None
        self._incoming: Incoming = WsIncoming()
        self._settled = asyncio.Event()  # ready, or over
        self._ended = asyncio.Event()
        self.ready = asyncio.Event()
        self.lost = 0
        self.joined = 0
        self.late = 0
        self.gaps = 0
        self.trouble = ""

    @property
    def epoch(self) -> str | None:
        """Which log the gateway serves, once it has told."""
        told = (place.progress.confirmed for place in self._places.values())
        return next((cursor.epoch for cursor in told if cursor is not None), None)

    async def run(self) -> None:
        """Until cancelled."""
        backoff = _BACKOFF[0]
        while True:
            ending = Ending.LOST
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    await self._connect()
                    await self._settled.wait()
                if self.ready.is_set():
                    backoff = _BACKOFF[0]
                    try:
                        async with asyncio.timeout(self._stay):
                            await self._ended.wait()
                    except TimeoutError:
                        ending = Ending.LEFT
            except (OSError, TimeoutError) as error:
                self.trouble = str(error) or f"no answer within {_CONNECT_TIMEOUT:g} s"
            except asyncio.CancelledError:
                ending = Ending.CLOSED
                raise
            finally:
                self._leave(ending)
            # spread, so that thousands do not return in one moment
            await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311
            backoff = min(backoff * 2, _BACKOFF[1])

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._ended.clear()
        self._settled.clear()
        self._incoming = WsIncoming() if self._via == "ws" else SseIncoming()
        for place in self._places.values():
            place.joined = False
        secure = self._base.scheme == "https"
        transport, _ = await loop.create_connection(
            lambda: self, self._base.host or "", self._base.port or 0, ssl=secure or None
        )
        self._transport = transport
        transport.write(request(self._base, self._via, self._since()))

    def _since(self) -> dict[str, str]:
        told = ((source, place.progress.confirmed) for source, place in self._places.items())
        return {source: LATEST if cursor is None else str(cursor) for source, cursor in told}

    def _leave(self, ending: Ending) -> None:
        self.over(ending, time.monotonic_ns())
        self.ready.clear()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def over(self, ending: Ending, now: int) -> None:
        """As :class:`Listening`."""
        since, self._ready_since = self._ready_since, 0
        if since and self._listening is not None:
            self._listening(self, since, now, ending)

    def data_received(self, data: bytes) -> None:
        """Bytes from the gateway."""
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
            transport.write(subscriptions(self._since()))
        while incoming.pings:
            transport.write(pong(incoming.pings.pop()))
        if self._slow:
            transport.pause_reading()
            asyncio.get_running_loop().call_later(self._slow, self._resume, transport)

    @staticmethod
    def _resume(transport: asyncio.Transport) -> None:
        with suppress(RuntimeError):
            transport.resume_reading()

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
                self.late += message.late
                self._heard(self.number, b"{" + text[text.index(b'"id":') :], now)
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
            self.joined += 1
            self._ready_since = now
            if self._listening is not None:
                self._listening(self, now, 0, Ending.OPEN)
            self.ready.set()
            self._settled.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended: :meth:`run` makes a new one."""
        if self._transport is not None:  # not asked to
            self.lost += self.ready.is_set()
            self.trouble = self.trouble or str(exc or "the gateway closed the connection")
            self.over(Ending.LOST, time.monotonic_ns())
        self._settled.set()
        self._ended.set()


class GatewayHearing(Hearing):
    """What is heard through a gateway: what was told live; and what was not, as rows of ``caught_up``.

    ``live_delay`` (Kafka's ack to heard) is of what was told live; ``live`` ends with either. There are no
    running numbers in it to find holes by: counted is what the gateway says, ``gaps`` and ``late``.
    """

    def __init__(self, *where: Any, **options: Any) -> None:
        super().__init__(*where, also={"caught_up": options.get("every", 1)}, **options)
        self._told = {"gaps": 0, "late": 0}
        self._caught_up: list[tuple[int, int, int, bool]] = []

    def __call__(self, number: int, message: bytes, now: int) -> None:
        """As of every Hearing."""
        # These bytes cannot be within a text: a quote is escaped there.
        late = b'"late":' in message
        if not late and b'"old":' not in message:
            super().__call__(number, message, now)
        elif (seq := self._arrived(message, now)) is not None:
            self._caught_up.append((seq, now, number, late))

    def _look(self, number: int, message: bytes, now: int) -> None:  # noqa: ARG002
        at = message.find(b'"ts":')
        if at >= 0 and message.endswith(b"}"):
            self._spent["live_delay"].append(max(0, now + self._wall - int(message[at + 5 : -1])))

    def collect(self) -> None:
        """As of every Hearing."""
        super().collect()
        self.meter.count("caught_up", len(self._caught_up))
        columns = np.array(self._caught_up, np.int64).reshape(-1, 4).T
        self._caught_up = []
        names = ("seq", "at", "subscriber", "late")
        self.rows(kind="caught_up", **dict(zip(names, columns, strict=True)))
        for name, before in self._told.items():
            total = sum(getattr(one, name) for one in self.subscribers)
            self.meter.count(name, total - before)
            self._told[name] = total
        self.meter.level("heard.via_gateway", 1)
