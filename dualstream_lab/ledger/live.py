"""The live path: who was listening when an event was announced, who received it, why others did not. Pure.

Redis announces an event at a moment that nobody records: after it was sent, and before the first subscriber
received it. A subscriber was listening if its subscription covers all of that time; if it covers a part of
it, the event fell into its gap. For an event that nobody received, the time ends with Kafka's
acknowledgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dualstream_lab.ledger.arrays import (
    FOREVER,
    CaughtUp,
    Delivered,
    Events,
    Subscriber,
    Window,
    behind,
    combined,
    first_rows,
    grouped,
    ranks,
)
from dualstream_lab.ledger.classes import Cause, LogState
from dualstream_lab.ledger.log import Log
from dualstream_lab.recording import Ending
from dualstream_lab.recording.rows import Codes, Flags, Int32, Int64

_STOPPED: Final = 500_000_000  # ns before the end of the recording: what was on its way then may be cut off
_DELAY: Final = 1_000_000_000  # ns: what arrives later than that is not looked for in a hole of the rows
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the live path did, with one entry an event.

    ``first``: when the first subscriber received it live, 0 for never. ``recovered``: when the last of those
    had it who got it only by catch-up or repair, 0 for none. ``missed``: a subscriber that was listening did
    not get it; ``cause``: why (a Cause). ``gap``: a subscriber that was not connected did not get it.
    ``again``: a subscriber received it more than once. ``reordered``: a subscriber received it after an event
    of its source that is later in the log.
    """

    first: Int64
    recovered: Int64
    missed: Flags
    cause: Codes
    gap: Flags
    again: Flags
    reordered: Flags

    @property
    def delivered(self) -> Flags:
        """Which events somebody received, however late."""
        return np.asarray((self.first > 0) | (self.recovered > 0))


def live_of(
    events: Events, log: Log, delivered: Delivered, subscribers: Sequence[Subscriber], caught_up: CaughtUp
) -> Live:
    """Follow the live path, by the rows of all subscribers."""
    count = len(events)
    first = np.full(count, _NEVER)
    np.minimum.at(first, delivered.place, delivered.at)
    first[first == _NEVER] = 0
    recovered, cause = np.zeros(count, np.int64), np.zeros(count, np.uint8)
    missed, gap, again, reordered = (np.zeros(count, np.bool_) for _ in range(4))
    live = Live(
        first=first, recovered=recovered, cause=cause, missed=missed, gap=gap, again=again,
        reordered=reordered,
    )  # fmt: skip
    subscriptions = _Subscriptions(events, log, live)
    for number, subscriber in enumerate(subscribers):
        rows = slice(delivered.bounds[number], delivered.bounds[number + 1])
        later = caught_up.subscriber == number
        subscriptions.take(
            subscriber, delivered.place[rows], delivered.at[rows], caught_up.place[later], caught_up.at[later]
        )
    return live


