"""What clients are told, as bytes: JSON once, then as WebSocket frames and as SSE events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EventFrame", "Frame", "StateFrame", "event_frame", "sse_chunk", "state_frame", "websocket_frames"]


class EventFrame(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="kind", tag="event"):
    """An event happened. ``pos``: where it is, to fetch it; ``cursor``: where to resume from.

    ``late``: it was found by comparing with the store. ``old``: it is from before the client came. ``ts``:
    ns since the epoch, of Kafka's ack (live) or of the record (late and old).
    """

    source: str
    id: str
    type: str
    pos: str
    cursor: str
    ts: int | None = None
    late: bool = False
    old: bool = False


class StateFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something about a source, or (error) about what the client said."""

    kind: str
    source: str | None = None
    cursor: str | None = None
    recovered: bool | None = None
    reason: str | None = None
    error: str | None = None


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A message: what an EventSource calls it, where it resumes, and its JSON."""

    kind: str
    cursor: str
    body: bytes


_encode: Final = msgspec.json.Encoder().encode


def event_frame(message: EventFrame) -> Frame:
    """Encode it."""
    return Frame("event", message.cursor, _encode(message))


def state_frame(message: StateFrame) -> Frame:
    """Encode it."""
    return Frame(message.kind, message.cursor or "", _encode(message))


def websocket_frames(frames: Iterable[Frame]) -> bytes:
    """Each as a text frame of its own (RFC 6455, unmasked), joined for one write."""
    parts: list[bytes] = []
    for frame in frames:
        body = frame.body
        size = len(body)
        parts += (_HEADS[size] if size < _SHORT else _head(size), body)
    return b"".join(parts)


def _head(size: int) -> bytes:
    if size < 126:
        return b"\x81" + size.to_bytes(1)
    return b"\x81\x7e" + size.to_bytes(2) if size < 65_536 else b"\x81\x7f" + size.to_bytes(8)


_SHORT: Final = 512
_HEADS: Final = tuple(map(_head, range(_SHORT)))


def sse_chunk(frames: Iterable[Frame], resume: str | None = None) -> bytes:
    """All as events of a stream, in one chunk of a chunked body. ``resume``: the id, if not their own."""
    parts: list[bytes] = []
    for frame in frames:
        place = frame.cursor if resume is None else resume
        head = f"event: {frame.kind}\nid: {place}\ndata: " if place else f"event: {frame.kind}\ndata: "
        parts += (head.encode(), frame.body, b"\n\n")
    text = b"".join(parts)
    return b"%x\r\n%b\r\n" % (len(text), text)
