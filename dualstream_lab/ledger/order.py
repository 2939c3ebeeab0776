"""Repeats and inversions in rows, without loops over them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from dualstream_lab.recording.rows import Flags, Int64

    Integers = npt.NDArray[Any]

__all__ = ["behind", "combined", "first_rows", "grouped", "ranks"]


def grouped(groups: Integers) -> Int64:
    """The order that puts equal groups together, and keeps the order within each."""
    if len(groups) and groups.max() < 65_536:
        groups = groups.astype(np.uint16)  # numpy sorts these by radix, ten times as fast
    return np.argsort(groups, kind="stable")


def combined(groups: Integers, other: Integers) -> Integers:
    """Numbers of what is equal in both, which are not negative."""
    most = int(other.max(initial=0))
    return groups.astype(np.int64) * (most + 1) + other if most else groups


def behind(groups: Integers, keys: Integers) -> Flags:
    """Which entries come after one of their group that has a higher key.

    Both are not negative, and the product of their ranges fits 63 bits.
    """
    late = np.zeros(len(groups), np.bool_)
    if not len(groups):
        return late
    order = grouped(groups)
    least = keys.min()
    value = groups[order].astype(np.int64)
    value *= int(keys.max() - least) + 1
    value += keys[order]
    value -= least
    late[order] = value < np.maximum.accumulate(value)
    return late


def ranks(times: Integers) -> Int64:
    """The place of each entry in the order of time; equal times keep their order."""
    places = np.arange(len(times))
    if np.all(times[1:] >= times[:-1]):
        return places
    found = np.empty_like(places)
    found[np.argsort(times, kind="stable")] = places
    return found


def first_rows(places: Integers, count: int) -> Int64 | None:
    """The rows that are the first with their place (0 to ``count`` - 1), ascending; None if all are."""
    seen = np.zeros(count, np.bool_)
    seen[places] = True
    if np.count_nonzero(seen) == len(places):
        return None
    first = np.empty(count, np.int64)
    rows = np.arange(len(places))
    first[places[::-1]] = rows[::-1]  # of equal indices the last one assigned stays
    return np.sort(first[seen])
