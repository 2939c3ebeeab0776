"""What a gateway says, and what its refusals mean. No I/O."""

from __future__ import annotations

from typing import Final

import msgspec

from dualstream_lab.errors import ConfigError, DualStreamError, StreamUnavailable

__all__ = [
    "CONNECT_TIMEOUT",
    "MAX_MESSAGE_BYTES",
    "WHOLE",
    "Dropped",
    "Message",
    "TokenRefused",
    "closed",
    "decode",
    "position_of",
    "refused",
]

MAX_MESSAGE_BYTES: Final = 256 * 1024
CONNECT_TIMEOUT: Final = 10.0
WHOLE: Final = frozenset({"log_unavailable"})
"""Reasons of a past that is told whole up to the cursor, though more may follow."""

_RETRIED: Final = {408, 425, 429}
_NOT_ALLOWED: Final = {403, 1008, 4403, 4429}
_NO_TOKEN: Final = {401, 4401}
_MISUNDERSTOOD: Final = {1003, 1007, 1009, 4400}


class Message(msgspec.Struct, frozen=True):
    """Any message of a gateway; ``kind`` says which fields it has."""

    kind: str
    source: str | None = None
    id: str | None = None
    type: str | None = None
    pos: str | None = None
    ts: int | None = None
    cursor: str | None = None
    late: bool = False
    old: bool = False
    recovered: bool = True
    reason: str | None = None
    error: str | None = None


class Dropped(Exception):
    """The connection is over, and the next one may be better."""


class TokenRefused(ConfigError):
    """The token is missing, expired or forged."""


_decoder: Final = msgspec.json.Decoder(Message)


def decode(text: str | bytes) -> Message:
    """Raises Dropped: what cannot be understood may be an event, so the connection is not to be trusted."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Dropped(f"not a gateway's message: {error}") from error


def position_of(pos: str | None) -> tuple[int, int] | None:
    """(partition, offset) of an event; None where it is not told."""
    partition, colon, offset = (pos or "").partition(":")
    if colon and partition.isdecimal() and offset.isdecimal() and len(pos or "") < 30:
        return int(partition), int(offset)
    return None


def refused(status: int, said: str) -> DualStreamError | Dropped:
    """What an HTTP answer that is not a stream means for the caller."""
    said = f"{status} {said}".strip()
    if status in _RETRIED or status >= 500:
        return Dropped(f"the gateway answers {said}")
    if status in _NO_TOKEN:
        return TokenRefused(f"token: the gateway refuses it: {said}")
    if status in _NOT_ALLOWED:
        return ConfigError(f"source, token: the gateway does not allow this: {said}")
    if status == 404 or status < 400:
        return ConfigError(f"url: no gateway is there: {said}")
    return ConfigError(f"the gateway refuses the subscription: {said}")


def closed(code: int | None, said: str) -> DualStreamError | Dropped:
    """What the end of a WebSocket means for the caller."""
    said = f"{code or 'no close frame'} {said}".strip()
    if code in _NO_TOKEN:
        return TokenRefused(f"token: the gateway refuses it: {said}")
    if code in _NOT_ALLOWED:
        return ConfigError(f"source, token: the gateway does not allow this: {said}")
    if code in _MISUNDERSTOOD:
        return StreamUnavailable(f"the gateway does not understand this client: {said}")
    return Dropped(f"the gateway closed the connection: {said}")
