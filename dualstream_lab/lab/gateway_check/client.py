"""A client that comes and goes: it follows sources, drops in every way there is, and resumes with its last
cursor.

It believes nothing: every message is recorded as it came, repeats and all. What the messages are worth is
found out by :mod:`judge`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

from dualstream_lab.lab.gateway_check.connection import Line
from dualstream_lab.lab.gateway_check.history import EVENT, LATE, OLD, REFUSED, STATE, SUBSCRIBED
from dualstream_lab.lab.gateway_check.incoming import CLOSE, IdentifiedEvents
from dualstream_lab.lab.gateway_check.position import Place
from dualstream_lab.load.gateway_wire import WsIncoming, request, subscriptions
from dualstream_lab.subscriber.wire import WHOLE, Dropped, Message, decode, position_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from yarl import URL

    from dualstream_lab.lab.gateway_check.position import Names
    from dualstream_lab.load.gateway_wire import Transport

__all__ = ["Client"]

_CONNECT: Final = 10.0  # s
_GOODBYE: Final = 0.5  # s for the other side to end a connection
_RETRY: Final = (0.1, 1.0)  # s
_GARBLED: Final = 20  # messages of that kind that are kept
_ENDS: Final = ("politely", "aborted", "in mid-frame")


class Client:
    """Follows ``sources`` by one connection at a time, beginning at ``begin`` (``latest``, ``earliest``).

    ``restless``: it drops after a while, is away for a while, and comes again, until ``calm`` is set; the
    others stay. At most ``most`` deliveries are recorded. ``connected``: it is, and every source's past was
    told. ``ends`` counts how connections ended; ``garbled`` are messages that are not the wire's,
    ``trouble`` why it could not connect, the last time.
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
        most: int,
    ) -> None:
        self._base = base
        self.via: Transport = via
        self.places = {source: Place(source, begin) for source in sources}
        self._restless = restless
        self._names = names
        self._random = random
        self._calm = calm
        self._most = most
        self._joined = asyncio.Event()
        self._line: Line | None = None
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

    def settled(self, last: Mapping[str, Mapping[int, int]]) -> bool:
        """Whether it is connected and every source's last event, of each partition, is confirmed to it."""
        return self.connected and all(place.reached(last[name]) for name, place in self.places.items())

    async def run(self, wait: float) -> None:
        """From ``wait`` s on, until cancelled."""
        await _first_of(wait, self._calm)
        try:
            while True:
                line = await self._connect()
                if self._restless and not self._calm.is_set():
                    await self._stay(line)
                if self._calm.is_set() or not self._restless:
                    await line.ended.wait()
                if not line.ended.is_set():
                    await self._drop(line)
                await _first_of(self._random.expovariate(2.0), self._calm)
        finally:
            if self._line is not None:
                self._line.end()
            self._ended("open")

    async def _connect(self) -> Line:
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
                        lambda: Line(self, incoming),  # noqa: B023
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

    async def _stay(self, line: Line) -> None:
        """Most wait for their past, and then for a moment; some leave whenever it is."""
        if self._random.random() < 0.7:
            await _first_of(_CONNECT, self._joined, line.ended, self._calm)
        await _first_of(self._random.expovariate(1.0), line.ended, self._calm)

    async def _drop(self, line: Line) -> None:
        how = self._random.choice(_ENDS)
        line.leaving = True
        if how == "politely":
            if self.via == "ws":
                line.transport.write(CLOSE)
            else:
                line.transport.close()
            await _first_of(_GOODBYE, line.ended)
        elif how == "in mid-frame":
            line.cut = self._random.uniform(0.01, 0.99)
            await _first_of(_GOODBYE, line.ended)
        line.end()
        self._ended(how)

    def _ended(self, how: str) -> None:
        sessions = [place.sessions[-1] for place in self.places.values() if place.sessions]
        if sessions and not sessions[0].ended:
            self.ends[how] += 1
            for session in sessions:
                session.ended = how

    # --- what the connection says

    def opened(self, transport: asyncio.Transport) -> None:
        """As of an Ear."""
        if self.via == "ws":
            transport.write(subscriptions({source: place.cursor for source, place in self.places.items()}))

    def dropped(self, why: str, *, expected: bool) -> None:
        """As of an Ear."""
        if not expected:
            self.trouble = why
            self._ended("by the gateway")

    def misunderstood(self, why: str) -> None:
        """As of an Ear."""
        if len(self.garbled) < _GARBLED:
            self.garbled.append(why)
        self._ended("misunderstood")

    def take(self, text: bytes, resume: str | None, now: float) -> None:
        """As of an Ear."""
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

    def _cursors(self, place: Place, message: Message, resume: str | None) -> Mapping[int, int] | None:
        """Where the client would resume from now on; what that confirms of this source."""
        if self.via == "ws":
            return place.confirm(message.cursor) if message.cursor else None
        if not resume:
            return None
        cursors = resume.split(",")
        if len(cursors) != len(self.places):
            raise ValueError(f"the id {resume!r} has {len(cursors)} cursors for {len(self.places)} sources")
        for one, cursor in zip(self.places.values(), cursors, strict=True):
            if cursor and cursor != one.cursor:
                one.confirm(cursor)
        return place.offsets

    def _record(self, place: Place, message: Message, cursor: Mapping[int, int] | None, now: float) -> None:
        session = place.sessions[-1]
        if message.kind == "event":
            if message.id is None:
                raise ValueError("an event without an id")
            self.told += 1
            if self.told > self._most:
                raise ValueError(f"more events than were published: client told of over {self._most:,}")
            position = position_of(message.pos)
            if message.pos is not None and position is None:
                raise ValueError(f"a position {message.pos!r}")
            kind = LATE if message.late else OLD if message.old else EVENT
            session.add(kind, event=self._names(message.id), position=position, cursor=cursor, at=now)
            return
        if message.kind != "subscribed":
            session.add(STATE, cursor=cursor, at=now)
            return
        whole = message.recovered or message.reason in WHOLE  # what is told then is whole up to the cursor
        refused = not whole and session.since is not None
        if refused:
            session.refused.append(message.reason or "no reason given")
        session.add(REFUSED if refused else SUBSCRIBED, cursor=cursor, at=now)
        place.joined = True
        if all(one.joined for one in self.places.values()):
            self._joined.set()


async def _first_of(seconds: float, *events: asyncio.Event) -> None:
    """Until one of them is set, or for so many seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
