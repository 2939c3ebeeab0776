"""Events over HTTP: ``POST /ingest`` and ``POST /ingest/github``, answered when Kafka has them.

Mounted by the gateway, or alone: ``web.Application().add_routes(ingest_routes(…))``, run with
:data:`dualstream_lab.http_server.SERVER_OPTIONS`. Answers are JSON; an error is ``{"error", "allowed"?}`` and
what is known of the events.
"""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Protocol

import msgspec
from aiohttp import web

from dualstream_lab.errors import EventError, PublishError, StreamUnavailable
from dualstream_lab.http_server import client_of, close_refused, report_refusal
from dualstream_lab.ingest.answers import Refusal, answer, not_published, receipts
from dualstream_lab.ingest.body import Bodies, Body, LineSplitter, content_type
from dualstream_lab.ingest.intake import Intake
from dualstream_lab.ingest.webhooks import Webhooks
from dualstream_lab.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.ingest.feed import Publisher

    Authorize = Callable[[web.Request], Awaitable["Writer"]]
    _Handler = Callable[[web.Request], Awaitable[web.Response]]

__all__ = ["Writer", "ingest_routes"]

_JSON = "application/json"
_LINES = ("application/x-ndjson", "application/jsonl")
_WHITE = b" \t\r\n"
_INDEX = re.compile(r"`\$\[(\d+)\]")  # the element, in an error of msgspec's
_BATCH_EVENTS = 1_000
_BATCH_BYTES = 4 * 2**20
_MAX_ARRAY = 2**20  # an array cannot be looked at in pieces, and nobody else has a turn meanwhile
_LISTED = 1_000  # receipts in an answer


class Writer(Protocol):
    """Who sends events."""

    @property
    def name(self) -> str:
        """By which it is known from one request to the next; empty: by its address."""

    @property
    def expires(self) -> float | None:
        """Until when it may (s since the epoch); None: without an end."""

    def may_write(self, source: str) -> bool:
        """Whether it may publish to the source (``type:id``)."""


def ingest_routes(
    publisher: Publisher, *, settings: ServeSettings, authorize: Authorize
) -> list[web.RouteDef]:
    """The routes. ``publisher`` is started, and closed, by the caller.

    ``authorize(request)`` says who sends it, before anything of its body is read, and raises
    web.HTTPUnauthorized or web.HTTPForbidden for one who may write nothing. Webhooks are authorised by their
    signature.

    A request is all or nothing: every event in it is checked, and every source authorised, before the first
    is sent. Two things are found out later, and then the answer says what became durable: that Kafka does not
    take them, and, after the first 1,000 events or 4 MiB, that an event is larger than the topic allows.

    Memory: bodies of at most ``max_body_bytes`` each and ``buffer_bytes`` together; beside them, webhooks
    whose signature is not verified yet: ``max_webhook_bytes`` each, eight times that together. Compressed
    bodies are refused.
    """
    bodies = Bodies(
        max_bytes=settings.max_body_bytes,
        max_held=settings.buffer_bytes,
        min_rate=settings.min_body_rate,
        limit="DUALSTREAM_MAX_BODY_BYTES",
    )
    events = _Events(publisher, settings, authorize, bodies)
    webhooks = Webhooks(publisher, settings, bodies)
    return [
        web.post("/ingest", _answered(events.handle), expect_handler=_expect),
        web.post("/ingest/github", _answered(webhooks.handle), expect_handler=_expect),
    ]


async def _expect(_request: web.Request) -> None:
    """A client that waits for a word before it sends its body gets none yet; see :meth:`Body.chunk`."""


