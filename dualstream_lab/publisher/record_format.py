"""What Kafka's record format is made of: zigzag varints, as in protocol buffers, and headers."""

from __future__ import annotations

from typing import Final

from dualstream_lab.event import Header

_TABLE: Final = 16_384


def varint(number: int) -> bytes:
    """A zigzag varint."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append((rest & 0x7F) | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """A zigzag varint, and where it ends."""
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:  # the last one
            return (number >> 1) ^ -(number & 1), place


VARINTS: Final = tuple(varint(number) for number in range(_TABLE))


def prefixed(text: bytes) -> bytes:
    """Bytes with their length in front."""
    size = len(text)
    return (VARINTS[size] if size < _TABLE else varint(size)) + text


def encoded_header(header: Header) -> bytes:
    """A header as it is in a record."""
    return prefixed(header[0].encode()) + prefixed(header[1])


COMMON_HEADERS: Final = encoded_header(("ce_specversion", b"1.0")) + encoded_header(
    ("content-type", b"application/json")
)
"""The two that every event has, to be followed by the others of the count."""
