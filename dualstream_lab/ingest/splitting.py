"""Splits the bytes of a file of events, as they come, into the texts of its events. No I/O.

Plain JSON Lines; the same behind a byte-order mark; one JSON array of events; any of them gzipped. Whatever
comes, no more than one text of :data:`MAX_TEXT` bytes is held.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dualstream_lab.errors import EventError

MAX_TEXT: Final = 32 * 2**20
"""Bytes of one event, at most: more than any Kafka is set up for, and what ``/ingest`` takes."""

_KEPT: Final = 1024  # bytes of an unreadable text, to recognise it by
_PIECE: Final = 2**18  # bytes that are unpacked at a time
_BLANK: Final = 2**16  # blanks at the beginning after which no array is expected any more
_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = b"\x1f\x8b"
_SNIFFED: Final = 4
_FOREIGN: Final = {
    _GZIP: "gzipped twice: unpack it once (gunzip)",
    b"PK\x03\x04": "a ZIP archive: unpack it first (unzip)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it first (zstd -d)",
    b"BZh": "compressed by bzip2: unpack it first (bunzip2)",
    b"\xfd7zX": "compressed by xz: unpack it first (unxz)",
    b"PAR1": "a Parquet file: events are JSON Lines",
    b"\xff\xfe": "UTF-16, and JSON is UTF-8: convert it first (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "UTF-16, and JSON is UTF-8: convert it first (iconv -f UTF-16 -t UTF-8)",
    b"{\x00": "UTF-16, and JSON is UTF-8: convert it first (iconv -f UTF-16LE -t UTF-8)",
    b"\x00{": "UTF-16, and JSON is UTF-8: convert it first (iconv -f UTF-16BE -t UTF-8)",
}
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)  # what is left of a string
_BETWEEN, _WITHIN = re.compile(rb'[",\[\]{}]'), re.compile(rb'["\[\]{}]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A text that was not kept, and why. ``raw``: its beginning."""

    reason: str
    raw: bytes


Text = bytes | Unreadable


class Splitter:
    """Splits a file: give it the bytes by :meth:`feed`, in pieces of any size, then call :meth:`finish`.

    Both give the texts that are complete now; use them up before the next call. Raise EventError for what is
    surely no file of events. ``unit``: what a text is, ``line`` or ``event``.
    """

    def __init__(self) -> None:
        self.unit = "line"
        self._sniffed = False
        self._packed: _Gzip | None = None
        self._texts: _Lines | _Elements | None = None
        self._begin = bytearray()

    def feed(self, data: bytes) -> Iterator[Text]:
        """Take the next bytes."""
        if not self._sniffed:
            self._begin += data
            if len(self._begin) < _SNIFFED:
                return
            data = self._sniff()
        yield from self._read(data)

    def finish(self) -> Iterator[Text]:
        """Take note that there are no more bytes."""
        if not self._sniffed:
            yield from self._read(self._sniff())
        if self._texts is None:
            yield from self._plain(ended=True)
        damage = self._packed.finish() if self._packed is not None else None
        if self._texts is not None:
            yield from self._texts.finish()
        if damage is not None:
            yield damage

    def _sniff(self) -> bytes:
        """Give the first bytes back, of which it is known now whether they are packed."""
        self._sniffed = True
        if self._begin.startswith(_GZIP):
            self._packed = _Gzip()
        data, self._begin = bytes(self._begin), bytearray()
        return data

    def _read(self, data: bytes) -> Iterator[Text]:
        for piece in (data,) if self._packed is None else self._packed.feed(data):
            if self._texts is not None:
                yield from self._texts.feed(piece)
            else:
                self._begin += piece
                yield from self._plain()

    def _plain(self, *, ended: bool = False) -> Iterator[Text]:
        """Find out which of the two forms it is, if enough is there."""
        begin = bytes(self._begin.removeprefix(_BOM))
        for mark, what in _FOREIGN.items():
            if begin.startswith(mark):
                raise EventError(f"is {what}")
        first = begin.lstrip()
        if not (first or ended or len(begin) > _BLANK) or (len(self._begin) < _SNIFFED and not ended):
            return
        self._begin.clear()
        if first.startswith(b"["):
            self.unit = "event"
            self._texts, begin = _Elements(), first[1:]
        else:
            self._texts = _Lines()
        yield from self._texts.feed(begin)


class _Gzip:
    """Unpacks any number of gzip members, one after the other, a bounded piece at a time."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._damage: Unreadable | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and self._damage is None:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding, as of tapes
                if not data:
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error as error:
                self._damage = Unreadable(reason=f"the gzip data are damaged: {error}", raw=b"")
                return
            data = self._member.unconsumed_tail or self._member.unused_data
            if piece:
                yield piece

    def finish(self) -> Unreadable | None:
        if self._damage is None and not self._member.eof:
            return Unreadable(reason="the gzip data end too early", raw=b"")
        return self._damage


class _Open:
    """A text that is not complete yet: its bytes, or, when they are too many, only their beginning."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= MAX_TEXT:
            self._bytes += data
        else:
            del self._bytes[_KEPT:]
            self._bytes += data[: _KEPT - len(self._bytes)]

    def take(self) -> Text:
        if self.size > MAX_TEXT:
            return self.unreadable(f"has {self.size:,} bytes; at most {MAX_TEXT:,} are allowed")
        text = bytes(self._bytes)
        self._bytes, self.size = bytearray(), 0
        return text

    def unreadable(self, reason: str) -> Unreadable:
        raw = bytes(self._bytes[:_KEPT])
        self._bytes, self.size = bytearray(), 0
        return Unreadable(reason=reason, raw=raw)


class _Lines(_Open):
    """Cuts texts that have a line's end behind each."""

    def feed(self, data: bytes) -> Iterator[Text]:
        first, *others = data.split(b"\n")
        self.add(first)
        for other in others:
            yield self.take()
            self.add(other)

    def finish(self) -> Iterator[Text]:
        if self.size:
            yield self.take()


class _Elements(_Open):
    """Cuts the elements of an array, from behind its bracket."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._quoted = False
        self._escape = b""
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Text]:
        data, self._escape = self._escape + data, b""
        begin = at = 0
        while at < len(data):
            if self._quoted:
                rest = _STRING.match(data, at)
                assert rest is not None  # noqa: S101  (it matches whatever comes)
                at, self._quoted = rest.end(), not rest[1]
                if self._quoted:  # its end, or an escape's second half, is still to come
                    data, self._escape = data[:at], data[at:]
                continue
            mark = (_WITHIN if self._depth or self._ended else _BETWEEN).search(data, at)
            if mark is None:
                break
            at = mark.end()
            if self._structure(mark[0]):
                self.add(data[begin : at - 1])
                begin = at
                yield self.take()
        self.add(data[begin:])

    def _structure(self, mark: bytes) -> bool:
        if mark == b'"':
            self._quoted = True
        elif mark == b",":
            return True
        elif mark in b"[{":
            self._depth += 1
        elif self._depth:
            self._depth -= 1
        elif mark == b"]" and not self._ended:
            self._ended = True
            return True
        return False

    def finish(self) -> Iterator[Text]:
        self.add(self._escape)
        if self._ended and self._bytes.strip():
            yield self.unreadable("is behind the end of the array")
        elif not self._ended:
            yield self.unreadable("the file ends within the array")
