"""Events into the parts of a call: validated and encoded at the time of the call, all or none."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import UNSET

from dualstream_lab.errors import EventError
from dualstream_lab.event import (
    Event,
    encode_event,
    event_headers,
    id_invalid_reason,
    occasion_invalid_reason,
)
from dualstream_lab.publisher.lane import Call, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.event import Header
    from dualstream_lab.publisher.route import EventType, Route, Routes

__all__ = ["Encoder"]

_NAMED = 20  # bad events spelled out in a message
_HEADERS_BYTES = 200


class Encoder:
    """Encodes for one topic. ``max_event_bytes``: the most that key, value and headers may have together."""

    def __init__(self, routes: Routes, *, max_event_bytes: int) -> None:
        self._routes = routes
        self._max = max_event_bytes

    def call(self, events: Sequence[Event], *, skip_invalid: bool = False) -> Call:
        """A call with its parts, by partition. Raises EventError naming every bad index."""
        call = Call([getattr(event, "id", "") for event in events])
        invalid: dict[int, str] = {}
        parts: dict[int, Part] = {}
        timestamp = time.time_ns() // 1_000_000
        for index, event in enumerate(events):
            try:
                kind, route, value, headers = self._encode(event)
            except EventError as error:
                invalid[index] = str(error)
                continue
            part = parts.get(route.partition)
            if part is None:
                part = parts[route.partition] = Part(call, route.partition, timestamp)
            part.indices.append(index)
            part.notes.append((event.id, kind.json, route))
            part.payloads.append((value, headers))
            part.size += len(value) + _HEADERS_BYTES
        if invalid and not skip_invalid:
            raise EventError(_refusal(call, invalid), invalid=invalid)
        call.invalid = invalid
        call.parts = list(parts.values())
        call.open = len(call.parts)
        call.events = len(events) - len(invalid)
        call.size = sum(part.size for part in call.parts)
        return call

    def _encode(self, event: Event) -> tuple[EventType, Route, bytes, list[Header]]:
        if not isinstance(event, Event):
            raise EventError(f"{type(event).__name__} is not an Event")
        event_id = event.id
        if reason := id_invalid_reason(event_id):
            raise EventError(reason)
        kind = self._routes.type(event.type)
        route = self._routes.route(event.source_type, event.source_id)
        when = event.occurred_at
        usual = type(when) is datetime and when.tzinfo is UTC and event.traceparent is UNSET
        if not usual and (reason := occasion_invalid_reason(when, event.traceparent)):
            raise EventError(reason)
        value = encode_event(event)
        headers = event_headers(event, type_header=kind.header, source_header=route.header)
        # Most events are far from the limit: count exactly only near it.
        if len(value) + 2048 > self._max:
            size = len(value) + len(route.key) + sum(len(name) + len(text) + 8 for name, text in headers)
            if size > self._max:
                raise EventError(
                    f"has {size} bytes with key and headers; the topic takes at most {self._max}"
                )
        return kind, route, value, headers


def _refusal(call: Call, invalid: dict[int, str]) -> str:
    if len(call.event_ids) == 1:
        return f"event {call.event_ids[0]!r}: {invalid[0]}"
    named = "; ".join(f"[{index}] {reason}" for index, reason in list(invalid.items())[:_NAMED])
    more = f"; and {len(invalid) - _NAMED} more" if len(invalid) > _NAMED else ""
    return f"{len(invalid)} of {len(call.event_ids)} events are invalid, none was sent: {named}{more}"
