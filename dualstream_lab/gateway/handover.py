"""Catching up without a gap, as values: what a gateway knows of one source, and a client's way in. No I/O.

Kafka orders a partition by offset; Redis announces its events, perhaps late, in another order, or never; the
store has everything of a partition below its position W, which lags. A client is to get every event of its
source after its cursor, once.

Why it loses nothing. A client that comes is counted in (1) before the gateway's subscription on Redis is
confirmed (2); only then is Kafka asked where the source's partitions end: the fences F (3). The end is the
last stable offset: all below it is committed or was aborted, and every replica in sync has it. So what was
acknowledged and committed before that is below F; what is acknowledged later is announced on a subscription
that is in effect. The client waits until W >= F in each of them (4), reads the source's events after its
cursor and below W (5), and in one step of the event loop (6) it gets them, then what was received at or above
W, and is live (7). What Redis lost is found by comparing the store with what was received (8). A long past is
told ahead of that, piece by piece; then the client's cursor is where it ends, and (5) reads what came since.

Where a source is. Most are in one partition, but partitions may have been added, and other clients may hash
otherwise. The fences are those of its partitions: where the store has seen it, where today's publishers
write it, and where those of before did. Everything else is read in all partitions, and what is confirmed is
known of all. So an event that turns up in a partition without a fence is above what is confirmed there: it
is told as late, and never lost. A cursor names the source's partitions; of one that it does not name nothing
was told, and all that is there is told to who resumes with it.

What an open transaction holds back is above F and W: it is told when the transaction ends, and what was
aborted is never in the store. All offsets are of one log. One that was made anew has another epoch, and
streams of its own: neither cursors nor announcements of the one before mean anything there.

What was received is a set, never a maximum: two publishers' announcements may be inverted, and a maximum
would drop the later one for good. It knows an event by place and id, so that nobody who announces another
event at its place hides it. The set belongs to the source, not to a client: a live client follows the stream.
Nothing that was announced says how far the log goes: what is suspected is looked for up to where Kafka says
it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from dualstream_lab.gateway.past import Positions, Refusal, behind, hole_of, later, removed

if TYPE_CHECKING:
    from dualstream_lab.store import Page, Row

T = TypeVar("T")
_NONCES: Final = 64
_DIGITS: Final = 18  # anybody may publish on Redis, and int() raises for thousands of them
_MAX_SEEN: Final = 50_000
_MAX_AHEAD: Final = 3  # pages

_NOWHERE: Final[Positions] = {}


class Stream(Generic[T]):
    """What a gateway has told its live clients of one source. ``T`` is what is kept of a received event.

    ``confirmed``: of each partition, every event up to this offset was told, or was before this stream's
    time. ``needs``: offsets that the store must reach before the next repair settles anything; empty when
    nothing is suspected. ``doubtful``: something may have been lost, and up to where is to be asked of Kafka:
    whoever does so clears it, and says it by :meth:`suspect`.
    """

    __slots__ = ("_counts", "_seen", "confirmed", "doubtful", "limit", "needs", "overflowed", "source")

    def __init__(self, source: str, *, limit: int = _MAX_SEEN) -> None:
        self.source = source
        self.confirmed: Positions = _NOWHERE
        self.needs: Positions = _NOWHERE
        self.doubtful = False
        self.limit = limit
        self.overflowed = 0
        self._seen: dict[tuple[int, int, str], T] = {}
        self._counts: dict[str, int] = {}

    @property
    def pending(self) -> int:
        """Events that were told and not yet found in the store."""
        return len(self._seen)

    def begin(self, ends: Positions) -> None:
        """The log ended there when the subscription was already confirmed: what is below is the past."""
        self._confirm({partition: end - 1 for partition, end in ends.items()})

    def receive(self, partition: int, offset: int, event_id: str, item: T) -> bool:
        """Take in what Redis announced. True: tell it to the live clients; False: it was told before, or must
        wait.
        """
        if offset <= self.confirmed.get(partition, -1):
            return False
        place = partition, offset, event_id
        if place in self._seen:
            return False
        if len(self._seen) >= self.limit:
            self.overflowed += 1  # the store is far behind: repair will tell it
            self.doubtful = True
            return False
        self._seen[place] = item
        return True

    def count(self, pub: str) -> None:
        """The publisher's running number, ``nonce:n``. Doubtful if numbers before it were not received."""
        nonce, _, text = pub.rpartition(":")
        if not text.isdecimal() or len(text) > _DIGITS:
            return
        number = int(text)
        counts = self._counts
        last = counts.get(nonce)
        if last is None:
            if len(counts) >= _NONCES:
                counts.pop(next(iter(counts)))
            counts[nonce] = number
            return
        if number > last:
            counts[nonce] = number
            if number > last + 1:
                self.doubtful = True

    def suspect(self, ends: Positions) -> None:
        """Something below where Kafka ends may have been lost: look when the store is there."""
        self.needs = later(ends, self.needs)

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Those of the store's events that were never told so far."""
        confirmed, seen = self.confirmed, self._seen
        return [
            row
            for row in rows
            if row.offset > confirmed.get(row.partition, -1)
            and (row.partition, row.offset, row.id) not in seen
        ]

    def repair(self, page: Page, rows: Sequence[Row] | None = None, *, left: Sequence[Row] = ()) -> list[Row]:
        """Compare with the store, read after ``confirmed``: the events never told so far, to tell as late.

        ``rows``: look at no others of the page's, but for those ``left`` to a later call: what is in front of
        them is confirmed, and no more.
        """
        late = self.missing(page.rows if rows is None else rows)
        through = page.through
        if left:
            first = {row.partition: row.offset for row in reversed(left)}
            through = {p: min(offset, first.get(p, offset + 1) - 1) for p, offset in through.items()}
        self._confirm(through)
        if self.needs:
            reached = self.confirmed
            self.needs = {p: end for p, end in self.needs.items() if reached.get(p, -1) < end - 1}
        return late

    def lost(self, page: Page, homes: Collection[int]) -> Refusal | None:
        """Why events may never be told: they were removed before they were compared. None: none was."""
        return removed(page, self.confirmed, homes)

    def level(self, page: Page) -> bool:
        """Whether it is repaired exactly up to the page's positions, and not by a later look beyond them."""
        confirmed, places = self.confirmed, page.places
        return all(
            confirmed.get(partition, -1) == place.position - 1 for partition, place in places.items()
        ) and all(partition in places or offset < 0 for partition, offset in confirmed.items())

    def received_after(self, after: Positions) -> list[T]:
        """What was told beyond ``confirmed`` and after these offsets, in the order of its telling."""
        return [
            item for (partition, offset, _), item in self._seen.items() if offset > after.get(partition, -1)
        ]

    def _confirm(self, through: Positions) -> None:
        before = self.confirmed
        if through is before:
            return
        if all(offset <= through.get(partition, -1) for partition, offset in before.items()):
            self.confirmed = through
        else:
            self.confirmed = later(before, through)
        if self._seen and self.confirmed is not before:
            reached = self.confirmed
            self._seen = {
                place: item for place, item in self._seen.items() if place[1] > reached.get(place[0], -1)
            }


