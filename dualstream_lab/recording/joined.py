"""The rows of both paths put together, by event: plain arrays, no data frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dualstream_lab.recording.rows import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dualstream_lab.recording.directory import RunDirectory

__all__ = ["Joined", "durable_lag", "join", "places"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """One entry a recorded event, in the order of ``seq``. Times: ns of the monotonic clock, 0 for "never".

    ``heard``: by the first subscriber that heard it, live or later; ``consumed``: when it was first read from
    Kafka.
    ``heard_again``, ``consumed_again``: rows beyond the first of an event (and subscriber). ``orphans``:
    events that were heard and never published by the recorded generators.
    """

    seq: npt.NDArray[np.int64]
    intended: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    acked: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.int8]
    source: npt.NDArray[np.int32]
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
    columns = _by_seq(directory.rows("published"))
    pa.default_memory_pool().release_unused()  # a big run would keep twice its size
    seq = columns["seq"]
    heard, heard_again, orphans = _first(directory, seq, ("heard", "caught_up"), among="subscriber")
    consumed, consumed_again, _ = _first(directory, seq, ("consumed",))
    return Joined(
        seq=seq,
        **{name: columns[name] for name in ("intended", "sent", "acked", "outcome", "source")},
        heard=heard,
        consumed=consumed,
        heard_again=heard_again,
        consumed_again=consumed_again,
        orphans=orphans,
    )


def _by_seq(rows: pa.Table) -> dict[str, npt.NDArray[Any]]:
    columns = {name: rows.column(name).to_numpy() for name in rows.column_names if name != "size"}
    seq = columns["seq"]
    if np.all(seq[1:] > seq[:-1]):
        return columns
    order = np.argsort(seq, kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _first(
    directory: RunDirectory, seq: npt.NDArray[np.int64], kinds: Sequence[str], *, among: str | None = None
) -> tuple[npt.NDArray[np.int64], int, int]:
    """(when each of ``seq`` first arrived, 0 for never; rows beyond the first of an event, and ``among``;
    events that arrived and are not in ``seq``).
    """
    never = np.iinfo(np.int64).max
    arrived = np.full(len(seq), never)
    keys: list[npt.NDArray[np.int64]] = []
    strangers: list[npt.NDArray[np.int64]] = []
    names = ("seq", "at") if among is None else ("seq", "at", among)
    for kind in kinds:
        for part in directory.parts(kind, names):
            if part.rows is None or not len(part.rows):
                continue
            seqs, times, *whom = (part.rows.column(name).to_numpy() for name in names)
            if not len(seq):
                strangers.append(seqs)
                continue
            place, ours = places(seq, seqs)
            if not ours.all():
                strangers.append(seqs[~ours])
                place, times, whom = place[ours], times[ours], [each[ours] for each in whom]
            np.minimum.at(arrived, place, times)
            keys.append(place * 65_536 + whom[0] if whom else place)
    arrived[arrived == never] = 0
    orphans = len(np.unique(np.concatenate(strangers))) if strangers else 0
    return arrived, _again(keys), orphans


def _again(parts: list[npt.NDArray[np.int64]]) -> int:
    """How many keys were there before. (``np.unique`` takes ten times as long for millions.)"""
    if not parts:
        return 0
    keys = np.concatenate(parts)
    parts.clear()
    keys.sort()
    return int(np.count_nonzero(keys[1:] == keys[:-1]))


def places(
    seq: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(the place of each of ``wanted`` in the ascending ``seq``, whether it is there). ``seq``: not empty."""
    if seq[-1] - seq[0] == len(seq) - 1:  # none is missing: no search
        place = np.clip(wanted - seq[0], 0, len(seq) - 1)
    else:
        place = np.minimum(np.searchsorted(seq, wanted), len(seq) - 1)
    return place, np.asarray(seq[place] == wanted)


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
