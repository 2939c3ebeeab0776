"""What a look into the store says of a source's past, and how offsets of several partitions compare. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["HasPlace", "Page", "Positions", "Refusal", "hole_of", "later", "removed"]

Positions: TypeAlias = "Mapping[int, int]"
"""Partition to offset. Never changed: many streams share the one of a look into the store."""


class HasPlace(Protocol):
    """An event as the store has it."""

    @property
    def partition(self) -> int:
        """Where it is,"""

    @property
    def offset(self) -> int:
        """and its place there."""

    @property
    def id(self) -> str:
        """Unique in its source."""


class Place(Protocol):
    """A partition in the store. See :class:`dualstream_lab.store.Place`."""

    @property
    def position(self) -> int:
        """W: everything of the partition below it is in the store."""

    @property
    def floor(self) -> int:
        """Nothing at or above it was removed, nor was missing in the log."""

    @property
    def hole(self) -> int:
        """0, or below what the log had lost events before they were stored."""

    @property
    def reason(self) -> str | None:
        """Why, where there is a hole."""


R = TypeVar("R", bound=HasPlace)
R_co = TypeVar("R_co", bound=HasPlace, covariant=True)


class Page(Protocol[R_co]):
    """What one look into the store found: all of it at one moment. See :class:`dualstream_lab.store.Page`."""

    @property
    def places(self) -> Mapping[int, Place]:
        """Every partition that the store knows."""

    @property
    def first(self) -> Positions:
        """The partitions that the source has been in, each with the offset of its first event there."""

    @property
    def rows(self) -> Sequence[R_co]:
        """The source's events after what was asked and below the positions, each partition's ascending."""

    @property
    def through(self) -> Positions:
        """Of every partition: the rows are all of the source's up to and including this offset."""

    @property
    def more(self) -> bool:
        """Whether there are more of them than were asked for."""


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


def removed(page: Page[R], after: Positions, strict: Collection[int]) -> Refusal | None:
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


def hole_of(page: Page[R], homes: Collection[int]) -> Refusal | None:
    """Why the log had lost events, perhaps of the source, before they were stored; None: it had not.

    ``homes``: the partitions that its publishers write it to.
    """
    for partition in (*page.first, *homes):
        place = page.places.get(partition)
        if place is not None and place.hole:
            return _why(place)
    return None
