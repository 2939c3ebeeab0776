"""``GET /events``, ``/event`` and ``/events/{id}``: recent events, and one whole event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from aiohttp import web

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.event import id_invalid_reason
from dualstream_lab.gateway.answers import bad_request, forbidden, grant_of, not_found
from dualstream_lab.gateway.channels import source_problem
from dualstream_lab.gateway.claims import position_of
from dualstream_lab.gateway.large_answers import LargeAnswers
from dualstream_lab.gateway.past import Refusal, hole_of, later, removed
from dualstream_lab.gateway.since import (
    EARLIEST,
    Refused,
    check_partitions,
    is_foreign,
    known_by,
    parse_since,
)

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.access import Access, Grant
    from dualstream_lab.gateway.log import Log
    from dualstream_lab.gateway.past import Positions
    from dualstream_lab.gateway.reads import Reads
    from dualstream_lab.gateway.since import Since
    from dualstream_lab.store import Page, StoredEvent

__all__ = ["Queries"]

_DEFAULT_LIMIT, MAX_LIMIT = 50, 1000
_MAX_DIGITS: Final = 9  # int() raises for thousands of them
_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_WHOLE: Final = frozenset({Refusal.STORE_LAG, Refusal.LOG_UNAVAILABLE})
"""Reasons with which what is given is whole up to the cursor, and more may follow."""

_SMALL: Final = 64 * 1024  # bytes up to which an answer is made without waiting for others


class _Asked(NamedTuple):
    """What ``GET /events`` is asked for."""

    source: str
    limit: int
    since: Since
    after: Positions | None
    epoch: str
    foreign: bool


class Queries:
    """The handlers."""

    def __init__(self, settings: ServeSettings, access: Access, log: Log, reads: Reads) -> None:
        self._timeout = settings.store_timeout
        self._max_bytes = settings.max_page_bytes
        self._answers = LargeAnswers(patience=settings.store_timeout)
        self._access = access
        self._log = log
        self._reads = reads

    # --- recent events

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``GET /events?source=…&since=…&limit=…``: the newest, or the first after ``since``; ascending.

        A page has at most ``max_page_bytes``, and one event in any case.
        """
        source = request.query.get("source", "")
        if reason := source_problem(source):
            raise bad_request(reason)
        if not (await grant_of(request, self._access)).may_read(source):
            raise forbidden(f"the token does not allow to read {source}")
        limit = _integer(request, "limit", _DEFAULT_LIMIT, 1, MAX_LIMIT)
        try:
            since = parse_since(request.query.get("since"))
            foreign = is_foreign(since, self._log)
            if not foreign:
                await check_partitions(self._log, known_by(since) or {}, "since")
        except Refused as error:
            raise bad_request(str(error)) from error
        epoch = self._log.identity.epoch
        after = None if foreign else known_by(since)
        asked = _Asked(source, limit, since, after, epoch, foreign)
        body, cut = await self._page(asked, _SMALL)
        if not cut:
            return web.Response(body=body, headers=_HEADERS)
        async with self._answers.slot(request):
            body, _ = await self._page(asked, self._max_bytes)
            return await self._answers.write(request, body, _HEADERS)

    async def _page(self, asked: _Asked, max_bytes: int) -> tuple[bytes, bool]:
        """The answer, and whether it is shorter than was asked for, as it would have had too many bytes."""
        source, limit, since, after, epoch, foreign = asked
        page, events, ends = await self._whole(source, limit, after, max_bytes)
        if epoch != self._log.identity.epoch:
            raise StoreError("the topic was made anew just now; ask again")
        homes = self._log.homes(source)
        refusal = Refusal.EPOCH_CHANGED if foreign else _refusal(page, since, after, ends, homes)
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
        own = {*self._log.homes(source), *(after or ())}
        asked = own if after is None else set[int]()  # of what is after a place there may be many pages
        while True:
            if new := asked - ends.keys():
                try:
                    async with asyncio.timeout(max(0.1, deadline - loop.time())):
                        ends.update(await self._log.ends(new))
                except (StreamUnavailable, TimeoutError):
                    page, events = await self._recent(source, limit, after, max_bytes)
                    return page, events, None
            if ends:
                await self._reads.reach(ends, max(0.0, deadline - loop.time()))
            page, events = await self._recent(source, limit, after, max_bytes)
            if after is not None and page.more:
                return page, events, ends
            asked = {*page.first, *own}  # also where the source turned up meanwhile
            if asked <= ends.keys() and (not _is_behind(page, ends) or loop.time() >= deadline):
                return page, events, ends

    async def _recent(
        self, source: str, limit: int, after: Positions | None, max_bytes: int
    ) -> tuple[Page, list[StoredEvent]]:
        return await self._reads.store.recent(source, limit=limit, after=after, max_bytes=max_bytes)

    # --- one whole event

    async def event(self, request: web.Request) -> web.Response:
        """The event as it is in Kafka: the one at ``pos``, or of ``source``, or the only one of that id.

        Waits for the store to reach ``pos``. Whoever may not read it is not told that it is there.
        """
        grant = await grant_of(request, self._access)
        event_id = request.match_info.get("id", request.query.get("id", ""))
        if reason := id_invalid_reason(event_id):
            raise bad_request(reason)
        source = request.query.get("source")
        if source is not None and (reason := source_problem(source)):
            raise bad_request(reason)
        place = _place(request.query.get("pos"))
        reached = True
        if place is not None:
            try:
                await check_partitions(self._log, dict([place]), "pos")
            except Refused as error:
                raise bad_request(str(error)) from error
            reached = await self._reads.reach({place[0]: place[1] + 1}, self._timeout)
        event = await self._find(grant, event_id, source, place)
        if event is None or not grant.may_read(event.source):
            raise not_found(f"there is no event {event_id!r} (any more)", retry=not reached)
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
        found = [event for event in await store.find(event_id, source=source) if grant.may_read(event.source)]
        if len(found) > 1:
            raise bad_request(
                f"id {event_id!r} names events of {len(found)} sources: say which one by source=type:id or "
                "pos=partition:offset"
            )
        return found[0] if found else None


def _is_behind(page: Page, ends: Positions) -> bool:
    places = page.places
    return any(
        end > 0 and (partition not in places or places[partition].position < end)
        for partition, end in ends.items()
    )


def _refusal(
    page: Page, since: Since, after: Positions | None, ends: Positions | None, homes: tuple[int, ...]
) -> Refusal | None:
    """Why the answer is not all that was asked for; None: it is."""
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
    if why is None and _is_behind(page, ends or {}) and not (after is not None and page.more):
        return Refusal.STORE_LAG
    return why


def _body(page: Page, events: list[StoredEvent], cursor: Cursor, refusal: Refusal | None) -> bytes:
    about: dict[str, object] = {"cursor": str(cursor), "more": page.more, "recovered": refusal is None}
    if refusal is not None:
        about["reason"] = refusal.value
    # The events are JSON already, byte for byte as they were published.
    listed = b",".join(event.value for event in events)
    return b'{"events":[' + listed + b"]," + msgspec.json.encode(about)[1:]


def _integer(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > _MAX_DIGITS or not low <= int(text) <= high:
        raise bad_request(f"{name}: must be from {low} to {high} (is {text[:100]!r})")
    return int(text)


def _place(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    place = position_of(text)
    if place is None:
        raise bad_request(f"pos: must be partition:offset, as in the notification (is {text[:100]!r})")
    return place
