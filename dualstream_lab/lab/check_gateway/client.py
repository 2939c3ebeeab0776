"""A client that comes and goes: it follows sources, drops in every way there is, and resumes with its last
cursor.

It believes nothing: every message is recorded as it came, repeats and all. What the messages are worth is
found out by :mod:`judge`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from dualstream_lab.lab.check_gateway.history import (
    EVENT,
    LATE,
    NOWHERE,
    OLD,
    REFUSED,
    STATE,
    SUBSCRIBED,
    Stay,
)
from dualstream_lab.lab.check_gateway.incoming import CLOSE, IdentifiedEvents
from dualstream_lab.load.gateway_wire import WsIncoming, pong, request, subscriptions
from dualstream_lab.subscriber.wire import Dropped, Message, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from yarl import URL

    from dualstream_lab.load.gateway_wire import Incoming, Transport

__all__ = ["Client", "Names", "Place", "first_of"]

_CONNECT: Final = 10.0  # s
_GOODBYE: Final = 0.5  # s for the other side to end a connection
_RETRY: Final = (0.1, 1.0)  # s
_GARBLED: Final = 20  # messages of that kind that are kept
_ENDS: Final = ("politely", "aborted", "in mid-frame")


class Names:
    """Event ids as numbers: a record of a million deliveries holds each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, event_id: str) -> int:
        """The id's number."""
        return self._numbers.setdefault(event_id, len(self._numbers))

    def texts(self) -> list[str]:
        """By number."""
        return list(self._numbers)


class Place:
    """A source that a client follows. ``cursor``: the last that it was given, or where it begins."""

    __slots__ = ("cursor", "joined", "offset", "source", "stays")

    def __init__(self, source: str, begin: str) -> None:
        self.source = source
        self.cursor = begin
        self.offset = -1 if begin == "earliest" else NOWHERE
        self.stays: list[Stay] = []
        self.joined = False

    def begin(self) -> None:
        """On a new connection."""
        self.joined = False
        since = None if self.offset == NOWHERE else self.offset
        self.stays.append(Stay(since, time.monotonic()))

    def confirm(self, cursor: str) -> int:
        """The cursor that came; its offset. Raises ValueError for one of another log, or none at all."""
        log, _, offset = cursor.rpartition(":")
        if ":" in self.cursor and log != self.cursor.rpartition(":")[0]:
            raise ValueError(f"cursor {cursor} after {self.cursor}: another log, or another partition")
        self.offset = int(offset)
        self.cursor = cursor
        return self.offset


class _Line(asyncio.Protocol):
    """One connection. ``cut``: take only a part of what comes next, and be gone."""

    def __init__(self, client: Client, incoming: Incoming) -> None:
        self._client = client
        self._incoming = incoming
        self.transport: asyncio.Transport
        self.ended = asyncio.Event()
        self.cut = 0.0
        self.leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
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
            ids = incoming.ids if isinstance(incoming, IdentifiedEvents) else None
            for place, text in enumerate(texts):
                self._client.take(text, None if ids is None else ids[place], now)
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
        if not self.ended.is_set():
            self._client.dropped(str(exc or "the gateway closed the connection"), expected=self.leaving)
            self.ended.set()

    def end(self) -> None:
        """Without a word."""
        self.ended.set()
        self.transport.abort()


