"""A client that comes and goes: it follows sources, drops in every way there is, and resumes with its last
cursor.

It believes nothing: every message is recorded as it came, repeats and all. What the messages are worth is
found out by :mod:`judge`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from dualstream_lab.cursor import Cursor, position_of
from dualstream_lab.lab.gateway_check.connection import CLOSE, Connection, IdentifiedEvents
from dualstream_lab.lab.gateway_check.history import (
    EVENT,
    OLD,
    RECOVERED,
    REFUSED,
    STATE,
    SUBSCRIBED,
    Session,
)
from dualstream_lab.load.gateway_wire import Transport, WsIncoming, request, subscriptions
from dualstream_lab.subscriber.wire import WHOLE, Dropped, Message, decode

if TYPE_CHECKING:
    from yarl import URL


_CONNECT: Final = 10.0  # s
_GOODBYE: Final = 0.5  # s for the other side to end a connection
_RETRY: Final = (0.1, 1.0)  # s
_GARBLED: Final = 20  # messages of that kind that are kept
_ENDS: Final = ("politely", "aborted", "in mid-frame")


class _Followed:
    """A source that a client follows. ``cursor``: the last one that it was given, or where it begins;
    ``offsets``: by partition, the offset that this confirms; None where it confirms nothing.
    """

    def __init__(self, begin: str) -> None:
        self.cursor = begin
        self.offsets: Mapping[int, int] | None = {} if begin == "earliest" else None
        self.sessions: list[Session] = []
        self.joined = False
        self._epoch = ""

    def begin(self) -> None:
        """Begin a session on a new connection."""
        self.joined = False
        self.sessions.append(Session(self.offsets, time.monotonic()))

    def confirm(self, text: str) -> Mapping[int, int]:
        """Take a cursor, and return its offsets. Raises ValueError for one of another log, or none at all."""
        if text == self.cursor and self.offsets is not None:
            return self.offsets
        cursor = Cursor.parse(text)
        if self._epoch not in {"", cursor.epoch}:
            raise ValueError(f"cursor {text} after {self.cursor}: another log")
        self.cursor, self.offsets, self._epoch = text, cursor.by_partition, cursor.epoch
        return self.offsets

    def reached(self, last: Mapping[int, int]) -> bool:
        """Whether all offsets up to these, by partition, are confirmed."""
        offsets = self.offsets
        return offsets is not None and all(offsets.get(p, -1) >= offset for p, offset in last.items())


@dataclass(eq=False, kw_only=True)
class Client:
    """Follows ``sources`` by one connection at a time, beginning at ``begin`` (``latest``, ``earliest``).

    ``churns``: it drops after a while, is away for a while, and comes again, until ``calm`` is set; the
    others stay. At most ``most`` deliveries are recorded. ``connected``: it is, and every source's past was
    told. ``ends`` counts how connections ended; ``garbled`` are messages that are not the wire's,
    ``trouble`` why it could not connect, the last time.
    """

    base: URL
    sources: Sequence[str]
    via: Transport
    begin: str
    churns: bool
    numbers: Mapping[str, int]
    random: Random
    calm: asyncio.Event
    most: int
    begun: int = 0
    delivered: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    garbled: list[str] = field(default_factory=list)
    trouble: str = ""

    def __post_init__(self) -> None:
        self.followed = {source: _Followed(self.begin) for source in self.sources}
        self._joined = asyncio.Event()
        self._connection: Connection | None = None

    @property
    def connected(self) -> bool:
        """Whether the client is connected, and was given the past of each of its sources."""
        connection = self._connection
        return self._joined.is_set() and connection is not None and not connection.ended.is_set()

    def settled(self, last: Mapping[str, Mapping[int, int]]) -> bool:
        """Whether it is connected and every source's last event, of each partition, is confirmed to it."""
        return self.connected and all(one.reached(last[name]) for name, one in self.followed.items())

    @property
    def _since(self) -> dict[str, str]:
        return {source: one.cursor for source, one in self.followed.items()}

    async def run(self, wait: float) -> None:
        """Connect after ``wait`` s; come, drop and resume until cancelled."""
        await _first_of(wait, self.calm)
        try:
            while True:
                connection = await self._connect()
                if self.churns and not self.calm.is_set():
                    # Most wait for their past, and then for a moment; some leave whenever it is.
                    if self.random.random() < 0.7:
                        await _first_of(_CONNECT, self._joined, connection.ended, self.calm)
                    await _first_of(self.random.expovariate(1.0), connection.ended, self.calm)
                if self.calm.is_set() or not self.churns:
                    await connection.ended.wait()
                if not connection.ended.is_set():
                    await self._drop(connection)
                await _first_of(self.random.expovariate(2.0), self.calm)
        finally:
            if self._connection is not None:
                self._connection.end()
            self._ended("open")

    async def _connect(self) -> Connection:
        loop, base = asyncio.get_running_loop(), self.base
        while True:
            self._joined.clear()
            for one in self.followed.values():
                one.begin()
            connection = Connection(self, WsIncoming() if self.via == "ws" else IdentifiedEvents())
            host, port, secure = base.host or "", base.port or 0, base.scheme == "https" or None
            try:
                async with asyncio.timeout(_CONNECT):
                    await loop.create_connection(lambda: connection, host, port, ssl=secure)  # noqa: B023
            except (OSError, TimeoutError) as error:
                self.trouble = str(error) or f"no answer within {_CONNECT:g} s"
                self._ended("never connected")
                await asyncio.sleep(self.random.uniform(*_RETRY))
                continue
            self._connection = connection
            self.begun += 1
            connection.transport.write(request(base, self.via, self._since))
            return connection

    async def _drop(self, connection: Connection) -> None:
        how = self.random.choice(_ENDS)
        connection.leaving = True
        if how == "politely":
            if self.via == "ws":
                connection.transport.write(CLOSE)
            else:
                connection.transport.close()
            await _first_of(_GOODBYE, connection.ended)
        elif how == "in mid-frame":
            connection.cut = self.random.uniform(0.01, 0.99)
            await _first_of(_GOODBYE, connection.ended)
        connection.end()
        self._ended(how)

    def _ended(self, how: str) -> None:
        sessions = [one.sessions[-1] for one in self.followed.values() if one.sessions]
        if sessions and not sessions[0].ended:
            self.ends[how] += 1
            for session in sessions:
                session.ended = how

    # --- what the connection says

    def opened(self, transport: asyncio.Transport) -> None:
        """The gateway accepted the connection; on a WebSocket, subscribe."""
        if self.via == "ws":
            transport.write(subscriptions(self._since))

    def dropped(self, why: str, *, expected: bool) -> None:
        """The gateway ended the connection, and said or showed why."""
        if not expected:
            self.trouble = why
            self._ended("by the gateway")

    def misunderstood(self, why: str) -> None:
        """The gateway sent what is not of the wire protocol."""
        if len(self.garbled) < _GARBLED:
            self.garbled.append(why)
        self._ended("misunderstood")

    def take(self, text: bytes, resume: str | None, now: float) -> None:
        """Record a message, and (SSE) the id from which the stream would be resumed.

        Raises ValueError for what a gateway must not send, and Dropped for its error.
        """
        try:
            message = decode(text)
        except Dropped as error:
            raise ValueError(f"{error}: {text[:200].decode(errors='replace')}") from error
        source = self.followed.get(message.source or "")
        if message.kind == "error":
            self.errors[message.error or "?"] += 1
            raise Dropped(f"the gateway says: {message.error}")
        if source is None:
            raise ValueError(f"a message of a source that was not asked for: {text[:200].decode()}")
        self._record(source, message, self._cursors(source, message, resume), now)

    def _cursors(self, source: _Followed, message: Message, resume: str | None) -> Mapping[int, int] | None:
        """Keep where the client would resume from now on; return what that confirms of this source."""
        if self.via == "ws":
            return source.confirm(message.cursor) if message.cursor else None
        if not resume:
            return None
        cursors = resume.split(",")
        if len(cursors) != len(self.followed):
            raise ValueError(f"the id {resume!r} has {len(cursors)} cursors for {len(self.followed)} sources")
        for one, cursor in zip(self.followed.values(), cursors, strict=True):
            if cursor and cursor != one.cursor:
                one.confirm(cursor)
        return source.offsets

    def _record(
        self, source: _Followed, message: Message, cursor: Mapping[int, int] | None, now: float
    ) -> None:
        session = source.sessions[-1]
        if message.kind == "event":
            if message.id is None:
                raise ValueError("an event without an id")
            self.delivered += 1
            if self.delivered > self.most:
                raise ValueError(f"more events than were published: client told of over {self.most:,}")
            position = position_of(message.pos)
            if message.pos is not None and position is None:
                raise ValueError(f"a position {message.pos!r}")
            kind = RECOVERED if message.late else OLD if message.old else EVENT
            session.add(kind, event=self.numbers[message.id], position=position, cursor=cursor, at=now)
            return
        if message.kind != "subscribed":
            session.add(STATE, cursor=cursor, at=now)
            return
        whole = message.recovered or message.reason in WHOLE  # what is told then is whole up to the cursor
        refused = not whole and session.since is not None
        if refused:
            session.refused.append(message.reason or "no reason given")
        session.add(REFUSED if refused else SUBSCRIBED, cursor=cursor, at=now)
        source.joined = True
        if all(one.joined for one in self.followed.values()):
            self._joined.set()


async def _first_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of the events is set, or for so many seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
