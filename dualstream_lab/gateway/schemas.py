"""The API's JSON as JSON Schemas: what msgspec knows of it, and the rules that it does not."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dualstream_lab.event import ID_PATTERN, Event
from dualstream_lab.gateway.frames import EventFrame
from dualstream_lab.gateway.past import Refusal
from dualstream_lab.gateway.session import Command

__all__ = ["STRING", "Schema", "object_of", "ref", "schemas"]

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}


def ref(name: str, **more: Any) -> Schema:
    """The schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"} | more


def object_of(required: Schema, optional: Schema | None = None, about: str = "") -> Schema:
    """An object. Optional properties may be left out; they are never null."""
    properties = required | (optional or {})
    schema = {"type": "object", "required": list(required), "properties": properties}
    return schema | ({"description": about} if about else {})


def schemas() -> Schema:
    """All, by name."""
    _, made = msgspec.json.schema_components([EventFrame, Event, Command], ref_template=ref("{name}")["$ref"])
    return _NAMES | {"Event": _event(made["Event"])} | _messages(made) | _answers()


_NAMES: Final[Schema] = {
    "Source": {
        **STRING,
        "pattern": "^[a-z][a-z0-9_-]{0,63}:[^_ *?\\\\][^ *?\\\\]*$",
        "examples": ["repo:octo/hello"],
    },
    "Cursor": {
        **STRING,
        "pattern": "^[0-9a-z]{1,32}:[0-9]{1,9}:(-1|[0-9]{1,18})(~[0-9]{1,9}:(-1|[0-9]{1,18}))*$",
        "maxLength": 16_384,
        "examples": ["9f2c51aa03de:3:1041"],
    },
    "Position": {**STRING, "pattern": "^[0-9]{1,9}:[0-9]{1,18}$", "examples": ["3:1042"]},
    "Id": {
        **STRING,
        "pattern": f"^(?:{ID_PATTERN.pattern})$",
        "examples": ["0198c7a2-5d1e-7c3a-9f10-2b6f0c3d4e5f"],
    },
    "NotRecovered": {
        "enum": [reason.value for reason in Refusal],
        "description": "`epoch_changed`: the cursor is of another log, or the topic was made anew. "
        "`retention`, `compaction`: some were removed. `too_far_behind`: there are too many; read them from "
        "`/events`. `store_lag`: the store is behind the log. `store_unavailable`: it does not answer. "
        "`log_unavailable`: Kafka does not say how far the log goes. With `store_lag` at `/events`, and with "
        "`log_unavailable`, what is given is whole up to the cursor, and more may follow; with `retention` "
        "and `compaction` of the `earliest`, what is left is given. With all others nothing is.",
    },
}


def _event(made: Schema) -> Schema:
    """msgspec knows its fields, and ``event.py`` their rules."""
    rules = {
        "id": ref("Id"),
        "type": {**STRING, "minLength": 1, "maxLength": 256, "examples": ["push"]},
        "source_type": {**STRING, "pattern": "^[a-z][a-z0-9_-]{0,63}$", "examples": ["repo"]},
        "source_id": {**STRING, "minLength": 1, "maxLength": 256, "examples": ["octo/hello"]},
        "occurred_at": {**STRING, "format": "date-time"},
        "traceparent": {**STRING, "description": "W3C trace context."},
        "data": {"description": "Anything; kept byte for byte."},
    }
    about = "Where one is published without `id` or `occurred_at`, they are filled in."
    return made | {"properties": made["properties"] | rules, "description": about}


# --- what is said on /ws and /sse

