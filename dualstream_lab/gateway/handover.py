"""Catching up without a gap, as values: what a gateway knows of one source, and a client's way in. No I/O.

Kafka orders a source's events by offset; Redis announces them, perhaps late, in another order, or never; the
store has everything below its position W, which lags. A client is to get every event after its cursor, once.

Why it loses nothing. A client that comes is counted in (1) before the gateway's subscription on Redis is
confirmed (2); only then is Kafka asked where the partition ends: the fence F (3). An event acknowledged
before that is below F, because the end that Kafka tells is what every replica in sync has; one acknowledged
later is announced on a subscription that is in effect. So the client waits until W >= F (4), reads the
source's events after its cursor and below W (5), and in one step of the event loop (6) it gets them, then
what was heard at or above W, and is live (7). What Redis lost is found by comparing the store with what was
heard (8).

What was heard is a set, never a maximum: two publishers' announcements may be inverted, and a maximum would
drop the later one for good. The set belongs to the source, not to a client: a live client follows the stream.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Join", "Page", "Phase", "Refusal", "Stream"]

T = TypeVar("T")
_NONCES = 64
_DIGITS = 18  # anybody may publish on Redis, and int() raises for thousands of them
_MAX_SEEN = 50_000


class HasOffset(Protocol):
    """An event as the store has it."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""


R = TypeVar("R", bound=HasOffset)
R_co = TypeVar("R_co", bound=HasOffset, covariant=True)


class Page(Protocol[R_co]):
    """What one look into the store found: all of it at one moment. See :class:`dualstream_lab.store.Page`."""

    @property
    def position(self) -> int:
        """W: everything of the partition below it is in the store."""

    @property
    def floor(self) -> int:
        """Nothing at or above it was removed."""

    @property
    def rows(self) -> Sequence[R_co]:
        """The source's events after what was asked and below ``position``, ascending."""

    @property
    def more(self) -> bool:
        """Whether there are more of them than were asked for."""


class Stream(Generic[T]):
    """What a gateway has told its live clients of one source. ``T`` is what is kept of a heard event.

    ``confirmed``: every event up to it was told, or was before this stream's time. ``needs``: the store must
    reach this offset before the next repair settles anything; None when nothing is suspected.
    """

    __slots__ = ("_counts", "_seen", "confirmed", "limit", "needs", "overflowed", "partition", "source")

    def __init__(self, source: str, partition: int, *, limit: int = _MAX_SEEN) -> None:
        self.source = source
        self.partition = partition
        self.confirmed = -1
        self.needs: int | None = None
        self.limit = limit
        self.overflowed = 0
        self._seen: dict[int, T] = {}
        self._counts: dict[str, int] = {}

    @property
    def pending(self) -> int:
        """Events that were told and not yet found in the store."""
        return len(self._seen)

    def begin(self, end: int) -> None:
        """The log ended at ``end`` when the subscription was already confirmed: what is below is the past."""
        self._confirm(end - 1)

    def hear(self, offset: int, item: T) -> bool:
        """An announcement. True: tell it to the live clients; False: it was told before, or must wait."""
        if offset <= self.confirmed or offset in self._seen:
            return False
        if len(self._seen) >= self.limit:
            self.overflowed += 1  # the store is far behind: repair will tell it
            self.suspect(offset + 1)
            return False
        self._seen[offset] = item
        return True

    def count(self, pub: str, offset: int) -> bool:
        """The publisher's running number, ``nonce:n``. True if numbers before it were never heard."""
        nonce, _, text = pub.rpartition(":")
        if not text.isdecimal() or len(text) > _DIGITS:
            return False
        number = int(text)
        counts = self._counts
        last = counts.get(nonce)
        if last is None:
            if len(counts) >= _NONCES:
                counts.pop(next(iter(counts)))
            counts[nonce] = number
            return False
        if number > last:
            counts[nonce] = number
        if number <= last + 1:
            return False
        self.suspect(offset + 1)
        return True

    def suspect(self, offset: int) -> None:
        """Something below ``offset`` may have been lost: look when the store is there."""
        self.needs = offset if self.needs is None else max(self.needs, offset)

    def repair(self, page: Page[R]) -> list[R]:
        """Compare with the store, read after ``confirmed``: the events never told so far, to tell as late."""
        late = [row for row in page.rows if row.offset > self.confirmed and row.offset not in self._seen]
        through = page.rows[-1].offset if page.more else page.position - 1
        self._confirm(through)
        if self.needs is not None and through >= self.needs - 1:
            self.needs = None
        return late

    def lost(self, page: Page[R]) -> bool:
        """Whether the store removed events before they were compared: they may never have been told."""
        return self.confirmed + 1 < page.floor

    def level(self, page: Page[R]) -> bool:
        """Whether it is repaired exactly up to the page's position, and not by a later look beyond it."""
        return self.confirmed == page.position - 1

    def heard_after(self, offset: int) -> list[T]:
        """What was told beyond ``confirmed`` and after ``offset``, in the order of its telling."""
        return [item for place, item in self._seen.items() if place > offset]

    def _confirm(self, through: int) -> None:
        if through <= self.confirmed:
            return
        self.confirmed = through
        if self._seen:
            self._seen = {offset: item for offset, item in self._seen.items() if offset > through}


