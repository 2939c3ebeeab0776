"""Reads along on a Kafka connection and puts other addresses into what brokers say of themselves.

Only the beginnings of a few answers are read: a list of brokers, or a coordinator. What could name brokers in
ways that are not read here is kept from clients by the answer to ApiVersions, which every client asks first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    Place: TypeAlias = Callable[[str, int], tuple[str, int]]

_PRODUCE, _FETCH, _METADATA, _COORDINATOR, _API_VERSIONS = 0, 1, 3, 10, 18
_QUORUM, _CLUSTER, _SHARE_FETCH, _SHARE_ACKNOWLEDGE = 55, 60, 78, 79

# The latest version of each that is read here, or (produce, fetch, quorum) that does not name brokers.
_LATEST: Final = {_PRODUCE: 9, _FETCH: 15, _METADATA: 13, _COORDINATOR: 6, _QUORUM: 1, _CLUSTER: 2}
_HIDDEN: Final = {_SHARE_FETCH, _SHARE_ACKNOWLEDGE}
# Read, and compact from this version on.
_FLEXIBLE: Final = {_METADATA: 9, _COORDINATOR: 3, _API_VERSIONS: 3, _CLUSTER: 0}
_UNSUPPORTED_VERSION = 35
_REQUEST, _ANSWER = struct.Struct(">ihhi"), struct.Struct(">ii")
_LONGEST = 64 * 2**20  # bytes of an answer that is read
_MOST = 1000  # questions without an answer


class KafkaCodec:
    """The codec of one connection. ``place`` gives the address that clients are to know a broker by.

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
        """Pass a client's bytes on as they are, and note what is asked."""
        begun = self._head + data
        at = self._skipping
        while at + _REQUEST.size <= len(begun):
            size, key, version, number = _REQUEST.unpack_from(begun, at)
            if size < 8:
                raise ValueError("not a Kafka request")
            self._note(key, version, number)
            at += 4 + size
        self._head, self._skipping = begun[at:], max(0, at - len(begun))
        return data

    def _note(self, key: int, version: int, number: int) -> None:
        if key in _HIDDEN or version > _LATEST.get(key, version):
            raise ValueError(f"version {version} of request {key} could name brokers")
        if key in _FLEXIBLE:
            self._asked[number] = key, version
            if len(self._asked) > _MOST:
                raise ValueError("too many requests without an answer")

    def answer(self, data: bytes) -> bytes:
        """Pass a broker's bytes on with other addresses. An answer that is read is held until it is whole."""
        if self._passing >= len(data):  # nearly all bytes are those of records
            self._passing -= len(data)
            return data
        data = self._kept + data
        at = self._passing
        out = [data[:at]]
        while at + _ANSWER.size <= len(data):
            size, number = _ANSWER.unpack_from(data, at)
            if size < 4 or (number in self._asked and size > _LONGEST):
                raise ValueError("not a Kafka answer")
            end = at + 4 + size
            if number not in self._asked:
                out.append(data[at:end])
            elif end > len(data):
                break
            else:
                out.append(self._rewritten(data[at + 4 : end], *self._asked.pop(number)))
            at = end
        self._kept, self._passing = data[at:], max(0, at - len(data))
        return b"".join(out)

    def _rewritten(self, frame: bytes, key: int, version: int) -> bytes:
        answer = _Answer(frame, self._place, flexible=version >= _FLEXIBLE[key])
        try:
            answer.skip(4)
            if key == _API_VERSIONS:  # whose header never changed
                answer.versions()
            else:
                answer.tags()
                answer.read(_layout(key, version), version)
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

    def read(self, layout: Sequence[Any], version: int) -> None:
        for step in layout:
            part, since = step if isinstance(step, tuple) else (step, 0)
            if version < since:
                continue
            if isinstance(part, list):
                for _ in range(self.count()):
                    self.read(part, version)
            elif isinstance(part, int):
                self.skip(part)
            else:
                part(self)

    def skip(self, size: int) -> None:
        self._at += size

    def take(self, form: str) -> tuple[int, ...]:
        self._at += struct.calcsize(form)
        return struct.unpack_from(form, self._data, self._at - struct.calcsize(form))

    def count(self) -> int:
        return self._number() - 1 if self.flexible else self.take(">i")[0]

    def text(self) -> bytes:
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
        """Replace an address, a host and a port as they always come. Nobody's (port -1) stays."""
        begin = self._at
        host = self.text().decode()
        (port,) = self.take(">i")
        if host and port > 0:
            other, port = self._place(host, port)
            name = other.encode()
            length = _number(len(name) + 1) if self.flexible else struct.pack(">h", len(name))
            self._replace(begin, length + name + struct.pack(">i", port))

    def versions(self) -> None:
        """Take from the versions that a broker speaks those that could name brokers."""
        if self.take(">h")[0] == _UNSUPPORTED_VERSION:
            self.flexible = False  # then all is as in version 0
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
    """Encode a whole number in Kafka's variable length."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


_TEXT, _ADDRESS, _TAGS = _Answer.text, _Answer.address, _Answer.tags
# What an answer begins with: so many bytes, or what is read; in a pair with the first version that has it.
# A list is an array of such.
_METADATA_LAYOUT: Final = [(4, 3), [4, _ADDRESS, (_TEXT, 1), _TAGS]]  # throttle time; id, address, rack
_ONE_LAYOUT: Final = [(4, 1), 2, (_TEXT, 1), 4, _ADDRESS]  # throttle time, error, its text, id, address
# throttle time; key, id, address, error, its text
_MANY_LAYOUT: Final = [4, [_TEXT, 4, _ADDRESS, 2, _TEXT, _TAGS]]
# throttle time, error, its text, kind of endpoint, cluster, controller; id, address, rack, fenced
_CLUSTER_LAYOUT: Final = [4, 2, _TEXT, (1, 1), _TEXT, 4, [4, _ADDRESS, _TEXT, (1, 2), _TAGS]]


def _layout(key: int, version: int) -> Sequence[Any]:
    if key == _COORDINATOR:
        return _MANY_LAYOUT if version >= 4 else _ONE_LAYOUT
    return _METADATA_LAYOUT if key == _METADATA else _CLUSTER_LAYOUT
