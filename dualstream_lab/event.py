"""What travels: ``Event`` on Kafka, ``Notification`` on Redis, their codec, channels and headers. No I/O.

An event is known by its source and its id together, as in CloudEvents: two sources may both number from 1.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec
import uuid_utils

from dualstream_lab.errors import EventError

MAX_NESTING: Final = 512
"""Arrays and objects within one another, at most, in an event's JSON.

How deep a reader can go depends on the stack that it happens to run on (about 980 with an empty one), so what
every reader takes has a fixed bound well below that.
"""

_SHALLOW: Final = 2 * MAX_NESTING  # bytes: each level takes two, and most events are shorter

Header = tuple[str, bytes]

ID_PATTERN: Final = re.compile(r"[!#-\[\]-~]{1,128}")  # printable ASCII without space, quote and backslash
_SOURCE_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)  # a string as a whole, or a bracket
_MAX_NAME_BYTES = 256
_FORBIDDEN = frozenset("*?\\")


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562): unique, and ordered by its time of making within one process."""
    return str(uuid_utils.uuid7())


def _now() -> datetime:
    return datetime.now(UTC)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, to which source.

    ``data`` is anything that msgspec can write as JSON; ``msgspec.Raw`` is written as it stands, byte
    for byte. A decoded event carries ``data`` as ``msgspec.Raw``. ``occurred_at`` must know its time
    zone. ``traceparent`` (W3C) is optional and left out of the JSON when unset; ``None`` is unset.
    """

    id: str = msgspec.field(default_factory=new_id)
    type: str
    source_type: str
    source_id: str
    occurred_at: datetime = msgspec.field(default_factory=_now)
    traceparent: str | msgspec.UnsetType | None = msgspec.UNSET
    data: Any = None


class _StoredEvent(Event, frozen=True, kw_only=True):
    """An event as read: ``data`` is left as it stands."""

    traceparent: str | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw = msgspec.Raw(b"null")


class Notification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The light message on Redis: never the payload.

    ``pos`` is ``"partition:offset"``, ``log`` the epoch of the log that this is a position of, ``pub``
    ``"nonce:n"`` (the publisher and its counter for this source; a hole is a notification that was dropped),
    ``ts`` the time of Kafka's ack (wall clock, ns).
    """

    id: str
    type: str
    source_id: str
    pos: str | None = None
    log: str | None = None
    pub: str | None = None
    ts: int | None = None

    @property
    def position(self) -> tuple[int, int] | None:
        """(partition, offset) of the event, where it is known. Raises EventError for another form."""
        if self.pos is None:
            return None
        partition, _, offset = self.pos.partition(":")
        try:
            return int(partition), int(offset)
        except ValueError as error:
            raise EventError(f"pos {self.pos!r} is not partition:offset") from error


_encode = msgspec.json.Encoder().encode
_Raw = msgspec.Raw
_decode_raw = msgspec.json.Decoder(_Raw).decode
_event_decoder = msgspec.json.Decoder(_StoredEvent)
_notification_decoder = msgspec.json.Decoder(Notification)


def encode_event(event: Event) -> bytes:
    """The event as compact JSON, UTF-8, that every reader takes.

    Raises EventError where ``data`` has no JSON form, is a ``Raw`` that is not one JSON value, or is nested
    deeper than :data:`MAX_NESTING`.
    """
    if event.traceparent is None:
        event = msgspec.structs.replace(event, traceparent=msgspec.UNSET)
    try:
        value = _encode(event)
        if type(event.data) is _Raw:
            _decode_raw(event.data)  # one JSON value, with nothing after it
            if not value.isascii():
                value.decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EventError(f"data cannot be written as JSON: {error}") from error
    if len(value) > _SHALLOW and is_too_deep(value):
        raise EventError(f"data is nested too deep: at most {MAX_NESTING} levels are allowed")
    return value


def is_too_deep(value: bytes) -> bool:
    """Whether arrays and objects of a JSON text are within one another deeper than :data:`MAX_NESTING`."""
    # Few are found ten times as fast by taking them out as by counting.
    size = len(value)
    if size <= _SHALLOW or size - len(value.replace(b"[", b"").replace(b"{", b"")) <= MAX_NESTING:
        return False
    depth = 0
    for token in _TOKENS.finditer(value):
        mark = token[0]
        if mark in b"[{":
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif mark in b"]}":
            depth -= 1
    return False


