"""The rows of both paths put together, by event: plain arrays, no data frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dualstream_lab.recording.rows import Outcome

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from dualstream_lab.recording.directory import RunDirectory

__all__ = ["Joined", "durable_lag", "join"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """One entry a recorded event, in the order of ``seq``. Times: ns of the monotonic clock, 0 for "never".

    ``heard``: by the first subscriber that heard it; ``consumed``: when it was first read from Kafka.
    ``heard_again``, ``consumed_again``: rows beyond the first of an event (and subscriber). ``orphans``:
    events that were heard and never published by the recorded generators.
    """

    seq: npt.NDArray[np.int64]
    intended: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    acked: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    heard: npt.NDArray[np.int64]
    consumed: npt.NDArray[np.int64]
    heard_again: int
    consumed_again: int
    orphans: int

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def durable(self) -> npt.NDArray[np.bool_]:
        """Which are acknowledged."""
        return np.asarray(self.outcome == Outcome.DURABLE)


def join(directory: RunDirectory) -> Joined:
    """The rows of a run. Where a kind of rows is missing, its times are 0."""
    published = directory.rows("published").sort_by("seq")
    columns = {name: _column(published, name) for name in published.column_names}
    seq = columns["seq"]
    heard_rows, consumed_rows = directory.rows("heard"), directory.rows("consumed")
    heard, orphans = _first(seq, heard_rows)
    consumed, _ = _first(seq, consumed_rows)
    return Joined(
        seq=seq,
        **{name: columns[name] for name in ("intended", "sent", "acked", "outcome", "source")},
        heard=heard,
        consumed=consumed,
        heard_again=_again(heard_rows, "subscriber"),
        consumed_again=_again(consumed_rows, None),
        orphans=orphans,
    )


def durable_lag(
    acked: npt.NDArray[np.int64], consumed: npt.NDArray[np.int64], at: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Kafka lag in seconds at the times ``at``: the age of the oldest acknowledged event not yet consumed.

    0 where there is none. ``consumed`` 0: never.
    """
    order = np.argsort(acked, kind="stable")
    acks = acked[order]
    never = np.iinfo(np.int64).max
    done = np.where(consumed[order] > 0, consumed[order], never)
    # The oldest open one at t is the first in the order of acks whose consumption is after t: the first place
    # where the running maximum of consumption exceeds t.
    first = (
        np.searchsorted(np.maximum.accumulate(done), at, side="right")
        if len(done)
        else np.zeros(len(at), int)
    )
    open_ = first < len(acks)
    begin = acks[np.minimum(first, len(acks) - 1)] if len(acks) else at
    return np.where(open_, np.maximum(at - begin, 0) / 1e9, 0.0)


def _column(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(table.column(name).to_numpy(), np.int64)


def _first(seq: npt.NDArray[np.int64], rows: pa.Table) -> tuple[npt.NDArray[np.int64], int]:
    """When each of ``seq`` first arrived, 0 for never; and how many arrived that are not in it."""
    arrived = np.zeros(len(seq), np.int64)
    seqs, times = _column(rows, "seq"), _column(rows, "at")
    if not len(seqs):
        return arrived, 0
    if not len(seq):
        return arrived, len(np.unique(seqs))
    place = np.minimum(np.searchsorted(seq, seqs), len(seq) - 1)
    ours = seq[place] == seqs
    earliest = np.full(len(seq), np.iinfo(np.int64).max)
    np.minimum.at(earliest, place[ours], times[ours])
    there = earliest < np.iinfo(np.int64).max
    arrived[there] = earliest[there]
    return arrived, len(np.unique(seqs[~ours]))


def _again(rows: pa.Table, among: str | None) -> int:
    if not rows.num_rows:
        return 0
    key = _column(rows, "seq")
    if among is not None:
        key = key * 65_536 + _column(rows, among)
    return int(rows.num_rows) - len(np.unique(key))
