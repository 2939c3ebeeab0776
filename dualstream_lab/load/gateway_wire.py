"""The bytes of a gateway's connection: what to ask, and what is answered, as fast as Python can. No I/O.

Only what a gateway of ours sends is understood: WebSocket frames that are neither masked, fragmented nor
compressed, and server-sent events in a chunked body.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from dualstream_lab.subscriber.wire import Dropped, SseParser

if TYPE_CHECKING:
    from yarl import URL

Transport = Literal["ws", "sse"]

_MAX_HEAD: Final = 16_384
_FINAL_TEXT, _FINAL_CLOSE, _FINAL_PING, _FINAL_PONG = 0x81, 0x88, 0x89, 0x8A
_OPENED: Final = {"ws": b"101", "sse": b"200"}


def request(base: URL, via: Transport, since: Mapping[str, str]) -> bytes:
    """The request that opens the connection; one for SSE also names the sources."""
    url = base / via
    if via == "ws":
        key = base64.b64encode(os.urandom(16)).decode()
        more = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}"
        )
    else:
        url = url.with_query([("source", source) for source in since])
        more = f"Accept: text/event-stream\r\nLast-Event-ID: {','.join(since.values())}"
    return f"GET {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n{more}\r\n\r\n".encode()


def subscriptions(since: Mapping[str, str]) -> bytes:
    """What a WebSocket's client says once it is open, in one write."""
    return b"".join(
        _client_frame(_FINAL_TEXT, msgspec.json.encode({"subscribe": source, "since": place}))
        for source, place in since.items()
    )


def pong(payload: bytes) -> bytes:
    """The frame that answers a ping."""
    return _client_frame(_FINAL_PONG, payload)


def _client_frame(head: int, payload: bytes) -> bytes:
    """A client's frames are masked. Payloads are shorter than 64 KiB."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    mask = os.urandom(4)
    masked = int.from_bytes(payload) ^ int.from_bytes((mask * (size // 4 + 1))[:size])
    return bytes([head]) + length + mask + masked.to_bytes(size)


class Incoming:
    """Feed it bytes: the JSON of every message comes out. ``opened``: the request was accepted.

    Raises Dropped for a refusal, for the gateway's goodbye, and for what it does not understand.
    """

    via: Transport

    def __init__(self) -> None:
        self.opened = False
        self.pings: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete."""
        text = self._rest + data if self._rest else data
        if self.opened:
            return self._messages(text)
        head, end, text = text.partition(b"\r\n\r\n")
        if not end:
            if len(head) > _MAX_HEAD:
                raise Dropped("no answer of HTTP")
            self._rest = head
            return []
        status = head.split(b"\r\n", 1)[0].decode(errors="replace")
        if head[9:12] != _OPENED[self.via]:
            raise Dropped(f"the gateway answers {status} {text[:500].decode(errors='replace')}")
        self.opened, self._rest = True, b""
        return self._messages(text)

    def _messages(self, text: bytes) -> list[bytes]:
        raise NotImplementedError


class WsIncoming(Incoming):
    """A text frame a message. ``pings`` are to be answered."""

    via = "ws"

    def _messages(self, text: bytes) -> list[bytes]:
        messages = []
        at, end = 0, len(text)
        while end - at >= 2:
            head, size, begin = text[at], text[at + 1], at + 2
            if size >= 126:
                begin += 2 if size == 126 else 8
                if begin > end:
                    break
                size = int.from_bytes(text[at + 2 : begin])
            if begin + size > end:
                break
            payload = text[begin : begin + size]
            at = begin + size
            if head == _FINAL_TEXT:
                messages.append(payload)
            elif head == _FINAL_PING:
                self.pings.append(payload)
            elif head == _FINAL_CLOSE:
                code = int.from_bytes(payload[:2])
                raise Dropped(f"the gateway closed with {code} {payload[2:].decode(errors='replace')}")
            elif head != _FINAL_PONG:
                raise Dropped(f"a frame that begins with {head:#x} is not a gateway's")
        self._rest = text[at:]
        return messages


class SseIncoming(Incoming):
    """An event a message, in the chunks of an HTTP body."""

    via = "sse"

    def __init__(self) -> None:
        super().__init__()
        self._parser = SseParser()

    def _messages(self, text: bytes) -> list[bytes]:
        chunks = []
        at = 0
        while (line := text.find(b"\r\n", at)) >= 0:
            size = int(text[at:line], 16)
            if size == 0:
                raise Dropped("the gateway ended the stream")
            if line + 4 + size > len(text):
                break
            chunks.append(text[line + 2 : line + 2 + size])
            at = line + 4 + size
        self._rest = text[at:]
        return [event.data.encode() for event in self._parser.feed(b"".join(chunks))] if chunks else []
