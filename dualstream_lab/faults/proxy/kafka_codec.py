"""Reads along on a Kafka connection and puts other addresses into what brokers say of themselves.

Only the beginnings of a few answers are read: a list of brokers, or a coordinator. What could name brokers in
ways that are not read here is kept from clients by the answer to ApiVersions, which every client asks first.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Place: TypeAlias = Callable[[str, int], tuple[str, int]]

__all__ = ["KafkaCodec"]

_PRODUCE, _FETCH, _METADATA, _FIND_COORDINATOR, _API_VERSIONS = 0, 1, 3, 10, 18
_DESCRIBE_QUORUM, _DESCRIBE_CLUSTER, _SHARE_FETCH, _SHARE_ACKNOWLEDGE = 55, 60, 78, 79

# The latest version of each that is read here, or (produce, fetch, quorum) that does not name brokers.
_LATEST: Final = {
    _PRODUCE: 9,
    _FETCH: 15,
    _METADATA: 13,
    _FIND_COORDINATOR: 6,
    _DESCRIBE_QUORUM: 1,
    _DESCRIBE_CLUSTER: 2,
}
_HIDDEN: Final = {_SHARE_FETCH, _SHARE_ACKNOWLEDGE}
# Read, and compact from this version on.
_FLEXIBLE: Final = {_METADATA: 9, _FIND_COORDINATOR: 3, _API_VERSIONS: 3, _DESCRIBE_CLUSTER: 0}
_UNSUPPORTED_VERSION = 35
_REQUEST, _ANSWER = struct.Struct(">ihhi"), struct.Struct(">ii")
_LONGEST = 64 * 2**20  # bytes of an answer that is read
_MOST = 1000  # questions without an answer


class KafkaCodec:
    """Of one connection. ``place`` gives the address that clients are to know a broker by.

    Raises ValueError for bytes that are not Kafka's, and for requests in a version that could name brokers.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._asked: dict[int, tuple[int, int]] = {}
        self._head = b""  # of a request that has not come whole
        self._skipping = 0  # bytes of the request that is passing
        self._kept = b""  # of an answer that has not come whole
        self._passing = 0  # bytes of the answer that is passing

    def request(self, data: bytes) -> bytes:
        """The same bytes: what is asked is only noted."""
        at = 0
        while at < len(data):
            if self._skipping:
                skipped = min(self._skipping, len(data) - at)
                self._skipping -= skipped
                at += skipped
                continue
            part = data[at : at + _REQUEST.size - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == _REQUEST.size:
                size, key, version, number = _REQUEST.unpack(self._head)
                self._head, self._skipping = b"", size - 8
                if self._skipping < 0:
                    raise ValueError("not a Kafka request")
                self._note(key, version, number)
        return data

    def _note(self, key: int, version: int, number: int) -> None:
        if key in _HIDDEN or version > _LATEST.get(key, version):
            raise ValueError(f"version {version} of request {key} could name brokers")
        if key in _FLEXIBLE:
            self._asked[number] = key, version
            if len(self._asked) > _MOST:
                raise ValueError("too many requests without an answer")

    def answer(self, data: bytes) -> bytes:
        """What the client gets. An answer that is read is held until it is whole."""
        if self._passing >= len(data):  # nearly all bytes are those of records
            self._passing -= len(data)
            return data
        data = self._kept + data
        out, at = [], 0
        while at < len(data):
            if self._passing:
                end = min(at + self._passing, len(data))
                self._passing -= end - at
                out.append(data[at:end])
                at = end
                continue
            if len(data) - at < _ANSWER.size:
                break
            size, number = _ANSWER.unpack_from(data, at)
            if size < 4 or (number in self._asked and size > _LONGEST):
                raise ValueError("not a Kafka answer")
            if number not in self._asked:
                self._passing = 4 + size
                continue
            end = at + 4 + size
            if end > len(data):
                break
            out.append(self._rewritten(data[at + 4 : end], *self._asked.pop(number)))
            at = end
        self._kept = data[at:]
        return b"".join(out)

    def _rewritten(self, frame: bytes, key: int, version: int) -> bytes:
        answer = _Answer(frame, self._place, flexible=version >= _FLEXIBLE[key])
        try:
            answer.skip(4)
            if key != _API_VERSIONS:  # whose header never changed
                answer.tags()
            _READERS[key](answer, version)
            new = answer.rewritten()
        except (IndexError, struct.error) as error:
            raise ValueError("not the answer that was expected") from error
        return struct.pack(">i", len(new)) + new


class _Answer:
    """A cursor over an answer, which replaces some of what it meets."""

    def __init__(self, data: bytes, place: Place, *, flexible: bool) -> None:
        self.flexible = flexible
        self._data = data
        self._place = place
        self._at = 0
        self._done = 0  # up to here it is in _out
        self._out: list[bytes] = []

    def skip(self, size: int) -> None:
        """So many bytes."""
        self._at += size

    def take(self, form: str) -> tuple[int, ...]:
        """Whole numbers."""
        self._at += struct.calcsize(form)
        return struct.unpack_from(form, self._data, self._at - struct.calcsize(form))

    def count(self) -> int:
        """Entries of an array that begins here."""
        return self._number() - 1 if self.flexible else self.take(">i")[0]

    def text(self) -> bytes:
        """A text; none is empty."""
        size = self._number() - 1 if self.flexible else self.take(">h")[0]
        begin = self._at
        self._at += max(0, size)
        return self._data[begin : self._at]

    def tags(self) -> None:
        """Skip the tagged fields, where there can be some."""
        if self.flexible:
            for _ in range(self._number()):
                self._number()
                size = self._number()
                self._at += size

    def address(self) -> None:
        """A host and a port, as they always come. Nobody's (port -1) is left."""
        begin = self._at
        host = self.text().decode()
        (port,) = self.take(">i")
        if host and port > 0:
            other, port = self._place(host, port)
            name = other.encode()
            length = _number(len(name) + 1) if self.flexible else struct.pack(">h", len(name))
            self._replace(begin, length + name + struct.pack(">i", port))

    def versions(self) -> None:
        """The array of versions that a broker speaks, without those that could name brokers."""
        begin = self._at
        allowed = []
        for _ in range(self.count()):
            key, low, high = self.take(">hhh")
            self.tags()
            if key not in _HIDDEN:
                allowed.append(struct.pack(">hhh", key, low, min(high, _LATEST.get(key, high))))
        length = _number(len(allowed) + 1) if self.flexible else struct.pack(">i", len(allowed))
        end = b"\0" if self.flexible else b""
        self._replace(begin, length + b"".join(entry + end for entry in allowed))

    def rewritten(self) -> bytes:
        """The whole answer. What was not read is as it was."""
        if self._at > len(self._data):
            raise IndexError
        return b"".join([*self._out, self._data[self._done :]])

    def _replace(self, begin: int, new: bytes) -> None:
        self._out += [self._data[self._done : begin], new]
        self._done = self._at

    def _number(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def _number(value: int) -> bytes:
    """A whole number as its variable length has it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _metadata(answer: _Answer, version: int) -> None:
    answer.skip(4 if version >= 3 else 0)  # throttle time
    for _ in range(answer.count()):
        answer.skip(4)
        answer.address()
        if version >= 1:
            answer.text()  # rack
        answer.tags()


def _coordinators(answer: _Answer, version: int) -> None:
    answer.skip(4 if version >= 1 else 0)  # throttle time
    if version >= 4:
        for _ in range(answer.count()):
            answer.text()  # key
            answer.skip(4)
            answer.address()
            answer.skip(2)  # error
            answer.text()
            answer.tags()
        return
    answer.skip(2)  # error
    if version >= 1:
        answer.text()
    answer.skip(4)
    answer.address()


def _cluster(answer: _Answer, version: int) -> None:
    answer.skip(4 + 2)  # throttle time, error
    answer.text()
    answer.skip(1 if version >= 1 else 0)  # kind of endpoint
    answer.text()  # cluster
    answer.skip(4)  # controller
    for _ in range(answer.count()):
        answer.skip(4)
        answer.address()
        answer.text()  # rack
        answer.skip(1 if version >= 2 else 0)  # fenced
        answer.tags()


def _api_versions(answer: _Answer, _version: int) -> None:
    if answer.take(">h")[0] == _UNSUPPORTED_VERSION:
        answer.flexible = False  # then all is as in version 0
    answer.versions()


_READERS: Final[dict[int, Callable[[_Answer, int], None]]] = {
    _METADATA: _metadata,
    _FIND_COORDINATOR: _coordinators,
    _API_VERSIONS: _api_versions,
    _DESCRIBE_CLUSTER: _cluster,
}
