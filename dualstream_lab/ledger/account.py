"""Both paths put together: the one class of every event, why it was undelivered, and its marks. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualstream_lab.ledger.arrays import NO_ROW, Drops, Events
from dualstream_lab.ledger.classes import Cause, Class, LogState, Mark
from dualstream_lab.ledger.live import Live
from dualstream_lab.ledger.log import Log
from dualstream_lab.recording import Outcome
from dualstream_lab.recording.rows import Codes, Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of the events, an entry each: a Class, a Cause (0 unless undelivered), Marks added up."""

    classes: Codes
    causes: Codes
    marks: Codes


def account_of(events: Events, log: Log, live: Live, drops: Drops, *, published_whole: bool) -> Account:
    """Give every event its class. ``published_whole``: no row of publishing is missing."""
    outcome, acked, delivered = events.outcome, events.durable, live.delivered
    inside, outside = _places(events, log, published_whole=published_whole)
    refused = (outcome == Outcome.REJECTED) | (outcome == Outcome.NO_ROOM)
    unknown = (outcome == Outcome.UNKNOWN) | (outcome == Outcome.PENDING)
    durable = acked & inside
    undelivered = durable & (live.missed | ~delivered)
    given_up = durable & (live.first > 0) & (drops.cause > 0) & drops.exact
    # Of these the first that is true of an event is its class.
    rules = (
        (Class.UNDELIVERED, undelivered),
        (Class.DELIVERED_AFTER_GIVING_UP, given_up),
        (Class.DELIVERED, durable),
        (Class.LOST, acked & outside),
        (Class.UNREAD, acked),
        (Class.ORPHAN, delivered & outside),
        (Class.UNKNOWN_IN_LOG, unknown & inside),
        (Class.UNKNOWN_NOT_IN_LOG, unknown & outside),
        (Class.UNKNOWN_OPEN, unknown),
        (Class.REFUSED_IN_LOG, refused & inside),
        (Class.REFUSED, refused),
    )
    return Account(
        classes=np.select(
            [mask for _, mask in rules],
            [np.uint8(which) for which, _ in rules],
            np.uint8(Class.UNRECORDED),
        ),
        causes=_causes(undelivered, delivered, live, drops),
        marks=_marks(events, log, live),
    )


def _places(events: Events, log: Log, *, published_whole: bool) -> tuple[Flags, Flags]:
    """Find which events are in the log, and which are not. The others are not known to be either."""
    read = log.at > 0
    if log.state is LogState.COMPLETE:
        return read, ~read
    # The publisher's word must do.
    outside = (events.outcome == Outcome.REJECTED) | (events.outcome == Outcome.NO_ROOM)
    if log.state is LogState.PARTIAL:
        return read, outside & ~read
    if published_whole:
        outside |= events.outcome == NO_ROW  # nobody here published it
    return events.durable, outside


def _causes(undelivered: Flags, delivered: Flags, live: Live, drops: Drops) -> Codes:
    causes = np.zeros(len(undelivered), np.uint8)
    causes[undelivered] = Cause.NO_SUBSCRIBER
    causes[undelivered & live.gap] = Cause.RECONNECT_GAP
    missed = undelivered & live.missed
    causes[missed] = live.cause[missed]
    dropped = undelivered & ~delivered & (drops.cause > 0)
    causes[dropped] = drops.cause[dropped]
    return causes


def _marks(events: Events, log: Log, live: Live) -> Codes:
    marks = np.zeros(len(events), np.uint8)
    for mark, found in (
        (Mark.RECOVERED, live.recovered > 0),
        (Mark.BEFORE_CONSUMER, (live.first > 0) & (live.first < log.at)),
        (Mark.DUPLICATED_LOG, log.again),
        (Mark.DUPLICATED_LIVE, live.again),
        (Mark.REORDERED_LOG, log.reordered),
        (Mark.REORDERED_LIVE, live.reordered),
        (Mark.MISSED_IN_GAP, live.gap & live.delivered),
    ):
        marks[found] |= np.uint8(mark)
    return marks