def decode_event(value: bytes | str) -> Event:
    """The event in a line of JSON, or in a Kafka value that was found good; ``data`` keeps its bytes.

    A missing ``id`` or ``occurred_at`` is filled in. Raises EventError; the names are not validated
    (see :func:`invalid_reason`). Whether a Kafka record is an event says the record's Decoder.
    """
    try:
        if isinstance(value, bytes) and not value.isascii():
            value.decode()  # raw data is not looked into, and JSON is UTF-8
        stored = _event_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EventError(str(error)) from error
    return Event(
        id=stored.id,
        type=stored.type,
        source_type=stored.source_type,
        source_id=stored.source_id,
        occurred_at=stored.occurred_at,
        traceparent=stored.traceparent,
        data=stored.data,
    )


def decode_notification(message: bytes) -> Notification:
    """The notification in a Redis message. Raises EventError."""
    try:
        return _notification_decoder.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EventError(f"not a notification: {error}") from error


def _name_invalid(name: object, kind: str) -> str | None:
    """Why a text cannot stand in a channel or header; None when it can."""
    if not isinstance(name, str) or not name:
        return f"{kind} is empty or not a string"
    if not name.isprintable() or " " in name or not _FORBIDDEN.isdisjoint(name):
        return f"{kind} {name!r}: only printable characters without spaces, '*', '?' and '\\' are allowed"
    if unicodedata.normalize("NFC", name) != name:
        return f"{kind} {name!r}: must be in Unicode normal form C, so that it has one spelling"
    if len(name.encode()) > _MAX_NAME_BYTES:
        return f"{kind} has {len(name.encode())} bytes; at most {_MAX_NAME_BYTES} are allowed"
    return None


def source_invalid_reason(source_type: object, source_id: object) -> str | None:
    """Why a source cannot be published to or listened to; None when it can."""
    if not isinstance(source_type, str) or _SOURCE_TYPE.fullmatch(source_type) is None:
        return f"source_type {source_type!r}: must match {_SOURCE_TYPE.pattern}"
    if isinstance(source_id, str) and source_id.startswith("_"):
        return f"source_id {source_id!r}: must not begin with '_' (reserved)"
    return _name_invalid(source_id, "source_id")


def id_invalid_reason(event_id: object) -> str | None:
    """Why an event id cannot be used; None when it can."""
    if isinstance(event_id, str) and ID_PATTERN.fullmatch(event_id):
        return None
    return f"id {event_id!r}: 1 to 128 printable ASCII characters without space, '\"' and '\\' are allowed"


def type_invalid_reason(event_type: object) -> str | None:
    """Why an event type cannot be used; None when it can."""
    return _name_invalid(event_type, "type")


def occasion_invalid_reason(occurred_at: object, traceparent: object) -> str | None:
    """Why the time or the trace of an event cannot be used; None when they can."""
    offset = occurred_at.utcoffset() if isinstance(occurred_at, datetime) else None
    if offset is None:
        return f"occurred_at {occurred_at!r}: must be a datetime with a time zone"
    if offset.seconds % 60 or offset.microseconds:
        return f"occurred_at {occurred_at!r}: RFC 3339 has no seconds in a UTC offset; convert it to UTC"
    if traceparent is msgspec.UNSET or traceparent is None:
        return None
    if not isinstance(traceparent, str) or _TRACEPARENT.fullmatch(traceparent) is None:
        return f"traceparent {traceparent!r}: must be W3C, like 00-<32 hex>-<16 hex>-01"
    return None


def invalid_reason(event: Event) -> str | None:
    """Why an event cannot be published, whatever its data; None when it can."""
    return (
        id_invalid_reason(event.id)
        or type_invalid_reason(event.type)
        or source_invalid_reason(event.source_type, event.source_id)
        or occasion_invalid_reason(event.occurred_at, event.traceparent)
    )


def channel_of(source_type: str, source_id: str, prefix: str = "") -> str:
    """The Redis channel of a source: ``events:{source_type}:{source_id}``, after the estate's prefix."""
    return f"{prefix}events:{source_type}:{source_id}"


def shard_channel(source_type: str, source_id: str, shards: int, prefix: str = "") -> str:
    """The aggregate channel: ``events:{source_type}:_shard{k}``, k = CRC-32 of the id modulo ``shards``."""
    return f"{prefix}events:{source_type}:_shard{zlib.crc32(source_id.encode()) % shards}"


def resync_channel(prefix: str = "") -> str:
    """Where a publisher names the sources whose notifications it skipped: ``events:_resync``."""
    return f"{prefix}events:_resync"


def event_key(source: str, event_id: str) -> str:
    """An event's identity as one text, for sets and tables: its source (``type:id``) and its id.

    Neither holds a space, so that no two events have the same.
    """
    return f"{source} {event_id}"


def cloudevents_source(source_type: str, source_id: str) -> str:
    """The source as a URI reference, for ``ce_source``: ``/{source_type}/{source_id}``, percent-encoded."""
    return f"/{source_type}/{quote(source_id, safe='/:@')}"
