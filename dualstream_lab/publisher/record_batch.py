"""Kafka's record batch (magic 2), made from parts that are encoded once per source and type.

Most of a record repeats from event to event: key, header names, four of six header values. aiokafka's
builder encodes all of it again for each; joining what is ready takes a third of the time, and leaves
the garbage collector one object an event instead of five.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from struct import Struct
from typing import Final, NamedTuple

import cramjam
from google_crc32c import extend as crc32c

from dualstream_lab.publisher.core import frame
from dualstream_lab.publisher.record_format import read_varint, varint

_OVERHEAD: Final = 100  # the batch's header (61 bytes) and one record's framing


class BatchLimit:
    """The smaller of what the settings allow and what the topic takes, in bytes.

    ``bytes`` is for a batch of several events. ``event_bytes`` is the most that key, value and headers of one
    event may have together; an event of that size is sent alone.
    """

    def __init__(self, allowed: int, topic: int) -> None:
        self._allowed = allowed
        self._topic = self._learnt = topic
        self._update()

    def _update(self) -> None:
        self.bytes = min(self._allowed, self._topic, self._learnt)
        self.event_bytes = self._topic - _OVERHEAD

    def refused(self, size: int, events: int) -> None:
        """Kafka found a batch of this size too large: its limit is another than was thought."""
        self._learnt = min(self._learnt, size // 2 if events > 1 else size - 1)
        self._update()

    def read(self, topic: int) -> None:
        """What the topic's settings say now.

        Where that is no news, what was learnt is forgotten by halves: not everybody may read the settings,
        and a limit can be raised again.
        """
        self._learnt = min(topic, 2 * self._learnt) if topic == self._topic else topic
        self._topic = topic
        self._update()


# The fastest of each: more costs several times as much and saves a tenth (zstd: nothing).
_LEVEL: Final = 1


class Codec(NamedTuple):
    """``number``: what the batch's attributes have for it."""

    number: int
    compress: Callable[[bytes], bytes]


def _snappy(records: bytes) -> bytes:
    # The raw format; of cramjam's framed one Kafka says UNKNOWN_SERVER_ERROR.
    return bytes(cramjam.snappy.compress_raw(records))


def _lz4(records: bytes) -> bytes:
    # Kafka reads frames of independent blocks only.
    compressor = cramjam.lz4.Compressor(level=_LEVEL, content_checksum=False, block_linked=False)
    compressor.compress(records)
    return bytes(compressor.finish())


CODECS: Final[Mapping[str, Codec | None]] = {
    "none": None,
    "gzip": Codec(1, lambda records: bytes(cramjam.gzip.compress(records, level=_LEVEL))),
    "snappy": Codec(2, _snappy),
    "lz4": Codec(3, _lz4),
    "zstd": Codec(4, lambda records: bytes(cramjam.zstd.compress(records, level=_LEVEL))),
}
"""By the names that the setting ``compression`` allows."""


_OUTER = Struct(">qiibI")  # base offset, length, leader epoch, magic, CRC-32C of what follows
_INNER = Struct(
    ">hiqqqhii"
)  # attributes, last delta, first and last time, producer id, epoch, sequence, count
_AFTER_LENGTH = 9  # bytes of the outer part that the length covers


class RecordBatch:
    """A batch of at most ``limit`` bytes; a first record may be larger.

    With a ``codec`` it is compressed when it is sent, where that makes it smaller: so it never has more bytes
    than what was added. Has what aiokafka's sender asks of a batch builder.
    """

    def __init__(self, limit: int, codec: Codec | None = None) -> None:
        self.in_doubt = False
        """Whether Kafka may have appended it already: an attempt was not answered, for example."""
        self._limit = limit
        self._codec = codec
        self._chunks: list[bytes] = []
        self._size = _OUTER.size + _INNER.size
        self._count = 0
        self._first_time = self._last_time = self._time = 0
        self._middle = b""  # of a record: attributes, and its time after the first one's
        self._producer = (-1, -1, -1)
        self._pieces: list[bytes] = []  # as it is sent, once that is known
        self._plain: bytes | None = None  # the records, of a batch that is compressed

    def add(self, records: list[bytes], timestamp: int) -> int:
        """Append records, encoded from the key on, of one time (ms). Returns how many found room."""
        if timestamp != self._time or not self._count:
            self._set_time(timestamp)
        framed, taken, size = frame(records, self._count, self._limit - self._size, self._middle)
        self._chunks.append(framed)
        self._size += size
        self._count += taken
        return taken

    def _set_time(self, timestamp: int) -> None:
        """Of the records to come."""
        if not self._count:
            self._first_time = self._last_time = timestamp
        self._last_time = max(self._last_time, timestamp)
        self._time, self._middle = timestamp, b"\x00" + varint(timestamp - self._first_time)

    def record_count(self) -> int:
        """Records so far."""
        return self._count

    def size(self) -> int:
        """Bytes as it is sent; before that, as many or a few more."""
        return self._size

    def records(self) -> list[bytes]:
        """What was added, each encoded from the key on: to be sent again, in other batches.

        Nobody keeps them beside the batch: every event would pay for those that are refused.
        """
        records = b"".join(self._chunks or self._pieces[1:]) if self._plain is None else self._plain
        found, end = [], 0
        while end < len(records):
            length, begin = read_varint(records, end)
            end = begin + length
            _, place = read_varint(records, begin + 1)  # after the attributes: the time, and the offset
            _, place = read_varint(records, place)
            found.append(records[place:end])
        return found

    def close(self) -> None:
        """Nothing: only its maker adds to it."""

    def closed(self) -> bool:
        """Always: it never lingers."""
        return True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def pieces(self) -> list[bytes]:
        """What is sent, joined by whoever sends it: a copy of large events costs as much as sending them."""
        if not self._pieces:
            chunks, attributes = self._compressed()
            last, times = self._count - 1, (self._first_time, self._last_time)
            inner = _INNER.pack(attributes, last, *times, *self._producer, self._count)
            length = len(inner) + sum(map(len, chunks))
            crc = reduce(crc32c, chunks, crc32c(0, inner))
            self._pieces = [_OUTER.pack(0, length + _AFTER_LENGTH, -1, 2, crc) + inner, *chunks]
            self._size = _OUTER.size + length
            self._chunks = []
        return self._pieces

    def _compressed(self) -> tuple[list[bytes], int]:
        """What is to be sent of the records, and the codec's number."""
        if self._codec is not None:
            records = b"".join(self._chunks)
            compressed = self._codec.compress(records)
            if len(compressed) < len(records):
                self._plain = records
                return [compressed], self._codec.number
        return self._chunks, 0
