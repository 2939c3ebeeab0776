"""Server-sent events: a parser (WHATWG HTML, 9.2.6), and a connection that listens with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import aiohttp

from dualstream_lab.subscriber.wire import CONNECT_TIMEOUT, MAX_MESSAGE_BYTES, Dropped, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from yarl import URL

__all__ = ["ServerEvent", "SseParser", "listen_sse"]

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """``id`` is the last one that the stream set, also with an earlier event."""

    event: str
    data: str
    id: str


class SseParser:
    """Bytes in, events out, wherever the bytes were cut. Comments and ``retry`` are passed over.

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


async def listen_sse(
    session: aiohttp.ClientSession,
    url: URL,
    headers: Mapping[str, str],
    since: Mapping[str, str],
    silence: float,
    deliver: Callable[[str], Awaitable[None]],
) -> NoReturn:
    """Connect for every source of ``since``, and deliver every message until the end: Dropped.

    Raises ConfigError. ``silence``: s without a byte after which the connection counts as dead; while
    ``deliver`` waits, nothing is read, and nothing is expected.
    """
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=silence)
    wanted = {
        "Accept": "text/event-stream",
        "Last-Event-ID": ",".join(since.values()),  # a place for each source, in their order
    }
    try:
        async with session.get(
            url.with_query([("source", source) for source in since]),
            headers={**headers, **wanted},
            timeout=timeout,
        ) as answer:
            if answer.status != 200 or answer.content_type != "text/event-stream":
                raise refused(answer.status, (await answer.content.read(500)).decode(errors="replace"))
            parser = SseParser()
            while chunk := await answer.content.readany():
                for event in parser.feed(chunk):
                    await deliver(event.data)
    except (aiohttp.ClientError, OSError) as error:  # time-outs among them
        raise Dropped(str(error) or type(error).__name__) from error
    raise Dropped("the gateway ended the stream")
