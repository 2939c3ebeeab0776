"""Events over HTTP: ``POST /ingest`` and ``POST /ingest/github``, answered when Kafka has them.

Mounted by the gateway, or alone: ``web.Application().add_routes(ingest_routes(…))``. Answers are JSON; an
error is ``{"error", "allowed"?}`` and what is known of the events.
"""

from __future__ import annotations

import functools
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web

from dualstream_lab.errors import EventError, PublishError, StreamUnavailable
from dualstream_lab.event import id_invalid_reason
from dualstream_lab.ingest.answers import Refusal, answer, not_published, receipts
from dualstream_lab.ingest.body import Bodies, Body, LineSplitter
from dualstream_lab.ingest.intake import Intake, malformed
from dualstream_lab.ingest.lines import webhook_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.event import Event
    from dualstream_lab.ingest.feed import Publisher

    Authorize = Callable[[web.Request, str], Awaitable[None] | None]
    _Handler = Callable[[web.Request], Awaitable[web.Response]]

__all__ = ["ingest_routes"]

_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
_LINES = ("application/x-ndjson", "application/jsonl")
_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_WHITE = b" \t\r\n"
_BATCH_EVENTS = 1_000
_BATCH_BYTES = 4 * 2**20
_MAX_ARRAY = 4 * 2**20  # an array cannot be looked at in pieces
_LISTED = 1_000  # receipts in an answer


def ingest_routes(
    publisher: Publisher, *, settings: ServeSettings, authorize: Authorize
) -> list[web.RouteDef]:
    """The routes. ``publisher`` is started, and closed, by the caller.

    ``authorize(request, "type:id")`` is asked before anything of a source is sent, and raises
    web.HTTPUnauthorized or web.HTTPForbidden. Webhooks are authorised by their signature.

    A request is all or nothing: every event in it is checked, and every source authorised, before the first
    is sent. Two things are found out later, and then the answer says what became durable: that Kafka does not
    take them, and, after the first 1,000 events or 4 MiB, that an event is larger than the topic allows.

    Memory: bodies of at most ``max_body_bytes`` each and ``buffer_bytes`` together.
    """
    bodies = Bodies(max_bytes=settings.max_body_bytes, max_held=settings.buffer_bytes)
    events = _Events(publisher, settings, authorize, bodies)
    webhooks = _Webhooks(publisher, settings, bodies)
    return [
        web.post("/ingest", _answered(events.handle)),
        web.post("/ingest/github", _answered(webhooks.handle)),
    ]


def _answered(handler: _Handler) -> _Handler:
    """With every refusal turned into its answer."""

    @functools.wraps(handler)
    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal.response()
        except StreamUnavailable as error:
            return Refusal(503, str(error), "the same request, later", retry_after=1).response()

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

    async def handle(self, request: web.Request) -> web.Response:
        kind = _content_type(request, _JSON, *_LINES)

        async def authorized(source: str) -> None:
            verdict = self._authorize(request, source)
            if verdict is not None:
                await verdict

        intake = Intake(authorized, unit="event" if kind == _JSON else "line")
        with Body(self._bodies, request) as body:
            await (_read_json if kind == _JSON else _read_lines)(body, intake)
            return await self._publish(intake)

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


async def _read_lines(body: Body, intake: Intake) -> None:
    splitter = LineSplitter()
    while data := await body.chunk():
        for line in splitter.feed(data):
            await intake.add(line)
    await intake.add(splitter.rest())


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
    try:
        raws = msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(400, f"not JSON: {error}", "an event, or an array of events") from error
    for raw in raws:
        await intake.add(bytes(raw))


class _Webhooks:
    """``POST /ingest/github``: GitHub's deliveries, each one event with the delivery's id."""

    def __init__(self, publisher: Publisher, settings: ServeSettings, bodies: Bodies) -> None:
        self._publisher = publisher
        self._secret = settings.github_secret
        self._bodies = bodies
        self._retry_after = settings.buffer_timeout

    async def handle(self, request: web.Request) -> web.Response:
        if self._secret is None or not self._secret.get_secret_value():
            raise Refusal(
                403, "webhooks are not taken", "set DUALSTREAM_GITHUB_SECRET to the secret of the webhook"
            )
        kind = _content_type(request, _JSON, _FORM)
        signature = request.headers.get("X-Hub-Signature-256", "")
        if _SIGNATURE.fullmatch(signature) is None:
            raise _bad_signature(signature)
        with Body(self._bodies, request) as body:
            content = await body.whole()
            _verify(self._secret.get_secret_value().encode(), content, signature)
            event = _webhook(request, _payload(content) if kind == _FORM else content)
            if event is None:
                return answer(200, {"accepted": 0, "event": "ping"})
            return await self._publish(event)

    async def _publish(self, event: Event) -> web.Response:
        try:
            receipt = await self._publisher.publish_batch([event])
        except EventError as error:
            raise Refusal(422, error.invalid.get(0, str(error))) from error
        except PublishError as error:
            raise not_published(error, [event], before=0, retry_after=self._retry_after) from error
        return answer(202, receipts(receipt)[0])


def _verify(secret: bytes, content: bytes, signature: str) -> None:
    expected = "sha256=" + hmac.digest(secret, content, "sha256").hex()
    if not hmac.compare_digest(expected, signature):
        raise _bad_signature(signature)


def _bad_signature(signature: str) -> Refusal:
    return Refusal(
        401,
        f"X-Hub-Signature-256 {'is wrong' if signature else 'is missing'}",
        "sha256= and the HMAC of the body, in hex, with the secret in DUALSTREAM_GITHUB_SECRET",
    )


def _webhook(request: web.Request, payload: bytes) -> Event | None:
    """The delivery's event; None for a ping, which only asks whether somebody is there."""
    name, delivery = (request.headers.get(f"X-GitHub-{what}", "") for what in ("Event", "Delivery"))
    if not name:
        raise Refusal(400, "X-GitHub-Event is missing", "the event's name, such as push")
    if name == "ping":
        return None
    if reason := id_invalid_reason(delivery):
        raise Refusal(400, f"X-GitHub-Delivery: {reason}", "the delivery's id, which becomes the event's")
    try:
        payload.decode()
        return webhook_event(name, msgspec.Raw(payload.strip(_WHITE)), delivery)
    except UnicodeError as error:
        raise Refusal(400, f"the payload is not UTF-8: {error}") from error
    except EventError as error:
        raise Refusal(400 if malformed(error) else 422, str(error), "a payload of GitHub's") from error


def _payload(form: bytes) -> bytes:
    """The bytes of the form's field ``payload``."""
    for field in form.split(b"&"):
        name, _, value = field.partition(b"=")
        if name == b"payload":
            return unquote_to_bytes(value.replace(b"+", b" "))
    raise Refusal(400, "the form has no field payload", f"payload=…, or {_JSON}")


def _content_type(request: web.Request, *allowed: str) -> str:
    """The content type, one of those. Raises Refusal."""
    kind = request.content_type if "Content-Type" in request.headers else "none"
    if kind not in allowed:
        raise Refusal(415, f"Content-Type is {kind}", " or ".join(allowed))
    if (charset := request.charset or "utf-8").lower().replace("_", "-") not in {"utf-8", "utf8", "us-ascii"}:
        raise Refusal(415, f"charset is {charset}", "utf-8")
    return kind
