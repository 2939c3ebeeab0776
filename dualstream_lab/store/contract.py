"""What a recent-events store is: the Protocol, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from dualstream_lab.record import StoredEvent

Removal = Literal["retention", "compaction"]


class Place(msgspec.Struct, frozen=True, gc=False):
    """One partition, as far as the store has it."""

    position: int
    """The store has everything of the partition below this offset."""
    floor: int
    """Nothing at or above this offset was removed from the store, nor was missing in the log."""
    hole: int = 0
    """0, or an offset up to which the log had lost events before they were stored: inside what was there."""
    reason: Removal | None = None
    """Why, where there is a hole."""


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The light half of a stored event: all but its value and source."""

    partition: int
    offset: int
    id: str
    type: str
    ts: int


class Page(msgspec.Struct, frozen=True):
    """A stretch of one source's events, and how much of the log it is true for; all of one snapshot."""

    places: Mapping[int, Place]
    """Every partition of the log that the store knows; shared by all pages of one look."""
    first: Mapping[int, int]
    """The partitions that the source has been in, with the offset of its first event there, kept or not."""
    rows: list[Row]
    """``after < offset < position`` in each partition, and at or above its floor; at most the limit.

    In order of time across partitions, and in a partition's own order within it."""
    through: Mapping[int, int]
    """Of every partition: the rows are all of the source's up to and including this offset.

    ``position - 1``, or that of its last row where the limit cut more of it off. Where it has no row then:
    what was asked after, and not less than what lies below the floor."""
    more: bool
    """There are more of the source below the positions."""


class Query(msgspec.Struct, frozen=True):
    """Asks for a source's events after an offset in each partition; -1, or not named: from the beginning."""

    source: str
    after: Mapping[int, int]


class Hole(NamedTuple):
    """Offsets from ``first`` to before ``end`` that the log did not have any more when it was read."""

    first: int
    end: int
    reason: Removal


class Feeder(msgspec.Struct, frozen=True):
    """A processor that feeds the store, by its own word."""

    name: str
    seen: float
    """When it last said so: s ago."""
    partitions: list[int]
    """That it has now."""
    group: str
    troubles: dict[str, str]
    """What it cannot go on with, and why: ``partition 3``, ``kafka``, ``store``. Empty: all is well."""


class Store(Protocol):
    """The recent events of one log, deduplicated by source and id, and the positions up to which it has them.

    Any number of processes may read, and several may write: whoever applies says what it applies to. All
    methods raise StoreError when the store cannot be read or written. An event is known while it is kept.
    """

    async def epoch(self) -> str | None:
        """The epoch of the log that the store holds; None where it holds none yet."""

    async def places(self) -> dict[int, Place]:
        """How far the store has come in every partition that it knows."""

    async def pages(self, queries: Sequence[Query], limit: int) -> list[Page]:
        """One page a query, in order, all of one snapshot."""

    async def recent(
        self, source: str, *, limit: int, after: Mapping[int, int] | None = None, max_bytes: int = 2**62
    ) -> tuple[Page, list[StoredEvent]]:
        """The newest ``limit`` events of a source; with ``after``, the first ``limit`` after it. As rows.

        Fewer, where those before have ``max_bytes`` or more together; one in any case. The page's rows mirror
        the events; ``more``: older ones (with ``after``: newer ones) are kept.
        """

    async def at(self, partition: int, offset: int) -> StoredEvent | None:
        """The event at this position, if it is kept, below a floor, too; None at any other."""

    async def find(self, event_id: str, *, source: str | None = None, limit: int = 100) -> list[StoredEvent]:
        """The kept events with this id, of ``source`` or of any; at most ``limit``, one a source.

        Below a floor, too. In the order of partition and offset."""

    async def begin(self, epoch: str, first: Mapping[int, int]) -> None:
        """Claim the store for a log whose partitions begin at ``first``; harmless when it is claimed already.

        A partition that is not known begins there: ``position = floor = first``. One that is known but lies
        before it has lost events for ever (the log's retention was faster), and goes on there; where the
        store has events below, that is a hole (``retention``). Raises StoreError, and changes nothing, when
        it holds another log.
        """

    async def apply(
        self,
        partition: int,
        first: int,
        next_: int,
        events: Sequence[StoredEvent],
        holes: Sequence[Hole] = (),
    ) -> int:
        """Insert the events and move the partition's position from ``first`` to ``next_``, both or neither.

        Events whose source and id are known are left out. Returns how many were new. ``events`` may be empty:
        records that are no events, or none at all, move the position, too. ``holes`` within the stretch raise
        the floor to the end of the last one. Raises StoreConflict, with nothing written, when the position is
        not ``first``: somebody else has applied what follows it.
        """

    async def prune(self, *, age: float, count: int, size: int = 2**62) -> int:
        """Remove what is older than ``age`` seconds, and the oldest beyond ``count`` or ``size`` bytes.

        Returns how many were removed. From a partition the oldest offsets go first, and none that is young
        enough goes for its age. Works in short transactions; floors move in the same ones. A hole that lies
        below the floor of what is kept is forgotten.
        """

    async def report(
        self, name: str, *, group: str, partitions: Collection[int], troubles: Mapping[str, str]
    ) -> None:
        """A processor's sign of life, to be given every few seconds; those of an hour ago are forgotten."""

    async def feeders(self) -> list[Feeder]:
        """The processors that fed it within the last hour, the latest first."""

    async def close(self) -> None:
        """End it, within seconds. What was applied stays. Nothing when it is closed."""
