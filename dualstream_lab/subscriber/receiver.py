"""What a gateway's messages mean: each event once into the inbox, gaps and confirmations in their places."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import EventError, StreamUnavailable
from dualstream_lab.event import decode_event
from dualstream_lab.subscriber.progress import Progress, Recent
from dualstream_lab.subscriber.received import Gap, Received
from dualstream_lab.subscriber.wanted import EARLIEST, LATEST
from dualstream_lab.subscriber.wire import Dropped, Message, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dualstream_lab.event import Event
    from dualstream_lab.subscriber.api import Api
    from dualstream_lab.subscriber.inbox import Inbox
    from dualstream_lab.subscriber.received import SubscriberStats

__all__ = ["Arrival", "Confirmed", "Receiver", "Source", "State", "TooFarBehind"]

log = logging.getLogger(__name__)

State = Literal["away", "catching up", "live", "degraded"]

_PASSING: Final = {"store_lag", "store_unavailable"}
_BEHIND: Final = "too_far_behind"
_REMOVED: Final = "retention"


class Confirmed(NamedTuple):
    """Everything of the source up to the cursor stands before this in the inbox, or was handed out."""

    source: str
    cursor: str


Arrival = Received | Gap | Confirmed


class Source:
    """One source's way so far. ``begin``: the caller's ``since``; ``refused_at``: of a past not told yet.

    ``joined``: this connection has told its past, and is live.
    """

    __slots__ = ("begin", "joined", "name", "progress", "refused_at", "state")

    def __init__(self, name: str, begin: str, recent: Recent) -> None:
        self.name = name
        self.begin = begin
        self.progress = Progress(recent)
        self.state: State = "away"
        self.joined = False
        self.refused_at: float | None = None

    @property
    def cursor(self) -> str | None:
        """What is confirmed, if anything is."""
        confirmed = self.progress.confirmed
        return None if confirmed is None else str(confirmed)

    @property
    def place(self) -> str:
        """Where the next connection begins."""
        return self.cursor or self.begin


class TooFarBehind(Dropped):
    """More is missing than a connection catches up: it is to be read in pages."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source.name} is too far behind for a connection")
        self.source = source


class Receiver:
    """``live`` is set while every source is live or degraded, ``welcomed`` once a connection was of use.

    ``heard_at``: the loop's time of the last message.
    """

    def __init__(
        self,
        since: Mapping[str, str],
        inbox: Inbox[Arrival],
        stats: SubscriberStats,
        *,
        recover_within: float,
    ) -> None:
        recent = Recent()
        self.sources = {name: Source(name, begin, recent) for name, begin in since.items()}
        self._inbox = inbox
        self._stats = stats
        self._recover_within = recover_within
        self.live = asyncio.Event()
        self.welcomed = False
        self.heard_at = asyncio.get_running_loop().time()

    @property
    def since(self) -> dict[str, str]:
        """Where a connection is to begin."""
        return {source.name: source.place for source in self.sources.values()}

    def away(self) -> None:
        """The connection is over."""
        self.live.clear()
        for source in self.sources.values():
            source.state = "away"
            source.joined = False

    async def deliver(self, text: str) -> None:
        """One message; waits while the inbox is full. Raises Dropped when a new connection is needed."""
        now = time.time_ns()
        message = decode(text)
        self.heard_at = asyncio.get_running_loop().time()
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
        partition, offset = _position(message.pos)
        fresh = source.progress.fresh(message.id, offset)
        # A late event's cursor may be for when all that were found with it are told, and a live one's
        # supposes the past, which may turn out not to be told.
        if message.cursor and (message.old or source.joined) and not message.late:
            source.progress.confirm(_cursor(message.cursor))
        if not fresh:
            self._stats.repeats += 1
            return
        self._stats.late += message.late
        self._stats.old += message.old
        await self._put(
            Received(
                id=message.id,
                type=message.type,
                source=source.name,
                event=None,
                cursor=source.cursor,
                late=message.late,
                old=message.old,
                partition=partition,
                offset=offset,
                ts=message.ts,
                at=now,
            )
        )

    async def _put(self, received: Received) -> None:
        self._stats.received += 1
        await self._inbox.put(received)

    async def _subscribed(self, source: Source, message: Message) -> None:
        if message.recovered or source.place == LATEST:
            await self._confirm(source, message.cursor)
        else:
            await self._not_recovered(source, message.reason or "unknown", message.cursor)
        source.refused_at = None
        source.state = "live"
        source.joined = True
        self.welcomed = True
        if all(one.state in {"live", "degraded"} for one in self.sources.values()):
            self.live.set()

    async def _not_recovered(self, source: Source, reason: str, cursor: str | None) -> None:
        # The earliest is what is left, however much was removed before it.
        if reason == _BEHIND or (reason == _REMOVED and source.place == EARLIEST):
            raise TooFarBehind(source)
        if reason in _PASSING:
            # The past is still there, and a later connection may tell it.
            now = asyncio.get_running_loop().time()
            if source.refused_at is None:
                source.refused_at = now
            if now - source.refused_at < self._recover_within:
                raise Dropped(f"the past of {source.name} cannot be told yet ({reason})")
        await self._gap(source, reason, cursor)

    async def _gap(self, source: Source, reason: str, cursor: str | None) -> None:
        known = source.begin if ":" in source.begin else None
        gap = Gap(source=source.name, reason=reason, after=source.cursor or known, until=cursor)
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
        more = True
        while more:
            page = await api.page(source.name, source.place)
            self.heard_at = asyncio.get_running_loop().time()
            if not page.recovered:
                await self._gap(source, page.reason or "unknown", page.cursor)
            for value in page.events:
                await self._old(source, bytes(value))
            await self._confirm(source, page.cursor)
            more = page.more

    async def _old(self, source: Source, value: bytes) -> None:
        try:
            event: Event = decode_event(value)
        except EventError as error:
            raise StreamUnavailable(f"the gateway's store holds what is no event: {error}") from error
        if not source.progress.fresh(event.id, None):
            self._stats.repeats += 1
            return
        self._stats.old += 1
        await self._put(
            Received(
                id=event.id,
                type=event.type,
                source=source.name,
                event=event,
                cursor=source.cursor,
                late=False,
                old=True,
                partition=None,
                offset=None,
                ts=None,
                at=time.time_ns(),
            )
        )


def _cursor(text: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except EventError as error:
        raise Dropped(f"the gateway told {error}") from error


def _position(pos: str | None) -> tuple[int | None, int | None]:
    partition, colon, offset = (pos or "").partition(":")
    if colon and partition.isdecimal() and offset.isdecimal() and len(pos or "") < 30:
        return int(partition), int(offset)
    return None, None
