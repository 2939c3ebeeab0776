"""What a recent-events store is: the Protocol, and what goes in and comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Page", "Query", "Row", "Store", "StoredEvent"]


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as it is in Kafka, with what a store finds it by."""

    partition: int
    offset: int
    id: str
    type: str
    source: str
    """``source_type:source_id``, for example ``repo:owner/name``."""
    ts: int
    """The time of the Kafka record: ns since the epoch, in steps of a millisecond."""
    value: bytes
    """The event's JSON as it is in Kafka."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """The light half of a stored event: all but its value and source."""

    offset: int
    id: str
    type: str
    ts: int


class Page(msgspec.Struct, frozen=True):
    """A stretch of one source's events, and how much of the log it is true for."""

    position: int
    """The store has everything of the partition below this offset; read in the same snapshot as ``rows``."""
    floor: int
    """Nothing at or above this offset was removed, so that ``after >= floor - 1`` is served whole."""
    rows: list[Row]
    """``after < offset < position``, ascending, at most the limit."""
    more: bool
    """There are more of the source below ``position``."""


class Query(msgspec.Struct, frozen=True):
    """Asks for a source's events after an offset; ``after=-1``: from the beginning of what is kept."""

    source: str
    partition: int
    after: int


class Store(Protocol):
    """The recent events of one log, deduplicated by id, with the position up to which it has them.

    Any number of processes may read, and several may write: whoever applies says what it applies to. All
    methods raise StoreError when the store cannot be read or written. An id is known as long as its event is
    kept.
    """

    async def epoch(self) -> str | None:
        """Which log it holds; None: nothing yet."""

    async def positions(self) -> dict[int, int]:
        """Every known partition's position W: the store has everything below it."""

    async def pages(self, queries: Sequence[Query], limit: int) -> list[Page]:
        """One page a query, in order, all of one snapshot. Of a partition that is not known: empty, at 0."""

    async def recent(
        self, source: str, *, limit: int, after: int | None = None, partition: int | None = None
    ) -> tuple[Page, list[StoredEvent]]:
        """The newest ``limit`` events of a source, ascending; with ``after``, the first ``limit`` after it.

        The page's rows mirror the events; ``more`` says that older ones (with ``after``: newer ones) are
        kept. ``partition``: the source's; left out, it is that of the source's newest event, and a source
        of which nothing is kept gives an empty page at 0, whose ``floor`` says nothing.
        """

    async def get(self, event_id: str) -> StoredEvent | None:
        """The event with this id, if it is kept."""

    async def begin(self, epoch: str, first: Mapping[int, int]) -> None:
        """Claim the store for a log whose partitions begin at ``first``; harmless when it is claimed already.

        A partition that is not known begins there: ``position = floor = first``. One that is known but lies
        before it has lost events for ever (the log's retention was faster), and goes on there in the
        same way. Raises StoreError, and changes nothing, when it holds another log.
        """

    async def apply(self, partition: int, first: int, next_: int, events: Sequence[StoredEvent]) -> int:
        """Insert the events and move the partition's position from ``first`` to ``next_``, both or neither.

        Events whose id is known are left out. Returns how many were new. ``events`` may be empty: records
        that are no events, or none at all, move the position, too. Raises StoreConflict, with
        nothing written, when the position is not ``first``: somebody else has applied what follows it.
        """

    async def prune(self, *, age: float, count: int) -> int:
        """Remove what is older than ``age`` seconds, and the oldest while there are more than ``count``.

        Returns how many were removed. From a partition the oldest offsets go first, and none that is
        young enough goes for its age. Works in short transactions; floors move in the same ones.
        """

    async def close(self) -> None:
        """End it, within seconds. What was applied stays. Nothing when it is closed."""
