"""What is known of a run's events, as arrays: the input of the account. Pure.

Times are ns of the monotonic clock, 0 for "never". Rows point at events by their ``place`` in
:class:`Events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from dualstream_lab.recording import Ending
from dualstream_lab.recording.joined import Published
from dualstream_lab.recording.rows import Codes, Flags, Int32, Int64

if TYPE_CHECKING:
    import numpy.typing as npt

    Integers = npt.NDArray[Any]

NO_ROW: Final = -1
"""The outcome of an event that has no row of its publishing."""

FOREVER: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Events(Published):
    """All events that any row names. ``writer``: which process published it.

    Without a row of its publishing, ``outcome`` is ``NO_ROW`` and the rest 0.
    """

    writer: npt.NDArray[np.uint16]


class Consumed(NamedTuple):
    """Rows of records, as they were read."""

    place: Int32
    at: Int64
    partition: Int32
    offset: Int64


class Delivered(NamedTuple):
    """Rows of notifications: subscriber by subscriber, and as they arrived within each.

    ``bounds``: where each subscriber's rows begin, and after the last where they end.
    """

    place: Int32
    at: Int64
    bounds: Int64


class CaughtUp(NamedTuple):
    """Rows of events that a subscriber was given later."""

    place: Int32
    at: Int64
    subscriber: Int32


class Window(NamedTuple):
    """A subscription, from its confirmation to its end. ``slow``: Redis ended it because its client was slow.

    ``end`` is ``FOREVER`` where none was recorded.
    """

    begin: int
    end: int
    why: Ending
    slow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """A subscriber, and when it was listening.

    ``sources``: the ranks of those it subscribes to, -1 for all. ``windows``: by time, not overlapping.

    ``holes``: stretches of time whose rows of it are missing.
    """

    sources: tuple[int, ...] = (-1,)
    windows: Sequence[Window] = field(default=(Window(0, FOREVER, Ending.CLOSED),))
    holes: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """The notifications that the publisher gave up.

    ``cause``: for each event, 0, or ``Cause.DROPPED`` plus the reason why its notification was given up.

    ``exact``: told event by event; else it is what the publisher gave up in the second of the event's
    acknowledgement, and counts only for events that nobody received.
    """

    cause: Codes
    exact: bool = True


# Repeats and inversions in rows, without loops over them.


def grouped(groups: Integers) -> Int64:
    """Find the order that puts equal groups together, and keeps the order within each."""
    if len(groups) and groups.max() < 65_536:
        groups = groups.astype(np.uint16)  # numpy sorts these by radix, ten times as fast
    return np.argsort(groups, kind="stable")


def combined(groups: Integers, other: Integers) -> Integers:
    """Number the pairs of two columns, which are not negative: equal pairs have equal numbers."""
    most = int(other.max(initial=0))
    return groups.astype(np.int64) * (most + 1) + other if most else groups


def behind(groups: Integers, keys: Integers) -> Flags:
    """Find the entries that come after one of their group that has a higher key.

    Both are not negative, and the product of their ranges fits 63 bits.
    """
    reordered = np.zeros(len(groups), np.bool_)
    if not len(groups):
        return reordered
    order = grouped(groups)
    least = keys.min()
    value = groups[order].astype(np.int64)
    value *= int(keys.max() - least) + 1
    value += keys[order]
    value -= least
    reordered[order] = value < np.maximum.accumulate(value)
    return reordered


def ranks(times: Integers) -> Int64:
    """Find the place of each entry in the order of time; equal times keep their order."""
    places = np.arange(len(times))
    if np.all(times[1:] >= times[:-1]):
        return places
    found = np.empty_like(places)
    found[np.argsort(times, kind="stable")] = places
    return found


def first_rows(places: Integers, count: int) -> Int64 | None:
    """Find the rows that are the first with their place (0 to ``count`` - 1), ascending; None if all are."""
    seen = np.zeros(count, np.bool_)
    seen[places] = True
    if np.count_nonzero(seen) == len(places):
        return None
    first = np.empty(count, np.int64)
    rows = np.arange(len(places))
    first[places[::-1]] = rows[::-1]  # of equal indices the last one assigned stays
    return np.sort(first[seen])
