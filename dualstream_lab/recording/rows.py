"""Rows, columnar, in many small Parquet files: each is complete once it has its name, so a crash keeps them.

Times are ns of the monotonic clock, which the processes of one machine share; 0 stands for "not".
"""

from __future__ import annotations

import _thread
import time
from _queue import Empty, SimpleQueue  # not `queue`: a patched process must still get real locks
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

# The arrays of all who read rows.
Int64: TypeAlias = npt.NDArray[np.int64]
Int32: TypeAlias = npt.NDArray[np.int32]
Outcomes: TypeAlias = npt.NDArray[np.int8]
Floats: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Codes: TypeAlias = npt.NDArray[np.uint8]
Column: TypeAlias = Int64 | int

KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    # ``seq``: the event's number in the plan; ``intended``, ``sent``, ``acked``: times; ``source``: its rank
    "published": {
        "seq": pa.int64(), "intended": pa.int64(), "sent": pa.int64(), "acked": pa.int64(),
        "outcome": pa.int8(), "source": pa.int32(), "size": pa.int32(),
    },
    # one row a subscriber and event; ``at``: when its bytes were read
    "delivered": {"seq": pa.int64(), "at": pa.int64(), "subscriber": pa.int32()},
    # one row a record; ``at``: when the consumer had it
    "consumed": {"seq": pa.int64(), "at": pa.int64(), "partition": pa.int32(), "offset": pa.int64()},
    # one row a notification that the publisher gave up; ``reason``: its place in DROPS
    "dropped": {"seq": pa.int64(), "at": pa.int64(), "reason": pa.int8()},
    # one row a subscriber and event that it was given by catch-up (``by_repair`` 0) or by repair (1)
    "caught_up": {"seq": pa.int64(), "at": pa.int64(), "subscriber": pa.int32(), "by_repair": pa.int8()},
    # a subscription, from its confirmation: a row when it begins (``end`` 0), another one when it ends.
    # ``source``: the rank of the one that it is for, -1 for all; ``why``: its Ending
    "listening": {
        "subscriber": pa.int32(), "source": pa.int32(), "begin": pa.int64(), "end": pa.int64(),
        "why": pa.int8(),
    },
}  # fmt: skip

DROPS: Final = (
    "another reason", "redis connection", "redis timeout", "redis refused", "redis down", "queue full",
    "closed",
)  # fmt: skip
"""Why a publisher gives a notification up."""

_PART_ROWS = 131_072
_PART_SECONDS = 1.0
_BACKLOG = 32  # parts that may wait for the disk: about four million rows
_CLOSE = 30.0


class Outcome(IntEnum):
    """What the publisher said of an event."""

    PENDING = 0
    DURABLE = 1
    REJECTED = 2
    UNKNOWN = 3
    NO_ROOM = 4


class Ending(IntEnum):
    """How a subscription ended."""

    OPEN = 0
    """It did not end, as far as was recorded."""
    LOST = 1
    """Its connection was lost."""
    LEFT = 2
    """The subscriber went, and will come again."""
    CLOSED = 3
    """The recording ended."""


RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "seq": (0, 2**48 - 1), "outcome": (0, max(Outcome)), "source": (-1, 1_000_000), "size": (0, 2**31 - 1),
    "subscriber": (0, 2**24), "partition": (0, 2**20), "offset": (-1, 2**62), "reason": (0, len(DROPS) - 1),
    "by_repair": (0, 1), "why": (0, max(Ending)),
}  # fmt: skip
"""What the columns that are not times can hold: whoever reads rows counts by these."""


def sampled(seq: Int64, every: int) -> Flags:
    """Which events are recorded when only one in ``every`` is: the same ones in every process.

    Chosen by SplitMix64's finalizer (Steele, Lea, Flood 2014), so that no rhythm of the plan is favoured, and
    a stretch of 20,000 events has its share within some percent.
    """
    if every == 1:
        return np.ones(len(seq), np.bool_)
    return np.asarray(mixed(seq.astype(np.uint64)) % np.uint64(every) == 0)


def mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64: a number for each, as if by chance, and always the same."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class RowWriter:
    """Writes rows of one kind, from one process; a thread of its own does the work on the disk.

    ``every``: one event in so many is kept. ``start_thread``: for processes where it is patched. When the
    disk is too slow, whole parts are dropped and counted in ``dropped``; nothing ever waits.
    """

    def __init__(
        self, directory: Path, kind: str, writer: str, *, every: int = 1,
        start_thread: Callable[..., object] = _thread.start_new_thread,
    ) -> None:  # fmt: skip
        self._types = KINDS[kind]
        self._stem = directory / f"{kind}-{writer}"
        self._every = every
        self._rows = self._empty()
        self._filled = 0
        self._since = time.monotonic()
        self._parts = 0
        self._waiting: SimpleQueue[tuple[Path, dict[str, Int64]] | None] = SimpleQueue()
        self._done: SimpleQueue[Exception | None] = SimpleQueue()
        self.written = 0
        self.dropped = 0
        pa.set_cpu_count(1)  # one writer: more threads would only disturb what is measured
        start_thread(self._write_all, ())

    def _empty(self) -> dict[str, Int64]:
        return {name: np.empty(_PART_ROWS, np.int64) for name in self._types}

    def add(self, seq: Int64, **columns: Column) -> None:
        """Rows, as arrays of one length or as a value for all of them."""
        if self._every > 1:
            chosen = sampled(seq, self._every)
            seq = seq[chosen]
            columns = {
                name: each if isinstance(each, int) else each[chosen] for name, each in columns.items()
            }
        columns["seq"] = seq
        begin, count = 0, len(seq)
        while begin < count:
            end = min(count, begin + _PART_ROWS - self._filled)
            room = slice(self._filled, self._filled + end - begin)
            for name, rows in self._rows.items():
                column = columns[name]
                rows[room] = column if isinstance(column, int) else column[begin:end]
            self._filled += end - begin
            begin = end
            if self._filled == _PART_ROWS:
                self.flush()
        if self._filled and time.monotonic() - self._since > _PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand what there is to the disk, without waiting for it."""
        self._since = time.monotonic()
        if not self._filled:
            return
        if self._waiting.qsize() >= _BACKLOG:
            self.dropped += self._filled
        else:
            self._parts += 1
            part = {name: rows[: self._filled] for name, rows in self._rows.items()}
            path = self._stem.with_name(f"{self._stem.name}-{self._parts:05d}.parquet")
            self._waiting.put((path, part))
            self.written += self._filled
        self._rows = self._empty()
        self._filled = 0

    def close(self) -> None:
        """Write what is left; blocks for at most half a minute. Raises OSError if the disk refused rows."""
        self.flush()
        self._waiting.put(None)
        try:
            failure = self._done.get(timeout=_CLOSE)
        except Empty:
            failure = OSError(f"{self._stem.name}: the disk took longer than {_CLOSE:g} s")
        if failure is not None:
            raise failure

    def _write_all(self) -> None:
        failure: Exception | None = None
        # The first write of a process takes a quarter of a second of CPU: not while it measures.
        self._encode({name: rows[:0] for name, rows in self._empty().items()}, pa.BufferOutputStream())
        while (part := self._waiting.get()) is not None:
            path, rows = part
            hidden = path.with_name(f".{path.name}")
            try:
                self._encode(rows, hidden)
                hidden.rename(path)
            except (OSError, pa.ArrowException) as error:
                failure = OSError(f"{path.name} was not written: {error}")
                self.dropped += len(rows["seq"])
        self._done.put(failure)

    def _encode(self, part: dict[str, Int64], file: Any) -> None:
        # Not pa.array, which would import pandas: half a second of CPU, and in two threads of a process that
        # gevent has patched a deadlock, as the locks of imports are then gevent's.
        columns = []
        for name, kind in self._types.items():
            values = part[name].astype(f"i{kind.bit_width // 8}")
            columns.append(pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)]))
        table = pa.Table.from_arrays(columns, names=list(self._types))
        pq.write_table(table, file, compression="lz4", use_dictionary=False, write_statistics=False)
