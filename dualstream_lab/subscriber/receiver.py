"""What a gateway's messages mean: each event once into the inbox, gaps and confirmations in their places."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from dualstream_lab.cursor import Cursor, position_of
from dualstream_lab.errors import EventError, StreamUnavailable
from dualstream_lab.event import Event, decode_event
from dualstream_lab.subscriber.api import Api
from dualstream_lab.subscriber.progress import Progress, Recent
from dualstream_lab.subscriber.received import NOT_FETCHED, Gap, Received, SubscriberStats
from dualstream_lab.subscriber.wanted import EARLIEST, LATEST
from dualstream_lab.subscriber.wire import WHOLE, Dropped, Message, decode

log = logging.getLogger(__name__)

State = Literal["away", "catching up", "live", "degraded"]

_PASSING: Final = {"store_lag", "store_unavailable"}
_BEHIND: Final = "too_far_behind"
_REMOVED: Final = {"retention", "compaction"}
_WHOLE_PAGE: Final = WHOLE | {"store_lag"}


class Confirmed(NamedTuple):
    """Everything of the source up to the cursor stands before this in the inbox, or was handed out."""

    source: str
    cursor: str


Arrival = Received | Gap | Confirmed


class Inbox(asyncio.Queue[Arrival]):
    """What was received and not yet handed out, in order: when it is full, the writer waits."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._arrived = asyncio.Event()

    def _put(self, item: Arrival) -> None:
        super()._put(item)
        self._arrived.set()

    def wake(self, _done: object = None) -> None:
        """Let the reader look, though nothing arrived."""
        self._arrived.set()

    async def wait(self) -> None:
        """Wait until something can be taken, or until :meth:`wake` is called."""
        if self.empty():
            self._arrived.clear()
            await self._arrived.wait()


class Source:
    """One source's way so far. ``begin``: the caller's ``since``; ``refused_at``: of a past not told yet.

    ``asked``: after what this connection is to tell. ``joined``: it has told its past, and is live.
    """

    def __init__(self, name: str, begin: str, recent: Recent) -> None:
        self.name = name
        self.begin = begin
        self.asked = begin
        self.progress = Progress(name, recent)
        self.state: State = "away"
        self.joined = False
        self.refused_at: float | None = None

    @property
    def cursor(self) -> str | None:
        """The confirmed cursor; None before the gateway has told one."""
        confirmed = self.progress.confirmed
        return None if confirmed is None else str(confirmed)

    @property
    def place(self) -> str:
        """Where the next connection is to begin: a cursor, or the caller's ``since``."""
        return self.cursor or self.begin