class Phase(Enum):
    """How far a client has come on its way into a stream."""

    FENCING = "fencing"
    READING = "reading"
    LIVE = "live"


class Join:
    """A client's way into a stream: it is told what happened, and ``phase`` says what is to be done next.

    ``after``: the client knows the source's events up to these offsets; empty: it wants all there is; None:
    only new ones. ``known``: what it knew before the page that was read last. Where the past cannot be told
    whole, ``refusal`` says why, and the client is live without the rest of it. Two refusals come with what
    there is: a hole before the earliest that is kept; and a Kafka that does not say where the log ends, so
    that there may be more, which is told as late.
    """

    __slots__ = ("_ahead", "_sure", "after", "earliest", "fence", "known", "only_new", "phase", "refusal")

    def __init__(self, after: Positions | None) -> None:
        self.only_new = after is None
        self.earliest = after is not None and not after
        self.after: Positions = after or _NOWHERE
        self.known = self.after
        self.fence: Positions = _NOWHERE
        self.phase = Phase.FENCING
        self.refusal: Refusal | None = None
        self._ahead = 0
        self._sure = True

    def fenced(self, ends: Positions) -> None:
        """Where the source's partitions, and those of its cursor, end.

        Asked since Redis confirmed the subscription, or is known to be away.
        """
        self.fence = ends
        self.phase = Phase.READING
        if self.only_new:
            self._live_from(ends)
        elif any(offset >= ends.get(partition, 0) for partition, offset in self.after.items()):
            self.refuse(Refusal.EPOCH_CHANGED)  # a place that this log has not reached

    def unfenced(self, positions: Positions) -> None:
        """Kafka does not say it: the past is what the store has, of the source all below these positions.

        Or what the stream was told: by Kafka it may have come further than the store.
        """
        self._sure = False
        self.phase = Phase.READING
        if self.only_new:
            self._live_from(positions)
        elif self.after and all(self.after.get(p, -1) >= end - 1 for p, end in positions.items()):
            self._refuse(Refusal.LOG_UNAVAILABLE, positions)

    def refuse(self, why: Refusal) -> None:
        """After :meth:`fenced`: the past cannot be told; live without it."""
        self._refuse(why, self.fence)

    def renew(self) -> None:
        """The log was made anew on its way: all of it is new, and nothing else counts."""
        self._sure = True
        self._refuse(Refusal.EPOCH_CHANGED, _NOWHERE)

    def read_ahead(self, page: Page, homes: Collection[int]) -> Sequence[Row]:
        """All of the page, to be told before the step into the stream. READING: read what came since.

        Empty, and nothing has changed, where the page is none that :meth:`read` would tell whole; and after
        three pages, as a client comes in at last also where events come faster than they are told.
        """
        if page.more or not page.rows or self._ahead == _MAX_AHEAD or self._removed(page) is not None:
            return ()
        self._ahead += 1
        self._open(page, homes)
        self.earliest = False
        self.after = later(self.after, {partition: page.through[partition] for partition in page.first})
        return page.rows

    def read(self, page: Page, homes: Collection[int]) -> Sequence[Row]:
        """All that the store has after ``after``: the events to tell. READING: wait for the store; else LIVE.

        Only for a page that the stream is :meth:`~Stream.level` with, else read again. When LIVE, the caller
        tells these and then ``stream.received_after(join.after)`` in one step, without waiting. ``homes``:
        the partitions that the source's publishers write it to.
        """
        places = page.places
        if behind(page, self.fence):
            return ()
        # The stream holds nothing below the positions any more: who is refused here is live from there only.
        positions = {partition: place.position for partition, place in places.items()}
        why = self._removed(page)
        if why is None and page.more:
            why = Refusal.TOO_FAR_BEHIND
        if why is not None:
            self._refuse(why, positions)
            return ()
        self._open(page, homes)
        if not self._sure:
            self.refusal = self.refusal or Refusal.LOG_UNAVAILABLE
        self._live_from(positions)
        return page.rows

    def _removed(self, page: Page) -> Refusal | None:
        return None if self.earliest else removed(page, self.after, self.after)

    def _open(self, page: Page, homes: Collection[int]) -> None:
        self.known = self.after
        if self.earliest:
            self.refusal = hole_of(page, homes)
            self.known = {partition: page.places[partition].floor - 1 for partition in page.first}

    def _refuse(self, why: Refusal, ends: Positions) -> None:
        self.refusal = why
        if why is Refusal.EPOCH_CHANGED:
            self.after = _NOWHERE  # offsets of another log
        self._live_from(ends)

    def _live_from(self, ends: Positions) -> None:
        after = {partition: end - 1 for partition, end in ends.items()}
        # A cursor may be beyond the store: what is after the store's positions came from Kafka.
        self.after = after if self._sure else later(after, self.after)
        self.phase = Phase.LIVE
