"""What a gateway says, as messages and as server-sent events, and what its refusals mean. No I/O."""

from __future__ import annotations

import random
import re
from typing import Final, NamedTuple

import msgspec

from dualstream_lab.errors import ConfigError, DualStreamError, StreamUnavailable

MAX_MESSAGE_BYTES: Final = 256 * 1024
CONNECT_TIMEOUT: Final = 10.0
WHOLE: Final = frozenset({"log_unavailable"})
"""Reasons of a past that is told whole up to the cursor, though more may follow."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"
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


def pause(failures: int, first: float = 0.1, most: float = 10.0) -> float:
    """Seconds before the next try, drawn so that clients that lost the same gateway spread."""
    return random.uniform(0, min(most, first * 2 ** min(failures, 16)))  # noqa: S311


def _denied(code: int | None, said: str) -> ConfigError | None:
    if code in _NO_TOKEN:
        return TokenRefused(f"token: the gateway refuses it: {said}")
    if code in _NOT_ALLOWED:
        return ConfigError(f"source, token: the gateway does not allow this: {said}")
    return None


def refused(status: int, said: str) -> DualStreamError | Dropped:
    """What an HTTP answer that is not a stream means for the caller."""
    said = f"{status} {said}".strip()
    if status in _RETRIED or status >= 500:
        return Dropped(f"the gateway answers {said}")
    if status == 404 or status < 400:
        return ConfigError(f"url: no gateway is there: {said}")
    return _denied(status, said) or ConfigError(f"the gateway refuses the subscription: {said}")


def closed(code: int | None, said: str) -> DualStreamError | Dropped:
    """What the end of a WebSocket means for the caller."""
    said = f"{code or 'no close frame'} {said}".strip()
    if code in _MISUNDERSTOOD:
        return StreamUnavailable(f"the gateway does not understand this client: {said}")
    return _denied(code, said) or Dropped(f"the gateway closed the connection: {said}")


class ServerEvent(NamedTuple):
    """``id`` is the last one that the stream set, also with an earlier event."""

    event: str
    data: str
    id: str


class SseParser:
    """Bytes in, events out (WHATWG HTML, 9.2.6), wherever they were cut. Skips comments and ``retry``.

    An event that is not whole at the end of the stream is none, as the standard says. Not more than
    ``limit`` bytes of an unfinished event are kept: then Dropped.
    """

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = limit
        self._rest = b""
        self._begun = False
        self._skip_newline = False  # the second half of a line's end that was cut in two
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that these bytes complete. Raises Dropped."""
        if self._skip_newline and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_newline = False
        text = self._rest + chunk
        if not self._begun:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = text
                return []
            self._begun = True
            text = text.removeprefix(_BOM)
        self._skip_newline = text.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(text)
        if self._size + len(self._rest) > self._limit:
            raise Dropped(f"an event of the stream is larger than {self._limit} bytes")
        return [event for line in lines if (event := self._line(line))]

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, raw = line.partition(b":")
        value = raw.removeprefix(b" ").decode(errors="replace")
        match name:
            case b"data":
                self._data.append(value)
                self._size += len(raw)
                if self._size > self._limit:
                    raise Dropped(f"an event of the stream is larger than {self._limit} bytes")
            case b"event":
                self._event = value
            case b"id" if "\0" not in value:
                self._id = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._size = [], "", 0
        return ServerEvent(event or "message", "\n".join(data), self._id) if data else None
