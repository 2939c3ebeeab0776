"""``GET /events`` and ``GET /events/{id}``: recent events, and one whole event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from dualstream_lab.cursor import Cursor
from dualstream_lab.gateway.answers import bad_request, forbidden, grant_of, not_found
from dualstream_lab.gateway.channels import source_problem
from dualstream_lab.gateway.handover import Refusal
from dualstream_lab.gateway.session import Refused, parse_since

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.access import Access
    from dualstream_lab.gateway.reads import Reads
    from dualstream_lab.kafka_log import LogIdentity
    from dualstream_lab.store import Page, Store, StoredEvent

__all__ = ["Queries"]

_DEFAULT_LIMIT, MAX_LIMIT = 50, 1000
_MAX_DIGITS: Final = 27  # more are no number that was ever given, and int() raises for thousands of them
_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}


class Queries:
    """The handlers."""

    def __init__(
        self, settings: ServeSettings, access: Access, log_is: LogIdentity, store: Store, reads: Reads
    ) -> None:
        self._timeout = settings.store_timeout
        self._access = access
        self._log_is = log_is
        self._store = store
        self._reads = reads

    async def events(self, request: web.Request) -> web.Response:
        """``GET /events?source=…&since=…&limit=…``: the newest, or the first after ``since``; ascending."""
        source = request.query.get("source", "")
        if reason := source_problem(source):
            raise bad_request(reason)
        if not grant_of(request, self._access).may_read(source):
            raise forbidden(f"the token does not allow to read {source}")
        limit = _integer(request, "limit", _DEFAULT_LIMIT, 1, MAX_LIMIT)
        try:
            since = parse_since(request.query.get("since"))
        except Refused as error:
            raise bad_request(str(error)) from error
        partition = self._log_is.partition_of(source)
        after, refusal = self._place(since, partition)
        page, events = await self._store.recent(source, limit=limit, after=after, partition=partition)
        if after is not None and after + 1 < page.floor and since != -1:
            refusal, events = Refusal.RETENTION, []
        through = page.position - 1
        if refusal is None and after is not None:
            # The store may not be as far as the client's cursor: never a step back.
            through = page.rows[-1].offset if page.more else max(through, after)
        cursor = Cursor(self._log_is.epoch, partition, through)
        return web.Response(body=_body(page, events, cursor, refusal), headers=_HEADERS)

    def _place(self, since: Cursor | int | None, partition: int) -> tuple[int | None, Refusal | None]:
        """The offset to begin after (None: the newest), and why the past cannot be given."""
        if isinstance(since, tuple):
            if since[:2] != (self._log_is.epoch, partition):
                return None, Refusal.EPOCH_CHANGED
            return since.offset, None
        return since, None

    async def event(self, request: web.Request) -> web.Response:
        """``GET /events/{id}?pos=p:o``: the event as it is in Kafka; waits for the store to reach ``pos``."""
        grant = grant_of(request, self._access)
        event_id = request.match_info["id"]
        position = _position(request.query.get("pos"))
        reached = True
        if position is not None:
            reached = await self._reads.reach(position[0], position[1] + 1, self._timeout)
        event = await self._store.get(event_id)
        # who may not read it is not told that it is there
        if event is None or not grant.may_read(event.source):
            raise not_found(f"there is no event {event_id!r} (any more)", retry=not reached)
        place = f"{event.partition}:{event.offset}"
        return web.Response(body=event.value, headers=_HEADERS | {"X-Position": place})


def _body(page: Page, events: list[StoredEvent], cursor: Cursor, refusal: Refusal | None) -> bytes:
    about: dict[str, object] = {"cursor": str(cursor), "more": page.more, "recovered": refusal is None}
    if refusal is not None:
        about["reason"] = refusal.value
        events = []
    # The events are JSON already, byte for byte as they were published.
    listed = b",".join(event.value for event in events)
    return b'{"events":[' + listed + b"]," + msgspec.json.encode(about)[1:]


def _integer(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > _MAX_DIGITS or not low <= int(text) <= high:
        raise bad_request(f"{name}: must be from {low} to {high} (is {text!r})")
    return int(text)


def _position(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal() and len(partition + offset) <= _MAX_DIGITS):
        raise bad_request(f"pos: must be partition:offset, as in the notification (is {text!r})")
    return int(partition), int(offset)
