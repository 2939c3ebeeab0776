"""``POST /ingest/github``: GitHub's deliveries, each one event."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import msgspec

from dualstream_lab.errors import EventError, PublishError
from dualstream_lab.event import id_invalid_reason
from dualstream_lab.ingest.answers import Refusal, answer, not_published, receipts
from dualstream_lab.ingest.body import Bodies, Body, content_type
from dualstream_lab.ingest.intake import malformed
from dualstream_lab.ingest.lines import webhook_event

if TYPE_CHECKING:
    from aiohttp import web

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.event import Event
    from dualstream_lab.ingest.feed import Publisher

__all__ = ["Webhooks"]

_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_WHITE = b" \t\r\n"
_UNVERIFIED: Final = 8  # bodies of the largest size that are held before their signatures are verified


class Webhooks:
    """The handler. A delivery's id becomes the event's.

    Until its signature is verified a body is a stranger's: it is counted by its address, among its like.
    """

    def __init__(self, publisher: Publisher, settings: ServeSettings, bodies: Bodies) -> None:
        self._publisher = publisher
        self._secret = settings.github_secret
        self._verified = bodies
        self._unverified = Bodies(
            max_bytes=settings.max_webhook_bytes,
            max_held=_UNVERIFIED * settings.max_webhook_bytes,
            min_rate=settings.min_body_rate,
            limit="DUALSTREAM_MAX_WEBHOOK_BYTES",
        )
        self._retry_after = settings.buffer_timeout

    async def handle(self, request: web.Request) -> web.Response:
        """A delivery. Raises Refusal."""
        kind = content_type(request, _JSON, _FORM)
        if self._secret is None or not self._secret.get_secret_value():
            raise Refusal(
                403, "webhooks are not taken", "set DUALSTREAM_GITHUB_SECRET to the secret of the webhook"
            )
        signature = request.headers.get("X-Hub-Signature-256", "")
        if _SIGNATURE.fullmatch(signature) is None:
            raise _bad_signature(signature)
        name, delivery = _delivery(request)
        with Body(self._unverified, request, f"address {request.remote}") as body:
            content = await body.whole()
            _verify(self._secret.get_secret_value().encode(), content, signature)
            body.move(self._verified)
            if name == "ping":  # only asks whether somebody is there
                return answer(200, {"accepted": 0, "event": "ping"})
            return await self._publish(
                _event(name, delivery, _payload(content) if kind == _FORM else content)
            )

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


def _delivery(request: web.Request) -> tuple[str, str]:
    """The event's name, and the delivery's id, which a ping need not have."""
    name, delivery = (request.headers.get(f"X-GitHub-{what}", "") for what in ("Event", "Delivery"))
    if not name:
        raise Refusal(400, "X-GitHub-Event is missing", "the event's name, such as push")
    if name != "ping" and (reason := id_invalid_reason(delivery)):
        raise Refusal(400, f"X-GitHub-Delivery: {reason}", "the delivery's id, which becomes the event's")
    return name, delivery


def _event(name: str, delivery: str, payload: bytes) -> Event:
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
