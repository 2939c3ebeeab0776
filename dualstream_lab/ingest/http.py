"""Events over HTTP: ``POST /ingest`` and ``POST /ingest/github``, answered when Kafka has them.

Mounted by the gateway, or alone: ``web.Application().add_routes(ingest_routes(…))``, run with
:data:`dualstream_lab.http_server.SERVER_OPTIONS`. Answers are JSON; an error is ``{"error", "allowed"?}`` and
what is known of the events.
"""

from __future__ import annotations

import functools
import hmac
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web

from dualstream_lab.errors import EventError, PublishError, StreamUnavailable
from dualstream_lab.event import Event, id_invalid_reason
from dualstream_lab.http_server import (
    HttpRefusal,
    RateLimit,
    client_of,
    close_refused,
    json_answer,
    report_refusal,
)
from dualstream_lab.ingest.body import Bodies, Body, LineSplitter, content_type
from dualstream_lab.ingest.feed import Publisher
from dualstream_lab.ingest.intake import Intake, malformed, not_published, receipts
from dualstream_lab.ingest.lines import webhook_event

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from dualstream_lab.config import ServeSettings

    Authorize = Callable[[web.Request], Awaitable["Writer"]]
    _Handler = Callable[[web.Request], Awaitable[web.Response]]

_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
_LINES = ("application/x-ndjson", "application/jsonl")
_WHITE = b" \t\r\n"
_INDEX = re.compile(r"`\$\[(\d+)\]")  # the element, in an error of msgspec's
_BATCH_EVENTS = 1_000
_BATCH_BYTES = 4 * 2**20
_MAX_ARRAY = 2**20  # an array cannot be looked at in pieces, and nobody else has a turn meanwhile
_LISTED = 1_000  # receipts in an answer
_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_UNVERIFIED: Final = 8  # bodies of the largest size that are held before their signatures are verified


class _Shape(msgspec.Struct, gc=False):
    """What every event has, in forty bytes or more: of anything shorter a megabyte makes thirty in memory."""

    type: str
    source_type: str
    source_id: str


_shapes = msgspec.json.Decoder(list[_Shape])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


class Writer(Protocol):
    """Who sends events."""

    @property
    def name(self) -> str:
        """The name by which it is known from one request to the next; empty: by its address."""

    @property
    def expires(self) -> float | None:
        """Until when it may send (s since the epoch); None: without an end."""

    def may_write(self, source: str) -> bool:
        """Whether it may publish to the source (``type:id``)."""


def ingest_routes(
    publisher: Publisher, *, settings: ServeSettings, authorize: Authorize
) -> list[web.RouteDef]:
    """Make the routes. ``publisher`` is started, and closed, by the caller.

    ``authorize(request)`` says who sends it, before anything of its body is read; it raises a
    web.HTTPException for one who may write nothing. Webhooks are authorised by their signature.

    A request is all or nothing: every event in it is checked, and every source authorised, before the first
    is sent. Two things are found out later, and then the answer says what became durable: that Kafka does not
    take them, and, after the first 1,000 events or 4 MiB, that an event is larger than the topic allows.

    Memory: bodies of at most ``max_body_bytes`` each and ``buffer_bytes`` together; beside them, webhooks not
    verified yet: ``max_webhook_bytes`` each, eight times that together.
    """
    limit, rate = "DUALSTREAM_MAX_BODY_BYTES", settings.min_body_rate
    bodies = Bodies(settings.max_body_bytes, settings.buffer_bytes, rate, limit)
    events = _Events(publisher, settings, authorize, bodies)
    webhooks = _Webhooks(publisher, settings, bodies)
    return [
        web.post("/ingest", _answered(events.handle), expect_handler=_expect),
        web.post("/ingest/github", _answered(webhooks.handle), expect_handler=_expect),
    ]


async def _expect(_request: web.Request) -> None:
    """A client that waits for a word before it sends its body gets none yet; see :meth:`Body.chunk`."""