class _Subscriptions:
    """Goes through the subscribers, one after the other."""

    def __init__(self, events: Events, log: Log, live: Live) -> None:
        self._events = events
        self._live = live
        # The clocks of two machines may have it received before it was sent.
        self._until = np.maximum(live.first, events.sent)
        undelivered = live.first == 0
        self._until[undelivered] = np.maximum(events.sent[undelivered], events.acked[undelivered])
        self._announced = events.durable | (log.at > 0) & (events.outcome >= 0)
        self._in_log = None if log.state is LogState.ABSENT else log.at > 0
        self._log = log
        self._key = ranks(events.sent) if log.state is LogState.ABSENT else log.offset
        self._own = np.zeros(len(events), np.bool_)  # whether this subscriber has it; cleared after each
        self._by_source: tuple[Int64, Int32] | None = None

    def take(self, subscriber: Subscriber, place: Int32, at: Int64, later: Int32, later_at: Int64) -> None:
        """Go through one subscriber's rows, live and recovered."""
        live, own = self._live, self._own
        first = first_rows(place, len(own))
        if first is not None:
            repeated = np.ones(len(place), np.bool_)
            repeated[first] = False
            live.again[place[repeated]] = True
        self._reorder(place if first is None else place[first])
        own[place] = True
        only = ~own[later]
        np.maximum.at(live.recovered, later[only], later_at[only])
        own[later] = True
        if subscriber.windows:
            self._miss(subscriber, place, at)
        own[place] = False
        own[later] = False

    def _reorder(self, place: Int32) -> None:
        """Mark what came out of the log's order within a partition, or without a log, of that in which each
        publisher sent.
        """
        events = self._events
        known = events.outcome[place] >= 0
        if self._in_log is not None:
            known &= self._in_log[place]
        if not known.all():
            place = place[known]
        groups = events.source[place]
        if self._in_log is None:
            groups = combined(groups, events.writer[place])
        elif self._log.spread:
            groups = combined(groups, self._log.partition[place])
        self._live.reordered[place[behind(groups, self._key[place])]] = True

    def _miss(self, subscriber: Subscriber, place: Int32, at: Int64) -> None:
        live, followed = self._live, self._followed(subscriber.sources)
        sent, until, own = self._events.sent[followed], self._until[followed], self._own[followed]
        windows = subscriber.windows
        listening = np.zeros(len(sent), np.bool_)
        for window in windows:
            listening |= (sent >= window.begin) & (until <= window.end)
        gone = windows[-1].end if windows[-1].why is Ending.CLOSED else FOREVER
        gap = ~(listening | own)
        gap &= until >= windows[0].begin
        gap &= sent <= gone
        gap &= self._announced[followed]
        live.gap[followed] |= gap
        missed = listening & ~own & self._announced[followed]
        live.missed[followed] |= missed
        if not missed.any():
            return
        which = np.flatnonzero(missed)
        acked = self._events.acked[followed][which]
        causes = self._causes(subscriber, sent[which], until[which], acked, place, at)
        everything = which if isinstance(followed, slice) else followed[which]
        live.cause[everything] = np.maximum(live.cause[everything], causes)

    def _causes(
        self, subscriber: Subscriber, sent: Int64, until: Int64, acked: Int64, place: Int32, at: Int64
    ) -> Codes:
        """Find why events were missed while the subscriber was listening."""
        found = np.full(len(sent), Cause.UNEXPLAINED, np.uint8)
        for window in subscriber.windows:
            inside = (sent >= window.begin) & (until <= window.end)
            if not inside.any():
                continue
            # What was acknowledged after the last one that it received was sent may have been on its way when
            # the connection ended.
            last = int(np.searchsorted(at, window.end, side="right")) - 1
            delivered = last >= 0 and at[last] >= window.begin
            on_its_way = inside & (
                np.maximum(acked, sent) >= (self._events.sent[place[last]] if delivered else 0)
            )
            found[on_its_way] = _ended(window, sent[on_its_way])
        for begin, end in subscriber.holes:
            found[(sent <= end) & (until + _DELAY >= begin)] = Cause.GENERATOR
        return found

    def _followed(self, sources: Sequence[int]) -> slice | Int64:
        """Find the events that a subscriber to ``sources`` is to receive."""
        if min(sources) < 0:
            return slice(None)
        if self._by_source is None:
            by_source = grouped(self._events.source)
            self._by_source = by_source, self._events.source[by_source]
        order, among = self._by_source
        begins, ends = np.searchsorted(among, sources), np.searchsorted(among, sources, side="right")
        return np.concatenate([order[begin:end] for begin, end in zip(begins, ends, strict=True)])


def _ended(window: Window, sent: Int64) -> Codes:
    """Find why what was on its way when a subscription ended did not arrive."""
    if window.why is Ending.OPEN:  # the process that listened died
        cause = Cause.GENERATOR
    elif window.why is Ending.CLOSED:
        cut = sent >= window.end - _STOPPED
        return np.where(cut, Cause.GENERATOR, Cause.UNEXPLAINED).astype(np.uint8)
    else:
        cause = Cause.KILLED_AS_SLOW if window.slow else Cause.RECONNECT_GAP
    return np.full(len(sent), cause, np.uint8)
