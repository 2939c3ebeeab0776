"""What a look into the store says of a source's past and of its lag, and how offsets compare. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from dualstream_lab.store import Page, Place

Positions: TypeAlias = "Mapping[int, int]"
"""Partition to offset. Never changed: many streams share the one of a look into the store."""

_MARKS: Final = 600  # ends of a partition that are remembered, at one a second ten minutes


class Refusal(Enum):
    """Why a source's past is not told whole."""

    EPOCH_CHANGED = "epoch_changed"
    RETENTION = "retention"
    COMPACTION = "compaction"
    TOO_FAR_BEHIND = "too_far_behind"
    STORE_LAG = "store_lag"
    STORE_UNAVAILABLE = "store_unavailable"
    LOG_UNAVAILABLE = "log_unavailable"


def later(one: Positions, other: Positions) -> Positions:
    """The higher offset of each partition; ``one`` itself where it has them."""
    if one is other:
        return one
    ahead = {partition: offset for partition, offset in other.items() if offset > one.get(partition, -1)}
    return {**one, **ahead} if ahead else one


def removed(page: Page, after: Positions, strict: Collection[int]) -> Refusal | None:
    """Why events of the source after these offsets are not in the page; None: none is missing.

    In the ``strict`` partitions whatever was removed may have been the source's; in the others it was only
    if the source was seen there below the floor.
    """
    for partition, place in page.places.items():
        known = after.get(partition, -1)
        if known + 1 >= place.floor:
            continue
        if partition in strict or page.first.get(partition, place.floor) < place.floor:
            return _why(place) if known + 1 < place.hole else Refusal.RETENTION
    return None


def _why(place: Place) -> Refusal:
    return Refusal(place.reason) if place.reason else Refusal.RETENTION


def behind(page: Page, ends: Positions) -> bool:
    """Whether the store has not come as far as these ends."""
    places = page.places
    return any(end > 0 and (p not in places or places[p].position < end) for p, end in ends.items())


def hole_of(page: Page, homes: Collection[int]) -> Refusal | None:
    """Why the log had lost events, perhaps of the source, before they were stored; None: it had not.

    ``homes``: the partitions that its publishers write it to.
    """
    for partition in (*page.first, *homes):
        place = page.places.get(partition)
        if place is not None and place.hole:
            return _why(place)
    return None


class Lag:
    """Remembers when each partition's end was first seen where it was, until the store has come so far."""

    def __init__(self) -> None:
        self._marks: dict[int, deque[tuple[float, int]]] = {}
        self._now = 0.0
        self.messages: dict[int, int] = {}
        """Of each partition whose end is known: what the store lacks."""

    def sample(self, now: float, ends: Positions, positions: Positions) -> None:
        """The ends as they were at ``now`` (s), and the store's positions, read after them."""
        self._now = now
        for partition, end in ends.items():
            marks = self._marks.setdefault(partition, deque())
            position = positions.get(partition, 0)
            self.messages[partition] = max(0, end - position)
            while marks and marks[0][1] <= position:
                marks.popleft()
            if end > position and len(marks) < _MARKS and (not marks or end > marks[-1][1]):
                marks.append((now, end))

    def seconds(self, partition: int) -> float:
        """For how long the log has had what the store lacks, as far as was watched; 0: it lacks nothing."""
        marks = self._marks.get(partition)
        return max(0.0, self._now - marks[0][0]) if marks else 0.0

    def longest(self, partitions: Iterable[int]) -> float:
        """The most seconds that one of these partitions has lagged; see :meth:`seconds`."""
        return max(map(self.seconds, partitions), default=0.0)

    def forget(self) -> None:
        """Forget what was seen: the log was made anew."""
        self._marks.clear()
        self.messages.clear()