class TooFarBehind(Dropped):
    """More is missing than a connection catches up: it is to be read in pages."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source.name} is too far behind for a connection")
        self.source = source


class Receiver:
    """``live`` is set while every source is live or degraded, ``welcomed`` once a connection was of use.

    ``received_at``: the loop's time of the last message.
    """

    def __init__(
        self, since: Mapping[str, str], inbox: Inbox, stats: SubscriberStats, *, recover_within: float
    ) -> None:
        recent = Recent()
        self.sources = {name: Source(name, begin, recent) for name, begin in since.items()}
        self._inbox = inbox
        self._stats = stats
        self._recover_within = recover_within
        self.live = asyncio.Event()
        self.welcomed = False
        self.received_at = asyncio.get_running_loop().time()

    def ask(self) -> dict[str, str]:
        """Where each source is to begin on the connection that is made now."""
        for source in self.sources.values():
            source.asked = source.place
        return {source.name: source.asked for source in self.sources.values()}

    def away(self) -> None:
        """Note that the connection has ended, and with it what it was to tell."""
        self.live.clear()
        for source in self.sources.values():
            source.state = "away"
            source.joined = False

    async def deliver(self, text: str) -> None:
        """One message; waits while the inbox is full. Raises Dropped when a new connection is needed."""
        now = time.time_ns()
        message = decode(text)
        self.received_at = asyncio.get_running_loop().time()
        if message.kind == "error":
            # What would be refused for good was checked before: this passes, or the token has expired.
            raise Dropped(f"the gateway cannot serve {message.source or 'this client'}: {message.error}")
        source = self.sources.get(message.source or "")
        if source is None:
            return
        match message.kind:
            case "event":
                await self._event(source, message, now)
            case "subscribed":
                await self._subscribed(source, message)
            case "sync":
                await self._confirm(source, message.cursor)
            case "degraded":
                source.state = "degraded"
            case "live":
                source.state = "live"
            case "unsubscribed":
                raise Dropped(f"the gateway ended the subscription of {source.name}")

    async def _event(self, source: Source, message: Message, now: int) -> None:
        if message.id is None or message.type is None:
            raise Dropped("the gateway told of an event without id or type")
        if source.state == "away":
            source.state = "catching up"
        position = position_of(message.pos)
        fresh = source.progress.fresh(message.id, position)
        # A late event's cursor may be for when all that were found with it are told, and a live one's
        # supposes the past, which may turn out not to be told.
        if message.cursor and (message.old or source.joined) and not message.late:
            source.progress.confirm(_cursor(message.cursor))
        if not fresh:
            self._stats.repeats += 1
            return
        self._stats.late += message.late
        self._stats.old += message.old
        partition, offset = position or (None, None)
        received = Received(
            id=message.id,
            type=message.type,
            source=source.name,
            cursor=source.cursor,
            late=message.late,
            old=message.old,
            partition=partition,
            offset=offset,
            ts=message.ts,
            at=now,
        )
        self._stats.received += 1
        await self._inbox.put(received)

    async def _subscribed(self, source: Source, message: Message) -> None:
        if message.recovered or source.asked == LATEST or message.reason in WHOLE:
            await self._confirm(source, message.cursor)
        else:
            await self._not_recovered(source, message.reason or "unknown", message.cursor)
        source.refused_at = None
        source.state = "live"
        source.joined = True
        source.asked = source.place  # what is said not to be told from now on is after that
        self.welcomed = True
        if all(one.state in {"live", "degraded"} for one in self.sources.values()):
            self.live.set()

    async def _not_recovered(self, source: Source, reason: str, cursor: str | None) -> None:
        # Of the earliest, what is left is told in spite of the gap before it: in pages, if not here already.
        if reason == _BEHIND or (reason in _REMOVED and source.place == EARLIEST):
            raise TooFarBehind(source)
        if reason in _PASSING:
            # The past is still there, and a later connection may tell it.
            now = asyncio.get_running_loop().time()
            if source.refused_at is None:
                source.refused_at = now
            if now - source.refused_at < self._recover_within:
                raise Dropped(f"the past of {source.name} cannot be told yet ({reason})")
        await self._gap(source, source.asked, reason, cursor)

    async def _gap(self, source: Source, asked: str, reason: str, cursor: str | None) -> None:
        """What was asked for is not whole. With the earliest it is the beginning that is missing."""
        after = None if asked == EARLIEST else source.cursor or asked
        gap = Gap(source=source.name, reason=reason, after=after, until=cursor)
        log.warning("%s", gap)
        self._stats.gaps += 1
        if cursor:
            source.progress.restart(_cursor(cursor))
        await self._inbox.put(gap)

    async def _confirm(self, source: Source, cursor: str | None) -> None:
        if cursor:
            source.progress.confirm(_cursor(cursor))
            await self._inbox.put(Confirmed(source.name, source.place))

    async def read_pages(self, source: Source, api: Api) -> None:
        """Receive a long past, page by page. Raises Dropped; what was read until then is confirmed."""
        source.state = "catching up"
        while True:
            asked = source.place
            page = await api.page(source.name, asked)
            self.received_at = asyncio.get_running_loop().time()
            later = not page.recovered and page.reason in _PASSING | _WHOLE_PAGE
            if not page.recovered and not later:
                await self._gap(source, asked, page.reason or "unknown", page.cursor)
            if not later or page.reason in _WHOLE_PAGE:
                for value in page.events:
                    await self._old(source, bytes(value))
                await self._confirm(source, page.cursor)
                if page.more:
                    continue
            if later:
                raise Dropped(f"more of {source.name} is told later ({page.reason})")
            return

    async def _old(self, source: Source, value: bytes) -> None:
        try:
            event: Event = decode_event(value)
        except EventError as error:
            raise StreamUnavailable(f"the gateway's store holds what is no event: {error}") from error
        name, cursor, at = source.name, source.cursor, time.time_ns()
        received = Received(
            id=event.id, type=event.type, source=name, event=event, cursor=cursor, old=True, at=at
        )
        if f"{event.source_type}:{event.source_id}" != name:
            # Another source's event is not handed out under this one's name.
            self._stats.refused += 1
            self._stats.gaps += 1
            gap = Gap(source=name, reason=NOT_FETCHED, event=replace(received, event=None))
            log.warning("%s: the gateway's page of the source has another source's", gap)
            await self._inbox.put(gap)
        elif source.progress.fresh(event.id, None):
            self._stats.old += 1
            self._stats.received += 1
            await self._inbox.put(received)
        else:
            self._stats.repeats += 1


def _cursor(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except EventError as error:
        raise Dropped(f"the gateway told {error}") from error
