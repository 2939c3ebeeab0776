"""The API's description: OpenAPI 3.1, and what it has no words for: the messages of ``/ws`` and ``/sse``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dualstream_lab.gateway.schemas import STRING, object_of, ref, schemas

if TYPE_CHECKING:
    from dualstream_lab.gateway.schemas import Schema

__all__ = ["openapi_document"]

_ABOUT: Final = """\
Events are durable in Kafka, announced on Redis, and delivered here without a gap.

A **source** is `type:id`, for example `repo:octo/hello`. An event is known by its source and its `id`
together. A **cursor** is `epoch:partition:offset`, of a source in several partitions
`epoch:partition:offset~partition:offset…`: every event of the source up to it is known. Keep the last one
that you were given, and resume with it as `since`: nothing is missed. What then comes again has the same
`id`. A **pos** is `partition:offset`: the place of one event.

Where the past cannot be given whole `recovered` is false, and `reason` says why.
"""

_CLOSE_CODES: Final = {
    "1001": "the server ends: reconnect with your cursor",
    "1003": "only text messages are understood",
    "1009": "a message was too long",
    "1013": "tokens cannot be checked now: try again",
    "4400": "a message was not understood",
    "4401": "no token came in time, or it is forged or expired",
    "4403": "the token does not allow to read this source",
    "4408": "too slow: reconnect with your cursor",
    "4429": "too many subscriptions",
}

_STATUS: Final = {
    400: "What was asked is not understood",
    401: "A token is needed, or it is forged or expired; of a webhook: the signature is missing or wrong",
    403: "The token does not allow it; or the page, or the name of this server, is not allowed",
    404: "There is no such event (any more)",
    408: "The body came too slowly",
    413: "The body is too large",
    415: "The body is of another type, or compressed",
    422: "An event breaks a rule; nothing was sent, unless `accepted` says otherwise",
    429: "More than the token's rate",
    503: "Not now: try again",
    504: "Kafka had the events and did not acknowledge them: they may be in the log. Send them again with "
    "their ids: consumers deduplicate",
}

_SECURITY: Final[Schema] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Where the server asks for tokens. Claims: `exp`; `read` and `write`, lists of "
        "sources in which `*` stands for any characters: `repo:octo/*`.",
    },
    "accessToken": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "The same token, where a browser's `EventSource` cannot set a header.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Hub-Signature-256",
        "description": "`sha256=` and the HMAC of the body, in hex, with the webhook's secret.",
    },
}


@cache
def openapi_document() -> bytes:
    """The document, as JSON."""
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "dualstream_lab",
            "version": version("dualstream-lab"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": _ABOUT,
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "follow", "description": "Events as they happen, without a gap."},
            {"name": "read", "description": "Recent events, and one whole event."},
            {"name": "publish", "description": "Events into the log. Answered when Kafka has them."},
            {"name": "operate"},
        ],
        "security": [{}, {"bearer": []}, {"accessToken": []}],
        "paths": _follow() | _read() | _publish() | _operate(),
        "components": {"schemas": schemas(), "securitySchemes": _SECURITY},
    }
    return msgspec.json.encode(document)


# --- pieces of an operation


def _operation(
    tag: str, name: str, summary: str, about: str = "", *, answers: Schema, errors: Any = (), **more: Any
) -> Schema:
    """``answers``: the responses by status; ``errors``: the statuses of the others."""
    responses = answers | {str(status): _refusal(status) for status in errors} | {"default": _refusal(None)}
    operation = {"operationId": name, "tags": [tag], "summary": summary, "responses": responses} | more
    return operation | ({"description": about} if about else {})


def _refusal(status: int | None) -> Schema:
    answer = _json("Any other error" if status is None else _STATUS[status], ref("Error"))
    seconds = {"Retry-After": {"description": "s", "schema": {"type": "integer"}}}
    return answer | ({"headers": seconds} if status in {404, 429, 503, 504} else {})


def _json(about: str, schema: Schema) -> Schema:
    return _content("application/json", about, schema)


def _content(kind: str, about: str, schema: Schema) -> Schema:
    return {"description": about, "content": {kind: {"schema": schema}}}


def _parameter(place: str, name: str, about: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": place, "description": about, "schema": schema, "required": required}


_SINCE: Final = _parameter(
    "query",
    "since",
    "A cursor, `latest` (new events only), or `earliest` (all that is kept).",
    {"anyOf": [ref("Cursor"), {"enum": ["latest", "earliest"]}], "default": "latest"},
)


# --- operations


def _follow() -> Schema:
    sources = {"type": "array", "items": ref("Source")}
    sockets = _operation(
        "follow",
        "followByWebSocket",
        "Follow sources by WebSocket",
        "The server sends one `Message` a text frame, the client one `Command`. `since` is for the sources "
        'of the URL. Where tokens are asked for and the request has none, `{"token": …}` must come first.',
        parameters=[_parameter("query", "source", "Any number; more by `subscribe`.", sources), _SINCE],
        answers={"101": {"description": "A WebSocket. Errors from here on are messages and close codes."}},
        errors=(400, 401, 403, 429, 503),
    )
    sockets["x-websocket"] = {
        "receives": ref("Command"),
        "sends": ref("Message"),
        "closeCodes": _CLOSE_CODES,
    }
    stream = _content(
        "text/event-stream",
        "Events named by the message's `kind`. `data` is a `Message`. `id` is what to resume from: the "
        "source's cursor, or the cursors of all sources in their order, separated by commas. A comment "
        "every 15 s.",
        STRING,
    )
    stream["x-data"] = ref("Message")
    events = _operation(
        "follow",
        "followByServerSentEvents",
        "Follow sources by server-sent events",
        "For an `EventSource`, or `curl -N`.",
        parameters=[
            _parameter("query", "source", "One or more.", sources | {"minItems": 1}, required=True),
            _SINCE,
            _parameter("header", "Last-Event-ID", "Resumes; goes before `since`.", STRING),
        ],
        answers={"200": stream},
        errors=(400, 401, 403, 503),
    )
    return {"/ws": {"get": sockets}, "/sse": {"get": events}}


def _read() -> Schema:
    limit = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}
    listed = _operation(
        "read",
        "listEvents",
        "Recent events of a source",
        "Ascending: the newest; or, after a cursor or from `earliest`, the first. The answer's `cursor` is "
        "where to go on: here while there is `more`, then at `/ws` or `/sse`.",
        parameters=[
            _parameter("query", "source", "Of which source.", ref("Source"), required=True),
            _SINCE,
            _parameter("query", "limit", "At most so many.", limit),
        ],
        answers={"200": _json("The events", ref("Events"))},
        errors=(400, 401, 403, 503),
    )
    found = _json("The event", ref("Event"))
    found["headers"] = {"X-Position": {"description": "Where it is", "schema": ref("Position")}}
    which = [
        _parameter("query", "source", "Of which source: two may have events of one id.", ref("Source")),
        _parameter("query", "pos", "As in the notification.", ref("Position")),
    ]
    answers: Schema = {"answers": {"200": found}, "errors": (400, 401, 403, 404, 503)}
    whole = _operation(
        "read",
        "getEvent",
        "One whole event",
        _WHOLE,
        parameters=[_parameter("query", "id", "Its id.", ref("Id"), required=True), *which],
        **answers,
    )
    by_path = _operation(
        "read",
        "getEventByPath",
        "The same, for ids without `/`, `.` and the like",
        parameters=[_parameter("path", "id", "Its id.", ref("Id"), required=True), *which],
        **answers,
    )
    return {"/events": {"get": listed}, "/event": {"get": whole}, "/events/{id}": {"get": by_path}}


_WHOLE: Final = (
    "As it is in Kafka, byte for byte: the event at `pos`, if it has this id (and this source); else the one "
    "of `source`; else the only one of this id. An event is announced before it is stored: with `pos` the "
    "answer waits, within bounds, until the store has come so far."
)
_EXAMPLE: Final = {
    "type": "push",
    "source_type": "repo",
    "source_id": "octo/hello",
    "data": {"ref": "refs/heads/main"},
}
_BODY_ERRORS: Final = (400, 401, 403, 408, 413, 415, 422, 503, 504)


def _publish() -> Schema:
    lines = {"schema": STRING | {"description": "An event a line."}}
    events = {"oneOf": [ref("Event"), {"type": "array", "items": ref("Event"), "minItems": 1}]}
    kinds = {
        "application/json": {"schema": events, "example": _EXAMPLE},
        "application/x-ndjson": lines,
        "application/jsonl": lines,
    }
    ingest = _operation(
        "publish",
        "publishEvents",
        "Publish events",
        "One, an array, or JSON Lines. All are checked before the first is sent.",
        requestBody={"required": True, "content": kinds},
        answers={"202": _json("All are durable", ref("Accepted"))},
        errors=(*_BODY_ERRORS, 429),
    )
    deliveries = {
        "application/json": {"schema": {"type": "object"}},
        "application/x-www-form-urlencoded": {"schema": object_of({"payload": STRING})},
    }
    github = _operation(
        "publish",
        "publishWebhook",
        "Publish a delivery of a GitHub webhook",
        "Its id becomes the event's, its name and action the type, its payload `data`, byte for byte.",
        security=[{"signature": []}],
        parameters=[
            _parameter("header", "X-GitHub-Event", "The name, such as push.", STRING, required=True),
            _parameter("header", "X-GitHub-Delivery", "The id. A ping needs none.", ref("Id")),
        ],
        requestBody={"required": True, "content": deliveries},
        answers={
            "200": _json("It was a ping", ref("Pinged")),
            "202": _json("It is durable", ref("Receipt")),
        },
        errors=_BODY_ERRORS,
    )
    return {"/ingest": {"post": ingest}, "/ingest/github": {"post": github}}


def _operate() -> Schema:
    alive = _json("It is", object_of({"alive": {"const": True}}))
    ready = {"200": _json("It can", ref("Ready")), "503": _json("It cannot", ref("Ready"))}
    without_redis = "Without Redis it can: from the store."
    metrics = {"200": _content("text/plain", "For Prometheus", STRING)}
    return {
        "/": _public("page", "A live page", {"200": _content("text/html", "The page", STRING)}),
        "/healthz": _public("alive", "Is it alive?", {"200": alive}),
        "/readyz": _public("ready", "Can it serve?", ready, without_redis),
        "/openapi.json": _public(
            "document", "This document", {"200": _json("The document", {"type": "object"})}
        ),
        "/metrics": {"get": _operation("operate", "metrics", "Metrics", answers=metrics, errors=(401,))},
    }


def _public(name: str, summary: str, answers: Schema, about: str = "") -> Schema:
    return {"get": _operation("operate", name, summary, about, answers=answers, security=[])}