class Client:
    """Follows ``sources`` by one connection at a time, beginning at ``begin`` (``latest``, ``earliest``).

    ``restless``: it drops after a while, is away for a while, and comes again, until ``calm`` is set; the
    others stay. ``connected``: it is, and every source's past was told. ``ends`` counts how connections
    ended; ``garbled`` are messages that are not the wire's, ``trouble`` why it could not connect, the last
    time.
    """

    def __init__(
        self,
        base: URL,
        sources: Sequence[str],
        *,
        via: Transport,
        begin: str,
        restless: bool,
        names: Names,
        random: Random,
        calm: asyncio.Event,
    ) -> None:
        self._base = base
        self.via: Transport = via
        self.places = {source: Place(source, begin) for source in sources}
        self._restless = restless
        self._names = names
        self._random = random
        self._calm = calm
        self._joined = asyncio.Event()
        self._line: _Line | None = None
        self.begun = 0
        self.told = 0
        self.ends: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.garbled: list[str] = []
        self.trouble = ""

    @property
    def connected(self) -> bool:
        """Whether it is, with its past."""
        return self._joined.is_set() and self._line is not None and not self._line.ended.is_set()

    def settled(self, last: Mapping[str, int]) -> bool:
        """Whether it is connected and every source's last event is confirmed to it."""
        return self.connected and all(place.offset >= last[name] for name, place in self.places.items())

    async def run(self, wait: float) -> None:
        """From ``wait`` s on, until cancelled."""
        await first_of(wait, self._calm)
        try:
            while True:
                line = await self._connect()
                if self._restless and not self._calm.is_set():
                    await self._stay(line)
                if self._calm.is_set() or not self._restless:
                    await line.ended.wait()
                if not line.ended.is_set():
                    await self._drop(line)
                await first_of(self._random.expovariate(2.0), self._calm)
        finally:
            if self._line is not None:
                self._line.end()
            self._ended("open")

    async def _connect(self) -> _Line:
        loop = asyncio.get_running_loop()
        while True:
            self._joined.clear()
            for place in self.places.values():
                place.begin()
            since = {source: place.cursor for source, place in self.places.items()}
            incoming = WsIncoming() if self.via == "ws" else IdentifiedEvents()
            secure = self._base.scheme == "https" or None
            try:
                async with asyncio.timeout(_CONNECT):
                    _, line = await loop.create_connection(
                        lambda: _Line(self, incoming),  # noqa: B023
                        self._base.host or "",
                        self._base.port or 0,
                        ssl=secure,
                    )
            except (OSError, TimeoutError) as error:
                self.trouble = str(error) or f"no answer within {_CONNECT:g} s"
                self._ended("never connected")
                await asyncio.sleep(self._random.uniform(*_RETRY))
                continue
            self._line = line
            self.begun += 1
            line.transport.write(request(self._base, self.via, since))
            return line

    async def _stay(self, line: _Line) -> None:
        """Most wait for their past, and then for a moment; some leave whenever it is."""
        if self._random.random() < 0.7:
            await first_of(_CONNECT, self._joined, line.ended, self._calm)
        await first_of(self._random.expovariate(1.0), line.ended, self._calm)

    async def _drop(self, line: _Line) -> None:
        how = self._random.choice(_ENDS)
        line.leaving = True
        if how == "politely":
            if self.via == "ws":
                line.transport.write(CLOSE)
            else:
                line.transport.close()
            await first_of(_GOODBYE, line.ended)
        elif how == "in mid-frame":
            line.cut = self._random.uniform(0.01, 0.99)
            await first_of(_GOODBYE, line.ended)
        line.end()
        self._ended(how)

    def _ended(self, how: str) -> None:
        stays = [place.stays[-1] for place in self.places.values() if place.stays]
        if stays and not stays[0].ended:
            self.ends[how] += 1
            for stay in stays:
                stay.ended = how

    # --- what the connection says

    def opened(self, transport: asyncio.Transport) -> None:
        """The gateway took the request."""
        if self.via == "ws":
            transport.write(subscriptions({source: place.cursor for source, place in self.places.items()}))

    def dropped(self, why: str, *, expected: bool) -> None:
        """The gateway ended it."""
        if not expected:
            self.trouble = why
            self._ended("by the gateway")

    def misunderstood(self, why: str) -> None:
        """It says what is not the wire's."""
        if len(self.garbled) < _GARBLED:
            self.garbled.append(why)
        self._ended("misunderstood")

    def take(self, text: bytes, resume: str | None, now: float) -> None:
        """A message, and (SSE) the stream's id with it. Raises ValueError, Dropped."""
        try:
            message = decode(text)
        except Dropped as error:
            raise ValueError(f"{error}: {text[:200].decode(errors='replace')}") from error
        place = self.places.get(message.source or "")
        if message.kind == "error":
            self.errors[message.error or "?"] += 1
            raise Dropped(f"the gateway says: {message.error}")
        if place is None:
            raise ValueError(f"a message of a source that was not asked for: {text[:200].decode()}")
        self._record(place, message, self._cursors(place, message, resume), now)

    def _cursors(self, place: Place, message: Message, resume: str | None) -> int:
        """Where the client would resume from now on; the place of it in this source."""
        if self.via == "ws":
            return place.confirm(message.cursor) if message.cursor else NOWHERE
        if not resume:
            return NOWHERE
        cursors = resume.split(",")
        if len(cursors) != len(self.places):
            raise ValueError(f"the id {resume!r} has {len(cursors)} cursors for {len(self.places)} sources")
        for one, cursor in zip(self.places.values(), cursors, strict=True):
            if cursor and cursor != one.cursor:
                one.confirm(cursor)
        return place.offset

    def _record(self, place: Place, message: Message, cursor: int, now: float) -> None:
        stay = place.stays[-1]
        if message.kind == "event":
            if message.id is None:
                raise ValueError("an event without an id")
            self.told += 1
            at = NOWHERE if message.pos is None else int(message.pos.rpartition(":")[2])
            kind = LATE if message.late else OLD if message.old else EVENT
            stay.add(kind, event=self._names(message.id), place=at, cursor=cursor, at=now)
            return
        if message.kind != "subscribed":
            stay.add(STATE, cursor=cursor, at=now)
            return
        refused = not message.recovered and stay.since is not None
        if refused:
            stay.refused.append(message.reason or "no reason given")
        stay.add(REFUSED if refused else SUBSCRIBED, cursor=cursor, at=now)
        place.joined = True
        if all(one.joined for one in self.places.values()):
            self._joined.set()


async def first_of(seconds: float, *events: asyncio.Event) -> None:
    """Until one of them is set, or for so many seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