def _answered(handler: _Handler) -> Handler:
    """With every refusal turned into its answer, and its body left unread."""

    async def refusing(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal.response()
        except StreamUnavailable as error:  # whose words may name servers and users
            report_refusal(request, str(error))
            return Refusal(
                503, "Kafka cannot be used now", "the same request, later", retry_after=1
            ).response()

    @functools.wraps(handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        return await close_refused(request, refusing)

    return handle


class _Events:
    """``POST /ingest``: an event, an array of events, or JSON Lines."""

    def __init__(
        self, publisher: Publisher, settings: ServeSettings, authorize: Authorize, bodies: Bodies
    ) -> None:
        self._publisher = publisher
        self._authorize = authorize
        self._bodies = bodies
        self._retry_after = settings.buffer_timeout
        self._max_events = min(_BATCH_EVENTS, settings.buffer_events)
        self._max_bytes = min(_BATCH_BYTES, settings.buffer_bytes // 2)
        self._requests = RateLimit(settings.ingest_request_rate)
        self._events = RateLimit(settings.ingest_event_rate)

    async def handle(self, request: web.Request) -> web.Response:
        kind = content_type(request, _JSON, *_LINES)
        writer = await self._authorize(request)
        client = client_of(request, writer.name)
        self._limit(client)
        self._requests.take(client, 1, time.monotonic())
        intake = Intake(writer.may_write, unit="event" if kind == _JSON else "line")
        with Body(self._bodies, request, client) as body:
            await (_read_json if kind == _JSON else _read_lines)(body, intake)
            if writer.expires is not None and writer.expires <= time.time():
                raise Refusal(401, "the token has expired")
            self._limit(client)  # others of its requests may have used up what there was
            self._events.take(client, intake.count, time.monotonic())
            return await self._publish(intake)

    def _limit(self, client: str) -> None:
        """Raises Refusal for a client that has had more than it may."""
        for limit, what in ((self._requests, "requests"), (self._events, "events")):
            if wait := limit.wait(client, time.monotonic()):
                allowed = f"{limit.rate:g} {what}/s (DUALSTREAM_INGEST_{what[:-1].upper()}_RATE)"
                raise Refusal(429, f"too many {what}", allowed, retry_after=wait)

    async def _publish(self, intake: Intake) -> web.Response:
        accepted = 0
        listed: list[dict[str, str | None]] = []
        batches = intake.batches(max_events=self._max_events, max_bytes=self._max_bytes)
        for numbers, events in batches:
            try:
                receipt = await self._publisher.publish_batch(events)
            except EventError as error:
                bad = [(numbers[index], reason) for index, reason in sorted(error.invalid.items())]
                raise intake.refuse(bad, accepted=accepted) from error
            except PublishError as error:
                raise not_published(error, events, before=accepted, retry_after=self._retry_after) from error
            accepted += len(events)
            if accepted <= _LISTED:
                listed += receipts(receipt)
        return answer(202, {"accepted": accepted} | ({"events": listed} if accepted <= _LISTED else {}))


async def _read_json(body: Body, intake: Intake) -> None:
    text = (await body.whole()).strip(_WHITE)
    if not text.startswith(b"["):
        await intake.add(text)
        return
    if len(text) > _MAX_ARRAY:
        raise Refusal(
            413,
            f"the array is larger than {_MAX_ARRAY:,} bytes",
            f"JSON Lines ({' or '.join(_LINES)}) for more",
        )
    for element in _elements_of(text, intake):
        await intake.add(bytes(element))


class _Shape(msgspec.Struct, gc=False):
    """What every event has: forty bytes or more. Of anything shorter a megabyte makes thirty of objects."""

    type: str
    source_type: str
    source_id: str


_shapes = msgspec.json.Decoder(list[_Shape])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


def _elements_of(text: bytes, intake: Intake) -> list[msgspec.Raw]:
    """The events of an array. Raises Refusal."""
    try:
        _shapes.decode(text)
        return _elements.decode(text)
    except msgspec.ValidationError as error:
        place = _INDEX.search(str(error))
        number = int(place[1]) + 1 if place else 1
        raise intake.refuse([(number, _INDEX.sub("`$", str(error)))]) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refusal(400, f"not JSON: {error}", "an event, or an array of events") from error


async def _read_lines(body: Body, intake: Intake) -> None:
    splitter = LineSplitter()
    while data := await body.chunk():
        for line in splitter.feed(data):
            await intake.add(line)
    await intake.add(splitter.rest())