_OF: Final = {"source": ref("Source")}
_AT: Final = _OF | {"cursor": ref("Cursor")}
_SUBSCRIBED: Final = (
    "Catch-up is over, live from now on. `recovered` false: not all of the past was sent; see "
    "`NotRecovered`. Said again, with false, where events were removed before they could be compared, and "
    "where the topic was made anew."
)
_DEGRADED: Final = "Redis is away. Until `live`, events come from the store, marked `late`."
_STATES: Final[dict[str, tuple[str, Schema, Schema]]] = {
    "subscribed": (_SUBSCRIBED, _AT | {"recovered": {"type": "boolean"}}, {"reason": ref("NotRecovered")}),
    "sync": ("Everything up to the cursor was delivered.", _AT, {}),
    "degraded": (_DEGRADED, _OF | {"reason": STRING}, {}),
    "live": ("Redis is heard again.", _AT, {}),
    "unsubscribed": ("As asked for.", _OF, {}),
    "error": ("A command, or a subscription, failed.", {"error": STRING}, {"source": STRING}),
}
_COMMAND: Final = (
    'What a client says: `{"subscribe": source, "since": cursor}`, `{"unsubscribe": source}` or, first, '
    '`{"token": …}`.'
)


def _messages(made: Schema) -> Schema:
    messages = {"EventMessage": _event_message(made["EventFrame"])}
    for kind, (about, required, optional) in _STATES.items():
        said = {"kind": {"const": kind}} | required
        messages[f"{kind.capitalize()}Message"] = object_of(said, optional, about)
    kinds = {name.removesuffix("Message").lower(): ref(name) for name in messages}
    return {
        "Message": {
            "description": "What the server says.",
            "oneOf": list(kinds.values()),
            "discriminator": {
                "propertyName": "kind",
                "mapping": {kind: target["$ref"] for kind, target in kinds.items()},
            },
        },
        "Command": made["Command"]
        | {"description": _COMMAND, "examples": [{"subscribe": "repo:octo/hello", "since": "latest"}]},
        **messages,
    }


def _event_message(made: Schema) -> Schema:
    when = "ns since the epoch: of Kafka's ack, or (late, old) of the record."
    rules = _OF | {
        "pos": ref("Position"),
        "cursor": ref("Cursor", description="From where to resume."),
        "ts": {"type": "integer", "format": "int64", "description": when},
        "late": {"type": "boolean", "description": "Redis lost it; comparing with the store found it."},
        "old": {"type": "boolean", "description": "It is from before the client came."},
    }
    about = "An event happened. The whole of it is at `/event?id=…&source=…&pos=…`."
    return made | {"title": "EventMessage", "properties": made["properties"] | rules, "description": about}


# --- what is answered

_RECEIPT: Final = (
    "Where an event is. `pos` is null where Kafka acknowledged a repeated one without saying where it is."
)
_ERROR: Final = (
    "`error`: what is wrong. `allowed`: what would be right. `accepted`: events of the request that are "
    "durable nevertheless. `events`: what became of each (`pos`, `rejected` or `unknown`). `invalid`: which "
    "ones break a rule."
)


_READY: Final = (
    "`up`, `away`, or what is wrong. `processor`: whether what is published comes into the store, and in "
    "time. `open_transactions`: what they hold back, which is no failure."
)


def _answers() -> Schema:
    count = {"type": "integer", "minimum": 0}
    fate = {"pos": {"type": ["string", "null"]}, "rejected": STRING, "unknown": {"const": True}}
    bad = object_of({"reason": STRING}, {"line": count, "event": count})
    doubts = {"events": _list(object_of({"id": STRING}, fate)), "invalid": _list(bad)}
    page = {"cursor": ref("Cursor"), "more": {"type": "boolean"}, "recovered": {"type": "boolean"}}
    parts = dict.fromkeys(("kafka", "store", "processor", "redis"), STRING)
    return {
        "Error": object_of({"error": STRING}, {"allowed": STRING, "accepted": count} | doubts, _ERROR),
        "Events": object_of({"events": _list(ref("Event"))} | page, {"reason": ref("NotRecovered")}),
        "Receipt": object_of(
            {"id": STRING, "pos": {"oneOf": [ref("Position"), {"type": "null"}]}}, {}, _RECEIPT
        ),
        "Accepted": object_of(
            {"accepted": count}, {"events": _list(ref("Receipt"))}, "`events` is left out beyond 1,000."
        ),
        "Pinged": object_of({"accepted": {"const": 0}, "event": {"const": "ping"}}),
        "Ready": object_of({"ready": {"type": "boolean"}} | parts, {"open_transactions": STRING}, _READY),
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}
