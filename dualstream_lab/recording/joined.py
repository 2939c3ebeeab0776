"""The rows of both paths put together, by event: plain arrays, no data frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from dualstream_lab.recording.directory import RunDirectory
from dualstream_lab.recording.rows import KINDS, Flags, Floats, Int32, Int64, Outcome, Outcomes

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One entry an event, by ascending ``seq``. Times: ns of the monotonic clock, 0 for "never"."""

    seq: Int64
    intended: Int64
    sent: Int64
    acked: Int64
    outcome: Outcomes
    source: Int32

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def durable(self) -> Flags:
        """Which events are acknowledged."""
        return np.asarray(self.outcome == Outcome.DURABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined(Published):
    """Published events, with what became of them on both paths."""

    delivered: Int64  # when the first subscriber had it, live or later
    consumed: Int64  # when it was first read from Kafka
    delivered_again: int  # rows beyond the first of an event and subscriber
    consumed_again: int  # rows beyond the first of an event
    orphans: int  # events that were delivered and never published by the recorded generators
    rows: Mapping[str, int]  # how many rows of each kind were read
    damaged: frozenset[str]  # kinds of which parts are missing


def join(directory: RunDirectory) -> Joined:
    """The rows of a run. Where a kind of rows is missing, its times are 0."""
    rows: dict[str, int] = {}
    damaged: set[str] = set()

    def parts(kind: str, *names: str) -> Iterator[dict[str, Any]]:
        """The columns of each part that has rows."""
        rows[kind] = 0
        for _, columns in directory.columns(kind, names):
            if columns is None:
                damaged.add(kind)
            elif count := len(columns["seq"]):
                rows[kind] += count
                yield columns

    names = ("seq", "intended", "sent", "acked", "outcome", "source")
    published = by_seq(stacked(list(parts("published", *names)), column_types("published", names)))
    each = ("seq", "at", "subscriber")
    delivered, delivered_again, orphans = _first(
        published["seq"], chain(parts("delivered", *each), parts("caught_up", *each))
    )
    consumed, consumed_again, _ = _first(published["seq"], parts("consumed", "seq", "at"))
    return Joined(
        **published, delivered=delivered, consumed=consumed, delivered_again=delivered_again,
        consumed_again=consumed_again, orphans=orphans, rows=rows, damaged=frozenset(damaged),
    )  # fmt: skip


def _first(seq: Int64, parts: Iterable[dict[str, Any]]) -> tuple[Int64, int, int]:
    """(when each of ``seq`` first arrived, 0 for never; rows beyond the first of an event, and of its
    subscriber; events that arrived and are not in ``seq``).
    """
    arrived = np.full(len(seq), _NEVER)
    keys: list[Int64] = []
    orphans: list[Int64] = []
    for columns in parts:
        place, known = places(seq, columns["seq"])
        if not known.all():
            orphans.append(columns["seq"][~known])
            place = place[known]
        np.minimum.at(arrived, place, columns["at"][known])
        keys.append(place * 65_536 + columns["subscriber"][known] if "subscriber" in columns else place)
    arrived[arrived == _NEVER] = 0
    return arrived, _again(keys), len(np.unique(np.concatenate(orphans))) if orphans else 0


def column_types(kind: str, names: Iterable[str]) -> dict[str, str]:
    """The types of a kind's columns, as numpy's."""
    return {name: f"i{KINDS[kind][name].bit_width // 8}" for name in names}


def stacked(parts: Sequence[dict[str, Any]], types: Mapping[str, Any]) -> dict[str, Any]:
    """One array a column, of all parts, which are used up: a big run would need twice its size."""
    columns = {
        name: np.concatenate([np.empty(0, kind), *(part.pop(name) for part in parts)])
        for name, kind in types.items()
    }
    pa.default_memory_pool().release_unused()
    return columns


def by_seq(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns in the order of ``seq``; of an event that was published twice, its first row."""
    if np.all(columns["seq"][1:] > columns["seq"][:-1]):
        return columns
    _, first = np.unique(columns["seq"], return_index=True)
    return {name: column[first] for name, column in columns.items()}


def _again(parts: list[Int64]) -> int:
    """How many keys repeat an earlier one. (``np.unique`` takes ten times as long for millions.)"""
    if not parts:
        return 0
    keys = np.concatenate(parts)
    parts.clear()
    keys.sort()
    return int(np.count_nonzero(keys[1:] == keys[:-1]))


def places(seq: Int64, wanted: Int64) -> tuple[Int64, Flags]:
    """(the place of each of ``wanted`` in the ascending ``seq``, whether it is there)."""
    if not len(seq):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    if seq[-1] - seq[0] == len(seq) - 1:  # none is missing: no search
        place = np.clip(wanted - seq[0], 0, len(seq) - 1)
    else:
        place = np.minimum(np.searchsorted(seq, wanted), len(seq) - 1)
    return place, np.asarray(seq[place] == wanted)


def durable_lag(acked: Int64, consumed: Int64, at: Int64) -> Floats:
    """Kafka lag in seconds at the times ``at``: the age of the oldest acknowledged event not yet consumed.

    0 where there is none. ``consumed`` 0: never.
    """
    if not len(acked):
        return np.zeros(len(at))
    order = np.argsort(acked, kind="stable")
    acks, done = acked[order], consumed[order]
    # The oldest open one at t is the first in the order of acks whose consumption is after t: the first place
    # where the running maximum of consumption exceeds t.
    running = np.maximum.accumulate(np.where(done > 0, done, _NEVER))
    first = np.searchsorted(running, at, side="right")
    begin = acks[np.minimum(first, len(acks) - 1)]
    return np.where(first < len(acks), np.maximum(at - begin, 0) / 1e9, 0.0)
