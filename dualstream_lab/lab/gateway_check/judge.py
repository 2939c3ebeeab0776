"""One client and one source: what it was told, held against the log, by event id. Pure.

All that a gateway owes, it owes in each partition by itself: most sources are in one; where partitions were
added, a source is in several, between which there is no order.

What a gateway owes. From the first cursor that a client is given on, it owes every event of the source, on
this connection or on a later one that resumes from the last cursor; what it says it cannot tell (``recovered:
false``) is not owed. A cursor says that everything up to it was told. On one connection no event comes twice;
after a resume it may. The past comes in the log's order, and so do one publisher's live events; those of two
publishers may cross, and what was found by repair (``recovered``) comes when it is found.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Final, NamedTuple

from dualstream_lab.lab.gateway_check.history import (
    EVENT,
    NOWHERE,
    OLD,
    RECOVERED,
    REFUSED,
    SUBSCRIBED,
    PartitionSession,
    Session,
    SourceLog,
)

_GRACE: Final = 1.0  # s


class Wrong(StrEnum):
    """What a gateway must not do."""

    GAP = "gaps"
    """Never told, though the client stayed (for a second after a cursor covered it), or resumed from a cursor
    before it.
    """
    CURSOR = "lost_by_cursor"
    """Never told, and the client resumed from a cursor that covers it, which it was given just before."""
    AHEAD = "cursors_ahead"
    """Told only after a cursor that covers it: who is cut off between loses it."""
    DUPLICATE = "duplicates"
    """Told again on one connection."""
    INVERTED = "inversions"
    """Told after a later event of the same publisher, or after a later one of the past."""
    UNKNOWN = "unknown"
    """In no log, or not of this source, or not at the place that was told."""


class Finding(NamedTuple):
    """One wrong that was done with one event.

    ``event``: its number. ``session``: the number of the connection (of a missed event, of the first one that
    was given something beyond it); ``row``: the number of the message there, -1 if there is none.
    """

    wrong: Wrong
    event: int
    session: int
    row: int


@dataclass(slots=True, kw_only=True)
class Counts:
    """How many deliveries there were, and how many of what is allowed.

    ``delivered``: deliveries, ``old`` and ``recovered`` ones among them. ``declared``: events that the
    gateway said it could not tell, ``refusals``: why. ``repeated``: told again after a resume; ``crossed``:
    told after a later event of another publisher: both are allowed. ``unsettled``: not told, and the client
    left before it had to be.
    """

    delivered: int = 0
    old: int = 0
    recovered: int = 0
    declared: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    crossed: int = 0
    unsettled: int = 0

    def add(self, other: Counts) -> None:
        """Add the other counts to these."""
        for one in fields(Counts):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(slots=True, kw_only=True)
class Judgement(Counts):
    """What was found of one client, source and partition."""

    findings: list[Finding] = field(default_factory=list)


def judge_all(
    logs: Mapping[int, SourceLog], sessions: Sequence[Session], *, settled: bool
) -> Iterator[tuple[SourceLog, list[PartitionSession], Judgement]]:
    """Judge every partition by itself. ``logs``: by partition; ``settled``: as of :func:`judge`."""
    partitions = logs.keys() | {home for session in sessions for home in session.homes(logs)}
    for number, partition in enumerate(sorted(partitions) or [0]):
        log = logs.get(partition) or SourceLog(partition, ())
        parts = [session.of(partition, logs) for session in sessions]
        if number:  # what was refused was refused once
            for part in parts:
                part.refused = []
        yield log, parts, judge(log, parts, settled=settled)


def judge(log: SourceLog, sessions: Sequence[PartitionSession], *, settled: bool) -> Judgement:
    """Judge one partition. ``settled``: the client was connected at the end, and there was time: whatever was
    not told is missing.
    """
    judging = _Judging(log, sessions)
    for number, session in enumerate(sessions):
        judging.resume(number, session.since)
        judging.judgement.refusals.update(session.refused)
        columns = (session.kinds, session.events, session.offsets, session.cursors)
        for row, message in enumerate(zip(*columns, strict=False)):  # one may be in the making
            judging.take(row, *message)
    judging.end(settled=settled)
    return judging.judgement


class _Judging:
    """The state of a judgement, message after message. ``_swept``: entries of the log before it are covered
    by a cursor; of these, never told so far are those ``_pending``, those ``_passed`` (a resume began behind
    them), and those ``_excused``.
    """

    def __init__(self, log: SourceLog, sessions: Sequence[PartitionSession]) -> None:
        self.judgement = Judgement()
        self._log = log
        self._sessions = sessions
        self._delivered: set[int] = set()
        self._first: int | None = None
        self._covered = -1
        self._swept = 0
        self._pending: dict[int, tuple[int, int]] = {}  # event: session and row of the cursor
        self._passed: dict[int, tuple[Wrong, int, int]] = {}
        self._excused: set[int] = set()

    def resume(self, number: int, since: int | None) -> None:
        """Judge what comes now as of the next connection."""
        self._session = number
        self._deliveries: Counter[int] = Counter()
        self._newest: dict[int, int] = {}  # by writer
        self._newest_old = self._newest_any = -1
        self._joined = False
        self._excuse = False
        if since is None:
            return
        self._cursor(-1, since, refused=False)
        for event in [one for one in self._pending if self._log.offsets[self._log.index[one]] <= since]:
            number, row = self._pending.pop(event)
            times = self._sessions[number].times
            # The cursor covered it: was there time to tell it after that?
            stayed = times and row >= 0 and times[-1] - times[row] >= _GRACE
            self._passed[event] = (Wrong.GAP if stayed else Wrong.CURSOR, number, row)

    def take(self, row: int, kind: int, event: int, offset: int, cursor: int) -> None:
        """Judge the next message of this connection."""
        if event >= 0:
            self._event(row, kind, event, offset)
        if cursor != NOWHERE:
            self._cursor(row, cursor, refused=kind == REFUSED)
        elif kind == REFUSED:
            self._excuse = True
        if kind in {SUBSCRIBED, REFUSED}:
            self._joined = True

    def end(self, *, settled: bool) -> None:
        """Judge what is still open: nothing more comes."""
        log, judgement = self._log, self.judgement
        judgement.findings += [Finding(Wrong.GAP, event, *at) for event, at in self._pending.items()]
        judgement.findings += [Finding(wrong, event, *at) for event, (wrong, *at) in self._passed.items()]
        judgement.declared = len(self._excused)
        if self._first is None:
            return
        rest = [event for event in log.events[self._swept :] if event not in self._delivered]
        if settled:
            judgement.findings += [Finding(Wrong.GAP, event, self._session, -1) for event in rest]
        else:
            judgement.unsettled = len(rest)

    def _event(self, row: int, kind: int, event: int, offset: int) -> None:
        judgement, log = self.judgement, self._log
        judgement.delivered += 1
        judgement.old += kind == OLD
        judgement.recovered += kind == RECOVERED
        entry = log.index.get(event)
        if entry is None or (offset not in {NOWHERE, log.offsets[entry]} and event not in log.occurrences):
            self._wrong(Wrong.UNKNOWN, event, row)
        if entry is None:
            return
        self._deliveries[event] += 1
        if self._deliveries[event] > 1:
            if self._deliveries[event] > log.occurrences.get(event, 1):
                self._wrong(Wrong.DUPLICATE, event, row)
            return
        if kind in {EVENT, OLD}:
            self._order(row, kind, event, entry)
        if event in self._delivered:
            judgement.repeated += 1
            return
        self._delivered.add(event)
        self._excused.discard(event)
        if self._pending.pop(event, None) or self._passed.pop(event, None):
            self._wrong(Wrong.AHEAD, event, row)

    def _order(self, row: int, kind: int, event: int, entry: int) -> None:
        offset, writer = self._log.offsets[entry], self._log.writers[entry]
        newest = self._newest.get(writer, -1)
        if offset < newest or (kind == OLD and offset < self._newest_old):
            self._wrong(Wrong.INVERTED, event, row)
        elif offset < self._newest_any:
            self.judgement.crossed += 1
        self._newest[writer] = max(offset, newest)
        self._newest_any = max(offset, self._newest_any)
        if kind == OLD:
            self._newest_old = max(offset, self._newest_old)

    def _cursor(self, row: int, cursor: int, *, refused: bool) -> None:
        end = bisect_right(self._log.offsets, cursor)
        if self._first is None:  # from here on it owes
            self._first, self._covered, self._swept = cursor, cursor, end
            self._excuse = False
            return
        missing = [event for event in self._log.events[self._swept : end] if event not in self._delivered]
        above = cursor > self._covered
        if refused or (self._excuse and above):
            self._excused.update(missing)
            # Said in the midst of a connection, it is of what lies before the next cursor.
            self._excuse = refused and self._joined and not above
        else:
            self._pending.update(dict.fromkeys(missing, (self._session, row)))
        if above:
            self._covered, self._swept = cursor, end

    def _wrong(self, wrong: Wrong, event: int, row: int) -> None:
        self.judgement.findings.append(Finding(wrong, event, self._session, row))