class Phase(Enum):
    """How far a client has come."""

    SUBSCRIBING = "subscribing"
    FENCING = "fencing"
    READING = "reading"
    LIVE = "live"


class Refusal(Enum):
    """Why a client's past is not told: all of it or nothing."""

    EPOCH_CHANGED = "epoch_changed"
    RETENTION = "retention"
    TOO_FAR_BEHIND = "too_far_behind"
    STORE_LAG = "store_lag"
    STORE_UNAVAILABLE = "store_unavailable"


class Join:
    """A client's way into a stream: it is told what happened, and ``phase`` says what is to be done next.

    ``after``: the client knows the source's events up to this offset; None: it wants only new ones. Where
    the past cannot be told whole, ``refusal`` says why, and the client is live without any of it.
    """

    __slots__ = ("_only_new", "after", "fence", "phase", "refusal")

    def __init__(self, after: int | None) -> None:
        self.after = -1 if after is None else after
        self.fence = -1
        self.phase = Phase.SUBSCRIBING
        self.refusal: Refusal | None = None
        self._only_new = after is None

    def subscribed(self) -> None:
        """Redis confirmed the subscription, or is known to be away: now ask for the fence."""
        self.phase = Phase.FENCING

    def fenced(self, end: int) -> None:
        """The partition's end, asked for after :meth:`subscribed`."""
        self.fence = end
        self.phase = Phase.READING
        if self._only_new:
            self._live_from(end)
        elif self.after >= end:  # a place that this log has not reached
            self.refuse(Refusal.EPOCH_CHANGED)

    def refuse(self, why: Refusal) -> None:
        """After :meth:`fenced`: the past cannot be told; live without it."""
        self._refuse(why, self.fence)

    def read(self, page: Page[R]) -> Sequence[R]:
        """All that the store has after ``after``: the events to tell. READING: wait for the store; else LIVE.

        Only for a page that the stream is :meth:`~Stream.level` with, else read again. When LIVE, the caller
        tells these and then ``stream.heard_after(join.after)`` in one step, without waiting.
        """
        if page.position < self.fence:
            return ()
        # The stream holds nothing below the position any more: who is refused here is live from there only.
        if self.after + 1 < page.floor:
            self._refuse(Refusal.RETENTION, page.position)
        elif page.more:
            self._refuse(Refusal.TOO_FAR_BEHIND, page.position)
        else:
            self._live_from(page.position)
            return page.rows
        return ()

    def _refuse(self, why: Refusal, place: int) -> None:
        self.refusal = why
        self._live_from(place)

    def _live_from(self, offset: int) -> None:
        self.after = offset - 1
        self.phase = Phase.LIVE
