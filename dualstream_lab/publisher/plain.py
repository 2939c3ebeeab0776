"""The loops that every event goes through, in plain Python. ``compiled`` makes the same bytes in C."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import UNSET

from dualstream_lab.errors import EventError
from dualstream_lab.event import ID_PATTERN, Event, encode_event
from dualstream_lab.publisher.call import PartitionSlice
from dualstream_lab.publisher.record_format import VARINTS, prefixed, varint
from dualstream_lab.publisher.route import EventType, Route

NAME: Final = "plain Python"

_ID: Final = prefixed(b"ce_id")
_TIME: Final = prefixed(b"ce_time")
_KNOWN_SIZES: Final = len(VARINTS)
_to_json = msgspec.json.Encoder().encode  # a time as it is in the event's JSON
_is_id = ID_PATTERN.fullmatch


def record(
    route: Route, kind: EventType, value: bytes, name: str, when: bytes, count: bytes, more: bytes
) -> bytes:
    """A record from its key on. ``count``: of the headers; ``more``: those after ``ce_time``."""
    size = len(value)
    return b"".join(
        (
            route.key,
            VARINTS[size] if size < _KNOWN_SIZES else varint(size),
            value,
            count,
            kind.headers,
            route.header,
            _ID,
            VARINTS[len(name)],
            name.encode(),
            _TIME,
            VARINTS[len(when)],
            when,
            more,
        )
    )


def encode(
    events: Sequence[Event],
    index: int,
    ids: Sequence[str],
    timestamp: int,
    parts: dict[int, PartitionSlice],
    new_part: Callable[[Sequence[str], int, int], PartitionSlice],
    routes: Mapping[tuple[str, str], Route],
    types: Mapping[str, EventType],
    count: bytes,
    more: bytes,
    limit: int,
) -> int:
    """Encode the usual events from ``index`` on into the parts of their partitions.

    Returns the place of the first that is not usual. That is: an Event with a good id, a time in UTC, no
    trace, and data that can be written; of a type and a source that are known; of at most ``limit`` bytes.
    """
    for place in range(index, len(events)):
        event = events[place]
        try:
            if not (
                type(event) is Event
                and event.traceparent is UNSET
                and type(name := event.id) is str
                and _is_id(name)
                and type(moment := event.occurred_at) is datetime
                and moment.tzinfo is UTC
            ):
                return place
            kind, route = types[event.type], routes[event.source_type, event.source_id]
            made = record(route, kind, encode_event(event), name, _to_json(moment)[1:-1], count, more)
        except (EventError, KeyError, TypeError):  # TypeError: a name that cannot be looked up
            return place
        if len(made) > limit:
            return place
        part = parts.get(route.partition)
        if part is None:
            part = parts[route.partition] = new_part(ids, route.partition, timestamp)
        part.indices.append(place)
        part.types.append(kind.json)
        part.routes.append(route)
        part.records.append(made)
    return len(events)


_OVERHEAD: Final = 15  # bytes of a record, at most: length, attributes, time and offset deltas


def frame(records: Sequence[bytes], place: int, room: int, middle: bytes) -> tuple[bytes, int, int]:
    """Records as a batch has them, from its ``place`` on; ``middle``: attributes and time of each.

    As many as have room, and a batch's first in any case. Returns the bytes, how many records they are, and
    how much of the room they take.
    """
    chunks: list[bytes] = []
    first, size, fixed = place, 0, len(middle)
    for each in records:
        grown = size + len(each) + _OVERHEAD
        if place == _KNOWN_SIZES or (grown > room and place):
            break
        size = grown
        delta = VARINTS[place]
        length = fixed + len(delta) + len(each)
        chunks += (VARINTS[length] if length < _KNOWN_SIZES else varint(length), middle, delta, each)
        place += 1
    return b"".join(chunks), place - first, size


def publish_commands(part: PartitionSlice, epoch: str, ts: int, *, details: bool) -> list[str]:
    """Packed PUBLISH commands. The message is ASCII, so its length is its length in bytes."""
    packed = []
    base, ids = part.base, part.event_ids
    log, end = f'"log":"{epoch}","pub":"', f'","ts":{ts}}}'
    before, log = (f',"pos":"{part.partition}:', f'",{log}') if base >= 0 else (",", log)
    for place, index in enumerate(part.indices):
        route = part.routes[place]
        body = f'{{"id":"{ids[index]}","type":{part.types[place]},"source_id":{route.source_id_json}'
        if details:
            route.count = number = route.count + 1
            offset = base + place if base >= 0 else ""
            body = f"{body}{before}{offset}{log}{route.nonce}:{number}{end}"
        else:
            body += "}"
        packed.append(f"{route.command}{len(body)}\r\n{body}\r\n")
    return packed