def _answered(handler: _Handler) -> Handler:
    """Wrap a handler: every refusal becomes its answer, and the body is left unread."""

    async def refusing(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except HttpRefusal as refusal:
            return refusal.answer()
        except StreamUnavailable as error:  # whose words may name servers and users
            report_refusal(request, str(error))
            allowed = "the same request, later"
            return HttpRefusal(503, "Kafka cannot be used now", allowed, retry_after=1).answer()

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
                raise HttpRefusal(401, "the token has expired")
            self._limit(client)  # others of its requests may have used up what there was
            self._events.take(client, intake.count, time.monotonic())
            return await self._publish(intake)

    def _limit(self, client: str) -> None:
        for limit, what in ((self._requests, "requests"), (self._events, "events")):
            if wait := limit.wait(client, time.monotonic()):
                allowed = f"{limit.rate:g} {what}/s (DUALSTREAM_INGEST_{what[:-1].upper()}_RATE)"
                raise HttpRefusal(429, f"too many {what}", allowed, retry_after=wait)

    async def _publish(self, intake: Intake) -> web.Response:
        accepted = 0
        listed: list[dict[str, str | None]] = []
        for numbers, events in intake.batches(max_events=self._max_events, max_bytes=self._max_bytes):
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
        return json_answer(202, {"accepted": accepted} | ({"events": listed} if accepted <= _LISTED else {}))


async def _read_json(body: Body, intake: Intake) -> None:
    text = (await body.whole()).strip(_WHITE)
    if not text.startswith(b"["):
        await intake.add(text)
        return
    if len(text) > _MAX_ARRAY:
        allowed = f"JSON Lines ({' or '.join(_LINES)}) for more"
        raise HttpRefusal(413, f"the array is larger than {_MAX_ARRAY:,} bytes", allowed)
    try:
        _shapes.decode(text)
        elements = _elements.decode(text)
    except msgspec.ValidationError as error:
        place = _INDEX.search(str(error))
        number = int(place[1]) + 1 if place else 1
        raise intake.refuse([(number, _INDEX.sub("`$", str(error)))]) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise HttpRefusal(400, f"not JSON: {error}", "an event, or an array of events") from error
    for element in elements:
        await intake.add(bytes(element))


async def _read_lines(body: Body, intake: Intake) -> None:
    splitter = LineSplitter()
    while data := await body.chunk():
        for line in splitter.feed(data):
            await intake.add(line)
    await intake.add(splitter.rest())


class _Webhooks:
    """``POST /ingest/github``: GitHub's deliveries, each one event; counted by address until verified."""

    def __init__(self, publisher: Publisher, settings: ServeSettings, bodies: Bodies) -> None:
        self._publisher = publisher
        self._secret = b""
        if settings.github_secret is not None:
            self._secret = settings.github_secret.get_secret_value().encode()
        self._verified = bodies
        size, limit = settings.max_webhook_bytes, "DUALSTREAM_MAX_WEBHOOK_BYTES"
        self._unverified = Bodies(size, _UNVERIFIED * size, settings.min_body_rate, limit)
        self._retry_after = settings.buffer_timeout

    async def handle(self, request: web.Request) -> web.Response:
        kind = content_type(request, _JSON, _FORM)
        if not self._secret:
            allowed = "set DUALSTREAM_GITHUB_SECRET to the secret of the webhook"
            raise HttpRefusal(403, "webhooks are not taken", allowed)
        signature = request.headers.get("X-Hub-Signature-256", "")
        if _SIGNATURE.fullmatch(signature) is None:
            raise _bad_signature(signature)
        name, delivery = (request.headers.get(f"X-GitHub-{what}", "") for what in ("Event", "Delivery"))
        if not name:
            raise HttpRefusal(400, "X-GitHub-Event is missing", "the event's name, such as push")
        if name != "ping" and (reason := id_invalid_reason(delivery)):
            allowed = "the delivery's id, which becomes the event's"
            raise HttpRefusal(400, f"X-GitHub-Delivery: {reason}", allowed)
        with Body(self._unverified, request, f"address {request.remote}") as body:
            content = await body.whole()
            expected = "sha256=" + hmac.digest(self._secret, content, "sha256").hex()
            if not hmac.compare_digest(expected, signature):
                raise _bad_signature(signature)
            body.move(self._verified)
            if name == "ping":  # only asks whether somebody is there
                return json_answer(200, {"accepted": 0, "event": "ping"})
            payload = _payload(content) if kind == _FORM else content
            return await self._publish(_event(name, delivery, payload))

    async def _publish(self, event: Event) -> web.Response:
        try:
            receipt = await self._publisher.publish_batch([event])
        except EventError as error:
            raise HttpRefusal(422, error.invalid.get(0, str(error))) from error
        except PublishError as error:
            raise not_published(error, [event], before=0, retry_after=self._retry_after) from error
        return json_answer(202, receipts(receipt)[0])


def _bad_signature(signature: str) -> HttpRefusal:
    return HttpRefusal(
        401,
        f"X-Hub-Signature-256 {'is wrong' if signature else 'is missing'}",
        "sha256= and the HMAC of the body, in hex, with the secret in DUALSTREAM_GITHUB_SECRET",
    )


def _event(name: str, delivery: str, payload: bytes) -> Event:
    try:
        payload.decode()
        return webhook_event(name, msgspec.Raw(payload.strip(_WHITE)), delivery)
    except UnicodeError as error:
        raise HttpRefusal(400, f"the payload is not UTF-8: {error}") from error
    except EventError as error:
        raise HttpRefusal(400 if malformed(error) else 422, str(error), "a payload of GitHub's") from error


def _payload(form: bytes) -> bytes:
    for field in form.split(b"&"):
        name, _, value = field.partition(b"=")
        if name == b"payload":
            return unquote_to_bytes(value.replace(b"+", b" "))
    raise HttpRefusal(400, "the form has no field payload", f"payload=…, or {_JSON}")
