"""Events into the parts of a call: validated and encoded at the time of the call, all or none."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec

from dualstream_lab.errors import ConfigError, EventError
from dualstream_lab.event import Event, Header, encode_event, id_invalid_reason, occasion_invalid_reason
from dualstream_lab.publisher.call import PartitionSlice, PublishCall
from dualstream_lab.publisher.core import encode, record
from dualstream_lab.publisher.record_batch import BatchLimit, Codec
from dualstream_lab.publisher.record_format import encoded_header, varint
from dualstream_lab.publisher.route import EventType, Route
from dualstream_lab.publisher.routes import Routes

_NAMED = 20  # bad events spelled out in a message
_MAX_HEADERS, _MAX_NAME, _MAX_VALUE = 16, 256, 4096
_WRITTEN = frozenset({"content-type", "traceparent"})
_to_json = msgspec.json.Encoder().encode  # a time as it is in the event's JSON
_OWN, _OF_TRACE = 6, 2  # headers that every event has, and those of a trace


def checked_headers(headers: Iterable[tuple[str, bytes]]) -> tuple[Header, ...]:
    """Headers for every record. Raises ConfigError for those that cannot be used."""
    checked = tuple(headers)
    for header in checked:
        if reason := _header_invalid(header):
            raise ConfigError(f"headers: {header!r} {reason}")
    if len(checked) > _MAX_HEADERS:
        raise ConfigError(f"headers: at most {_MAX_HEADERS} are allowed (are {len(checked)})")
    return checked


def _header_invalid(header: object) -> str | None:
    if not isinstance(header, tuple) or [type(part) for part in header] != [str, bytes]:
        return "is not a name (str) and a value (bytes)"
    name, value = header
    if not name.isprintable() or not 1 <= len(name.encode()) <= _MAX_NAME:
        return f"needs a name of 1 to {_MAX_NAME} bytes of printable characters"
    if name.lower().startswith("ce_") or name.lower() in _WRITTEN:
        return "is a header that the publisher itself writes"
    if len(value) > _MAX_VALUE:
        return f"has a value of {len(value)} bytes; at most {_MAX_VALUE} are allowed"
    return None


class Encoder:
    """Encodes for one topic. ``limit`` says how large an event may be as it is sent: compressed by ``codec``.

    ``headers`` are added to each record's own.
    """

    def __init__(
        self, routes: Routes, *, limit: BatchLimit, codec: Codec | None = None, headers: Sequence[Header] = ()
    ) -> None:
        self._routes = routes
        self._limit = limit
        self._codec = codec
        self._headers = b"".join(encoded_header(header) for header in headers)
        self._count = varint(_OWN + len(headers))
        self._count_with_trace = varint(_OWN + _OF_TRACE + len(headers))

    def call(self, events: Sequence[Event], *, skip_invalid: bool = False) -> PublishCall:
        """A call with its parts, by partition. Raises EventError naming every bad index."""
        ids = _ids_of(events)
        call = PublishCall(ids, self._routes.generation)
        invalid: dict[int, str] = {}
        parts: dict[int, PartitionSlice] = {}
        timestamp = time.time_ns() // 1_000_000
        index, end = self._encode(events, 0, ids, timestamp, parts), len(events)
        while index < end:
            try:
                route, kind, made = self._unusual(events[index])
            except (EventError, TypeError) as error:  # TypeError: a name that cannot be looked up
                invalid[index] = str(error)
            else:
                if (part := parts.get(route.partition)) is None:
                    part = parts[route.partition] = PartitionSlice(ids, route.partition, timestamp)
                part.indices.append(index)
                part.types.append(kind.json)
                part.routes.append(route)
                part.records.append(made)
            index = self._encode(events, index + 1, ids, timestamp, parts)
        if invalid and not skip_invalid:
            raise EventError(_refusal(call, invalid), invalid=invalid)
        call.invalid = invalid
        call.parts = list(parts.values())
        for part in call.parts:
            part.size = sum(map(len, part.records))
            call.size += part.size
        call.open = len(call.parts)
        call.events = len(events) - len(invalid)
        return call

    def _encode(
        self,
        events: Sequence[Event],
        index: int,
        ids: Sequence[str],
        timestamp: int,
        parts: dict[int, PartitionSlice],
    ) -> int:
        """The usual events from there on; where there is another."""
        routes = self._routes
        return encode(
            events, index, ids, timestamp, parts, PartitionSlice, routes.routes, routes.types, self._count,
            self._headers, self._limit.event_bytes,
        )  # fmt: skip

    def _unusual(self, event: Event) -> tuple[Route, EventType, bytes]:
        """Of a new source, perhaps, or with a trace. Raises EventError; TypeError for a name that is none."""
        trace = _trace_of(event)
        kind = self._routes.type(event.type)
        route = self._routes.route(event.source_type, event.source_id)
        value, when = encode_event(event), _to_json(event.occurred_at)[1:-1]
        count = self._count_with_trace if trace else self._count
        made = record(route, kind, value, event.id, when, count, trace + self._headers)
        limit = self._limit.event_bytes
        if len(made) > limit and (size := self._sent_size(made)) > limit:
            raise EventError(f"has {size} bytes with key and headers; the topic takes at most {limit}")
        return route, kind, made

    def _sent_size(self, record: bytes) -> int:
        """Kafka's limit is of what it is sent."""
        return len(record) if self._codec is None else min(len(record), len(self._codec.compress(record)))


def skips_invalid(on_invalid: str) -> bool:
    """Whether a batch's invalid events are left out. Raises ConfigError for what says neither."""
    if on_invalid not in {"refuse", "skip"}:
        raise ConfigError(f"on_invalid must be 'refuse' or 'skip' (is {on_invalid!r})")
    return on_invalid == "skip"


def _ids_of(events: Sequence[Event]) -> list[str]:
    try:
        return [event.id for event in events]
    except AttributeError:  # something is no event, which is found out later
        return [getattr(event, "id", "") for event in events]


def _trace_of(event: Event) -> bytes:
    """The headers of its trace; none for most. Raises EventError for an id, time or trace that is invalid."""
    if not isinstance(event, Event):
        raise EventError(f"{type(event).__name__} is not an Event")
    if reason := id_invalid_reason(event.id):
        raise EventError(reason)
    if reason := occasion_invalid_reason(event.occurred_at, event.traceparent):
        raise EventError(reason)
    if not isinstance(event.traceparent, str):
        return b""
    trace = event.traceparent.encode()
    return encoded_header(("traceparent", trace)) + encoded_header(("ce_traceparent", trace))


def _refusal(call: PublishCall, invalid: dict[int, str]) -> str:
    if len(call.event_ids) == 1:
        return f"event {call.event_ids[0]!r}: {invalid[0]}"
    named = "; ".join(f"[{index}] {reason}" for index, reason in list(invalid.items())[:_NAMED])
    more = f"; and {len(invalid) - _NAMED} more" if len(invalid) > _NAMED else ""
    return f"{len(invalid)} of {len(call.event_ids)} events are invalid, none was sent: {named}{more}"
