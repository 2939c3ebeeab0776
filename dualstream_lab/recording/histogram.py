"""A latency histogram: HDR, in microseconds, three significant digits; what never arrived counts, too."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.ctypeslib import as_array  # numpy's own lazy import would come while it measures

from dualstream_lab.errors import RecordingError
from dualstream_lab.recording.rows import Floats, Int64

_HIGHEST = 3_600_000_000  # µs: an hour
_DIGITS = 3
_SUB_BITS = 11  # 2 x 10^3 values a bucket, as a power of two
_OUTER: Final = 8  # bytes before what is packed by zlib
_INNER: Final = struct.Struct(">12xiqq")  # in it: digits, lowest and highest value
_MOST: Final = 2**19  # bytes of it unpacked: more than every count in nine bytes


class LatencyHistogram:
    """Latencies, ns in, ms out. ``missing``: events without an end, which count as +inf.

    ``negative``: samples that cannot be; counted, shown, and left out. Any HdrHistogram library reads
    :meth:`encode`'s text.
    """

    def __init__(self) -> None:
        self._hdr = HdrHistogram(1, _HIGHEST, _DIGITS)
        self.missing = 0
        self.negative = 0

    def __bool__(self) -> bool:
        return bool(self.count or self.negative)

    @property
    def arrived(self) -> int:
        """How many events have an end."""
        return int(self._hdr.total_count)

    @property
    def count(self) -> int:
        """How many events were recorded, with those that are missing."""
        return self.arrived + self.missing

    def record(self, latencies: Int64, counts: Int64 | None = None) -> None:
        """Add samples, ns; ``counts``: how many events each of them stands for."""
        weights = np.ones(len(latencies), np.int64) if counts is None else counts
        good = latencies >= 0
        self.negative += int(weights[~good].sum())
        micros = np.minimum(np.maximum(latencies[good] // 1000, 1), _HIGHEST)
        if not len(micros):
            return
        # The place of each value, as in HdrHistogram's countsArrayIndex. One call of record_value a value
        # would stop the event loop for milliseconds every second.
        shift = np.maximum(np.frexp(micros.astype(np.float64))[1].astype(np.int64) - _SUB_BITS, 0)
        places = (shift << (_SUB_BITS - 1)) + (micros >> shift)
        hdr = self._hdr
        kept = as_array(hdr.counts)
        kept += np.bincount(places, weights[good], minlength=len(kept)).astype(kept.dtype)
        hdr.total_count += int(weights[good].sum())
        hdr.min_value = min(hdr.min_value, int(micros.min()))
        hdr.max_value = max(hdr.max_value, int(micros.max()))

    def add(self, other: LatencyHistogram) -> None:
        """Add all samples of another histogram to this one."""
        if other.arrived:
            self._hdr.add(other._hdr)
        self.missing += other.missing
        self.negative += other.negative

    def values(self) -> tuple[Floats, Int64]:
        """(ms, how many) of those that arrived, ascending, as coarse as they are kept."""
        counts = as_array(self._hdr.counts)
        places = np.flatnonzero(counts)
        half = 1 << (_SUB_BITS - 1)
        shift = np.maximum(places // half - 1, 0)
        return ((places - shift * half) << shift) / 1e3, counts[places].astype(np.int64)

    def quantile(self, q: float, *, arrived_only: bool = False) -> float:
        """The latency in ms that ``q`` of all stay within; +inf where so many never arrived; NaN of none."""
        total = self.arrived if arrived_only else self.count
        if not total:
            return math.nan
        rank = max(1, math.ceil(round(q * total, 6)))
        if rank > self.arrived:
            return math.inf
        return float(self._hdr.get_value_at_percentile(100.0 * rank / self.arrived)) / 1000

    def encode(self) -> dict[str, object]:
        """The histogram as a dictionary that JSON can hold."""
        return {"hdr": self._hdr.encode().decode("ascii"), "missing": self.missing, "negative": self.negative}

    @classmethod
    def decode(cls, value: dict[str, object]) -> LatencyHistogram:
        """Read what :meth:`encode` made. Raises RecordingError."""
        made = cls()
        try:
            text = str(value["hdr"]).encode("ascii")
            _check_encoded(text)
            made._hdr = HdrHistogram.decode(text)
            made.missing, made.negative = int(str(value["missing"])), int(str(value["negative"]))
        except Exception as error:
            raise RecordingError(f"a histogram cannot be read: {error}") from error
        return made


def _check_encoded(text: bytes) -> None:
    """Raise ValueError for a histogram of another shape, or one that would unpack to any size."""
    unpacker = zlib.decompressobj()
    payload = unpacker.decompress(base64.b64decode(text)[_OUTER:], _MOST)
    if not unpacker.eof or _INNER.unpack_from(payload) != (_DIGITS, 1, _HIGHEST):
        raise ValueError("it is not one of ours")
