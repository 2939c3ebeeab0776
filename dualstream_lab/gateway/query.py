"""``GET /events``, ``/event`` and ``/events/{id}``: recent events, and one whole event."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from dualstream_lab.config import ServeSettings
from dualstream_lab.cursor import Cursor, position_of
from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.event import id_invalid_reason
from dualstream_lab.gateway.access import Access, Grant, grant_of
from dualstream_lab.gateway.log import Log
from dualstream_lab.gateway.past import Positions, Refusal, behind, hole_of, later, removed
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.since import (
    EARLIEST,
    Since,
    check_partitions,
    check_since,
    check_source,
    known_by,
    parse_since,
)
from dualstream_lab.http_server import HttpRefusal
from dualstream_lab.store import Page, StoredEvent

_MAX_LIMIT: Final = 1000
_MAX_DIGITS: Final = 9  # int() raises for thousands of them
_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_WHOLE: Final = frozenset({Refusal.STORE_LAG, Refusal.LOG_UNAVAILABLE})
"""Reasons with which what is given is whole up to the cursor, and more may follow."""

_SMALL: Final = 64 * 1024  # bytes up to which an answer is made without waiting for others
_SLOTS: Final = 6  # large answers at once: what they hold is some 20 times the largest
_OF_ONE_CLIENT: Final = 3  # address: nobody keeps all of them from the others
_PIECE: Final = 256 * 1024  # bytes
_PIECE_TIME: Final = 2.0  # s that a client has to take one


def _too_many(whence: str = "") -> HttpRefusal:
    return HttpRefusal(503, f"too many large pages are being read{whence}; try again", retry_after=2)


class Queries:
    """Handles the HTTP queries for recent events and for one whole event."""

    def __init__(self, settings: ServeSettings, access: Access, log: Log, reads: Reads) -> None:
        self._timeout = settings.store_timeout
        self._max_bytes = settings.max_page_bytes
        self._slots = asyncio.Semaphore(_SLOTS)
        self._clients: Counter[str | None] = Counter()
        self._access = access
        self._log = log
        self._reads = reads

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``GET /events?source=…&since=…&limit=…``: the newest, or the first after ``since``; ascending.

        A page has at most ``max_page_bytes``, and one event in any case.
        """
        source = request.query.get("source", "")
        check_source(source)
        if not (await grant_of(request, self._access)).may_read(source):
            raise HttpRefusal(403, f"the token does not allow to read {source}")
        text = request.query.get("limit", "50")
        if not text.isdecimal() or len(text) > _MAX_DIGITS or not 1 <= (limit := int(text)) <= _MAX_LIMIT:
            raise HttpRefusal(400, f"limit: must be from 1 to {_MAX_LIMIT} (is {text[:100]!r})")
        since = parse_since(request.query.get("since"))
        other_log = await check_since(self._log, since)
        ask = partial(self._page, self._log.identity.epoch, source, limit, since, other_log=other_log)
        body, cut = await ask(_SMALL)
        if not cut:
            return web.Response(body=body, headers=_HEADERS)
        async with self._large_slot(request):
            body, _ = await ask(self._max_bytes)
            return await _write(request, body)

    async def _page(
        self, epoch: str, source: str, limit: int, since: Since, max_bytes: int, *, other_log: bool
    ) -> tuple[bytes, bool]:
        """The answer, and whether it is shorter than was asked for, as it would have had too many bytes."""
        after = None if other_log else known_by(since)
        page, events, ends = await self._whole(source, limit, after, max_bytes)
        if epoch != self._log.identity.epoch:
            raise StoreError("the topic was made anew just now; ask again")
        homes = self._log.homes(source)
        refusal = Refusal.EPOCH_CHANGED if other_log else _refusal(page, since, after, ends, homes)
        through = page.through
        if refusal is not None and refusal not in _WHOLE and since != EARLIEST:
            page, events = msgspec.structs.replace(page, more=False), []
            through = {partition: place.position - 1 for partition, place in page.places.items()}
        elif after is not None:
            through = later(through, after)  # the store may not be as far as the cursor: never a step back
        named = sorted({*page.first, *homes, *(after or ())})
        cursor = Cursor(epoch, tuple((partition, through.get(partition, -1)) for partition in named))
        return _body(page, events, cursor, refusal), page.more and len(page.rows) < limit

    async def _whole(
        self, source: str, limit: int, after: Positions | None, max_bytes: int
    ) -> tuple[Page, list[StoredEvent], Positions | None]:
        """What the store has, once it has all that Kafka has now; and where Kafka ends (None: away).

        It may still be behind when ``store_timeout`` has passed. A page with more after it need not wait.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        ends: dict[int, int] = {}

        async def recent() -> tuple[Page, list[StoredEvent]]:
            return await self._reads.store.recent(source, limit=limit, after=after, max_bytes=max_bytes)

        own = {*self._log.homes(source), *(after or ())}
        asked = own if after is None else set[int]()  # of what is after a place there may be many pages
        while True:
            if new := asked - ends.keys():
                try:
                    async with asyncio.timeout(max(0.1, deadline - loop.time())):
                        ends.update(await self._log.ends(new))
                except (StreamUnavailable, TimeoutError):
                    return *await recent(), None
            if ends:
                await self._reads.reach(ends, max(0.0, deadline - loop.time()))
            page, events = await recent()
            if after is not None and page.more:
                return page, events, ends
            asked = {*page.first, *own}  # also where the source turned up meanwhile
            if asked <= ends.keys() and (not behind(page, ends) or loop.time() >= deadline):
                return page, events, ends

    @asynccontextmanager
    async def _large_slot(self, request: web.Request) -> AsyncIterator[None]:
        """While a large answer is made and written: six at once, three of one address. Raises 503."""
        client = request.remote
        if self._clients[client] >= _OF_ONE_CLIENT:
            raise _too_many(" from this address")
        self._clients[client] += 1
        try:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise _too_many() from error
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def event(self, request: web.Request) -> web.Response:
        """The event as it is in Kafka: the one at ``pos``, or of ``source``, or the only one of that id.

        Waits for the store to reach ``pos``. Whoever may not read it is not told that it is there.
        """
        grant = await grant_of(request, self._access)
        event_id = request.match_info.get("id", request.query.get("id", ""))
        if reason := id_invalid_reason(event_id):
            raise HttpRefusal(400, reason)
        source = request.query.get("source")
        if source is not None:
            check_source(source)
        place, reached = None, True
        if (pos := request.query.get("pos")) is not None:
            place = position_of(pos)
            if place is None:
                allowed = "must be partition:offset, as in the notification"
                raise HttpRefusal(400, f"pos: {allowed} (is {pos[:100]!r})")
            await check_partitions(self._log, dict([place]), "pos")
            reached = await self._reads.reach({place[0]: place[1] + 1}, self._timeout)
        event = await self._find(grant, event_id, source, place)
        if event is None or not grant.may_read(event.source):
            reason = f"there is no event {event_id!r} (any more)"
            raise HttpRefusal(404, reason, retry_after=None if reached else 1)
        where = f"{event.partition}:{event.offset}"
        return web.Response(body=event.value, headers=_HEADERS | {"X-Position": where})

    async def _find(
        self, grant: Grant, event_id: str, source: str | None, place: tuple[int, int] | None
    ) -> StoredEvent | None:
        store = self._reads.store
        if place is not None:
            event = await store.at(*place)
            if event is not None:
                return event if event.id == event_id and source in {None, event.source} else None
            if source is None:
                return None
            # What a source has twice is stored once, where it was first: the same event.
        events = [
            event for event in await store.find(event_id, source=source) if grant.may_read(event.source)
        ]
        if len(events) > 1:
            which = "say which one by source=type:id or pos=partition:offset"
            raise HttpRefusal(400, f"id {event_id!r} names events of {len(events)} sources: {which}")
        return events[0] if events else None


async def _write(request: web.Request, body: bytes) -> web.StreamResponse:
    """Write a large answer. A client that does not take 128 kB/s is cut off."""
    response = web.StreamResponse(headers=_HEADERS)
    response.content_length = len(body)
    try:
        await response.prepare(request)
        for begin in range(0, len(body), _PIECE):
            async with asyncio.timeout(_PIECE_TIME):
                await response.write(body[begin : begin + _PIECE])
        async with asyncio.timeout(_PIECE_TIME):
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


def _refusal(
    page: Page, since: Since, after: Positions | None, ends: Positions | None, homes: tuple[int, ...]
) -> Refusal | None:
    if since == EARLIEST:
        why = hole_of(page, homes)
    elif after is None:
        why = None
    elif any(offset >= end for p, end in (ends or {}).items() if (offset := after.get(p, -1)) >= 0):
        why = Refusal.EPOCH_CHANGED  # a place that this log has not reached
    else:
        why = removed(page, after, after)
    if why is None and ends is None:
        return Refusal.LOG_UNAVAILABLE
    if why is None and behind(page, ends or {}) and not (after is not None and page.more):
        return Refusal.STORE_LAG
    return why


def _body(page: Page, events: list[StoredEvent], cursor: Cursor, refusal: Refusal | None) -> bytes:
    about: dict[str, object] = {"cursor": str(cursor), "more": page.more, "recovered": refusal is None}
    if refusal is not None:
        about["reason"] = refusal.value
    # The events are JSON already, byte for byte as they were published.
    listed = b",".join(event.value for event in events)
    return b'{"events":[' + listed + b"]," + msgspec.json.encode(about)[1:]
