"""What all clients' judgements come to: counts, examples with what was around them, a verdict. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from dualstream_lab.lab.gateway_check.history import NOWHERE, Logs, PartitionSession, Session, SourceLog
from dualstream_lab.lab.gateway_check.judge import Counts, Finding, Wrong, judge_all

SAYS: Final = {
    Wrong.GAP: "gaps: stayed or resumed, and did not get it",
    Wrong.CURSOR: "lost behind the cursor of a resume",
    Wrong.AHEAD: "delivered only after a cursor that covers them",
    Wrong.DUPLICATE: "duplicates on one connection",
    Wrong.INVERTED: "inversions: the past, or one publisher's events",
    Wrong.UNKNOWN: "delivered, and not in the log",
}
_EXAMPLES: Final = 3  # of each
_AROUND: Final = 4  # messages
_WORDS: Final = ("live", "recovered", "old", "subscribed", "not recovered", "state")


class Record(NamedTuple):
    """A client's history of one source. ``settled``: as of :func:`judge`."""

    client: int
    via: str
    source: str
    sessions: Sequence[Session]
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One wrong as people read it. ``around``: the messages that the client got around it."""

    wrong: Wrong
    client: str
    source: str
    event: str
    place: str
    around: str

    @property
    def text(self) -> str:
        """The example in a few lines of text."""
        return f"{self.client} of {self.source}: {self.event} at {self.place}\n    {self.around}"


@dataclass(slots=True, kw_only=True)
class Verdict(Counts):
    """The sums over all records: how often each thing was ``wrong``; ``refusals``: how often, by reason."""

    events: int = 0
    wrong: Counter[Wrong] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @classmethod
    def of(cls, logs: Logs, records: Iterable[Record], *, began: float, wall: float) -> Verdict:
        """Judge all records. ``began``: when the check did, s, monotonic; ``wall``: then, since the epoch."""
        verdict = cls(events=logs.events)
        shown: Counter[Wrong] = Counter()
        for record in records:
            every = judge_all(logs.logs[record.source], record.sessions, settled=record.settled)
            for log, sessions, found in every:
                verdict.add(found)
                verdict.wrong.update(one.wrong for one in found.findings)
                # One of each client and source: they are more telling than neighbours.
                for one in {one.wrong: one for one in reversed(found.findings)}.values():
                    if shown[one.wrong] < _EXAMPLES:
                        shown[one.wrong] += 1
                        entry = log.index.get(one.event)
                        place = "no place in the log"
                        if entry is not None:
                            place = f"{log.partition}:{log.offsets[entry]} ({log.times[entry] - wall:.2f} s)"
                        example = Example(
                            wrong=one.wrong,
                            client=f"client {record.client} ({record.via})",
                            source=record.source,
                            event=logs.names[one.event],
                            place=place,
                            around=_around(sessions, one, log, began),
                        )
                        verdict.examples.append(example)
        verdict.examples.sort(key=lambda one: list(Wrong).index(one.wrong))
        return verdict

    @property
    def held(self) -> bool:
        """Whether the gateway did nothing that it must not."""
        return not self.wrong.total()

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON can hold it."""
        return {
            "held": self.held,
            "events": self.events,
            "delivered": {"all": self.delivered, "old": self.old, "recovered": self.recovered},
            "wrong": {wrong.value: self.wrong[wrong] for wrong in Wrong},
            "allowed": {
                "declared": self.declared,
                "refusals": dict(self.refusals),
                "repeated": self.repeated,
                "crossed": self.crossed,
                "unsettled": self.unsettled,
            },
            "examples": [asdict(one) for one in self.examples],
        }


def _around(sessions: Sequence[PartitionSession], finding: Finding, log: SourceLog, began: float) -> str:
    """The connection on which the wrong was noticed, and its last messages up to there, in words."""
    session = sessions[finding.session]
    since = {None: "only new events", -1: "the beginning"}.get(session.since, f"cursor {session.since}")
    end = finding.row + 1 if finding.row >= 0 else len(session.kinds)
    rows = range(max(0, end - _AROUND), end)
    said = ", ".join(_message(session, row, log, began) for row in rows) or "nothing was delivered"
    dots = "…, " if rows.start else ""
    then = f", …; it ended {session.ended} " if session.ended else ""
    if finding.session + 1 < len(sessions):
        then += f"and resumed from cursor {sessions[finding.session + 1].since}"
    head = f"connection {finding.session + 1} since {since}, at {session.began - began:.2f} s"
    return f"{head}: {dots}{said}{then}".rstrip()


def _message(session: PartitionSession, row: int, log: SourceLog, began: float) -> str:
    entry = log.index.get(session.events[row])
    offset = "" if entry is None else f" {log.offsets[entry]}"
    cursor = "" if session.cursors[row] == NOWHERE else f" [{session.cursors[row]}]"
    return f"{_WORDS[session.kinds[row]]}{offset}{cursor} {session.times[row] - began:.2f} s"
