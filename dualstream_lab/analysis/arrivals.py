"""When each event of a run was acknowledged, heard and read: part by part, only what a tally needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from dualstream_lab.errors import RecordingError
from dualstream_lab.ledger.seconds import Seconds
from dualstream_lab.recording import Outcome
from dualstream_lab.recording.joined import places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from dualstream_lab.recording import RunDirectory

    Int64 = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

__all__ = ["NEVER", "Arrivals", "read_arrivals"]

NEVER: Final = np.iinfo(np.int64).max
"""The time of what did not happen."""

_COUNTERS: Final = {
    "published": ("durable", "rejected", "unknown", "no_room", "pending"),
    "heard": ("heard",),
    "consumed": ("consumed",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """One entry an event, by ascending ``seq``; ns of the monotonic clock.

    ``acked``: 0 where it is not ``durable``. ``heard``: by the first subscriber, live or later. ``heard``,
    ``consumed`` and ``dropped`` (whether its notification was given up) are None where they were not
    recorded, where rows are missing, or where the log was not read to its end: nobody knows then what "never"
    is. ``whole``: no row of publishing is missing. ``problems`` names what is. ``busy``: the share of the
    machine's cores that anybody used.
    """

    intended: Int64
    acked: Int64
    durable: Flags
    heard: Int64 | None
    consumed: Int64 | None
    dropped: Flags | None
    whole: bool
    problems: tuple[str, ...]
    busy: float


def read_arrivals(directory: RunDirectory) -> Arrivals:
    """Of a run. Raises RecordingError for one without rows of publishing."""
    reader = _Reader(directory)
    seq, intended, acked, outcome = reader.published()
    durable = outcome == Outcome.DURABLE
    heard = reader.first(seq, "heard", "caught_up")
    consumed = reader.first(seq, "consumed")
    dropped = reader.dropped(seq)
    return Arrivals(
        intended=intended,
        acked=np.where(durable, acked, 0),
        durable=durable,
        heard=heard,
        consumed=consumed,
        dropped=dropped,
        whole="published" not in reader.missing,
        problems=(*directory.problems, *reader.problems),
        busy=reader.busy,
    )


class _Reader:
    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._seconds = Seconds.of(directory)
        self.missing: set[str] = set()
        self.problems: list[str] = []

    @property
    def busy(self) -> float:
        used, idle = (self._seconds.counters.get(f"machine.{kind}_ms", 0) for kind in ("busy", "idle"))
        return used / (used + idle) if used + idle else math.nan

    def published(self) -> tuple[Int64, Int64, Int64, npt.NDArray[np.int8]]:
        names = ("seq", "intended", "acked", "outcome")
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
        for rows in self._parts("published", names):
            for name in names:
                parts[name].append(rows.column(name).to_numpy())
        if not parts["seq"]:
            raise RecordingError(f"{self._directory.path} has no rows: there is nothing to compare")
        columns = {name: np.concatenate(parts.pop(name)) for name in names}
        pa.default_memory_pool().release_unused()  # a big run would keep twice its size
        seq = columns["seq"]
        self._check("published", len(seq))
        if not np.all(seq[1:] > seq[:-1]):
            _, first = np.unique(seq, return_index=True)
            columns = {name: column[first] for name, column in columns.items()}
        return columns["seq"], columns["intended"], columns["acked"], columns["outcome"]

    def first(self, seq: Int64, *kinds: str) -> Int64 | None:
        """When each event first arrived; None where that is not known."""
        arrived = np.full(len(seq), NEVER)
        for kind in kinds:
            count = 0
            for rows in self._parts(kind, ("seq", "at")):
                count += len(rows)
                place, ours = places(seq, rows.column("seq").to_numpy())
                np.minimum.at(arrived, place[ours], rows.column("at").to_numpy()[ours])
            self._check(kind, count)
        told = self._seconds.counters.get(kinds[0])
        if told is None and not (arrived < NEVER).any():
            return None
        return None if self.missing.intersection(kinds) else arrived

    def dropped(self, seq: Int64) -> Flags | None:
        """Whether each event's notification was given up; None where that was not recorded."""
        given_up = np.zeros(len(seq), np.bool_)
        count = 0
        for rows in self._parts("dropped", ("seq",)):
            count += len(rows)
            place, ours = places(seq, rows.column("seq").to_numpy())
            given_up[place[ours]] = True
        told = sum(n for name, n in self._seconds.counters.items() if name.startswith("dropped: "))
        if self._directory.manifest.sample == 1 and count < told:
            self._miss("dropped", f"{told - count:,} of {told:,} dropped rows are missing")
        notified = "notified" in self._seconds.counters or told
        return given_up if notified and "dropped" not in self.missing else None

    def _parts(self, kind: str, names: Sequence[str]) -> Iterator[pa.Table]:
        for _, rows in self._directory.parts(kind, names):
            if rows is None:
                self.missing.add(kind)  # the directory's problems name the file
            elif len(rows):
                yield rows

    def _check(self, kind: str, rows: int) -> None:
        told = sum(self._seconds.counters.get(name, 0) for name in _COUNTERS.get(kind, ()))
        if refused := self._seconds.refused(kind):
            self._miss(kind, f"{refused:,} {kind} rows are missing: the disk was too slow for them")
        elif self._directory.manifest.sample == 1 and rows < told:
            self._miss(kind, f"{told - rows:,} of {told:,} {kind} rows are missing")
        if kind == "consumed" and self._seconds.unread:
            self._miss(kind, self._seconds.unread)

    def _miss(self, kind: str, problem: str) -> None:
        self.missing.add(kind)
        self.problems.append(problem)
