"""The codecs of a record batch, written so that Kafka takes them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import cramjam

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CODECS", "Codec"]

# The fastest of each: more costs several times as much and saves a tenth (zstd: nothing).
_LEVEL: Final = 1


class Codec(NamedTuple):
    """``number``: what the batch's attributes have for it."""

    number: int
    compress: Callable[[bytes], bytes]


def _gzip(records: bytes) -> bytes:
    return bytes(cramjam.gzip.compress(records, level=_LEVEL))


def _snappy(records: bytes) -> bytes:
    # The raw format; of cramjam's framed one Kafka says UNKNOWN_SERVER_ERROR.
    return bytes(cramjam.snappy.compress_raw(records))


def _lz4(records: bytes) -> bytes:
    # Kafka reads frames of independent blocks only.
    compressor = cramjam.lz4.Compressor(level=_LEVEL, content_checksum=False, block_linked=False)
    compressor.compress(records)
    return bytes(compressor.finish())


def _zstd(records: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(records, level=_LEVEL))


CODECS: Final[Mapping[str, Codec | None]] = {
    "none": None,
    "gzip": Codec(1, _gzip),
    "snappy": Codec(2, _snappy),
    "lz4": Codec(3, _lz4),
    "zstd": Codec(4, _zstd),
}
"""By the names that the setting ``compression`` allows."""
