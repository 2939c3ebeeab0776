"""What a Kafka record is: an event, or the reason why not. One opinion, for every reader. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol, cast

import msgspec

from dualstream_lab.event import ID_PATTERN, MAX_NESTING, Event, invalid_reason, is_too_deep

_MAX_NAMES: Final = 50_000  # sources, and types, kept in mind
_MAX_MS: Final = 9_000_000_000_000  # a later time has no place in 64 bits of ns


class Record(Protocol):
    """A record as it was read; ``timestamp`` in ms."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as it is in Kafka, with what it is found by."""

    partition: int
    offset: int
    id: str
    type: str
    source: str
    """``source_type:source_id``, for example ``repo:owner/name``."""
    ts: int
    """The time of the Kafka record: ns since the epoch, in steps of a millisecond."""
    value: bytes
    """The event's JSON as it is in Kafka."""


class _Head(msgspec.Struct, gc=False):
    """What is looked at of an Event. The id must be there, as it is what repeats are known by."""

    id: str
    type: str
    source_type: str
    source_id: str
    occurred_at: datetime | msgspec.UnsetType = msgspec.UNSET
    traceparent: str | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Head).decode
_id_match = ID_PATTERN.fullmatch
_UNSET = msgspec.UNSET
_SHALLOW: Final = 2 * MAX_NESTING  # bytes: each level takes two


class Decoder:
    """Decodes and checks records; names that were found good once are not checked again.

    A record is an event when its value is one JSON object in UTF-8, nested no deeper than
    :data:`~dualstream_lab.event.MAX_NESTING`, with id, type and source that are valid and a time (where there
    is one) that knows its zone, and its key, where it has one, is its ``source_id``: whoever may write one
    source's key writes nobody else's events.
    """

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._types: set[str] = set()

    def __call__(self, partition: int, record: Record) -> StoredEvent | str:
        """The event, or what is wrong with the record."""
        value = record.value
        if value is None:
            return "the record has no value (a tombstone)"
        # (How deep the decoder can go depends on who calls it.)
        if len(value) > _SHALLOW and is_too_deep(value):
            return f"not an event: nested too deep, more than {MAX_NESTING} levels"
        try:
            if not value.isascii():
                value.decode()  # what is not looked at must be UTF-8, too
            head = _decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return f"not an event: {error}"
        named = self._sources.get((head.source_type, head.source_id))
        occurred_at = head.occurred_at
        if (
            named is None
            or head.type not in self._types
            or head.traceparent is not _UNSET
            or not (type(occurred_at) is datetime and occurred_at.tzinfo is UTC)
            or _id_match(head.id) is None
        ):
            if occurred_at is _UNSET:
                head.occurred_at = datetime.now(UTC)
            if reason := invalid_reason(cast("Event", head)):
                return reason
            named = self._remember(head)
        source, source_key = named
        key = record.key
        if key != source_key and key is not None:
            return f"the record's key {key[:300]!r} is not its source_id {head.source_id!r}"
        ms = record.timestamp or 0  # (the oldest format of batches has none)
        if not 0 <= ms <= _MAX_MS:
            ms = 0 if ms < 0 else _MAX_MS
        return StoredEvent(partition, record.offset, head.id, head.type, source, ms * 1_000_000, value)

    def _remember(self, head: _Head) -> tuple[str, bytes]:
        for known in (self._sources, self._types):
            if len(known) >= _MAX_NAMES:
                known.clear()
        self._types.add(head.type)
        named = f"{head.source_type}:{head.source_id}", head.source_id.encode()
        self._sources[head.source_type, head.source_id] = named
        return named


def one_line(value: bytes) -> bytes:
    """An event's JSON as one line: as it stands, but without white space where that has line breaks."""
    if b"\n" in value or b"\r" in value:  # in JSON they can only be white space between its parts
        return msgspec.json.format(value, indent=-1)
    return value
