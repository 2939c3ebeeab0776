"""What all clients' judgements come to: counts, examples with what happened around them, and a verdict.
Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dualstream_lab.lab.gateway_check.history import NOWHERE
from dualstream_lab.lab.gateway_check.judge import Wrong, judge_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dualstream_lab.lab.gateway_check.history import Session, SourceLog, Stay, Truth
    from dualstream_lab.lab.gateway_check.judge import Finding

__all__ = ["SAYS", "Example", "Record", "Verdict"]

SAYS: Final = {
    Wrong.GAP: "gaps: stayed or resumed, and was never told",
    Wrong.CURSOR: "lost behind the cursor of a resume",
    Wrong.AHEAD: "told only after a cursor that covers them",
    Wrong.DUPLICATE: "duplicates on one connection",
    Wrong.INVERTED: "inversions: the past, or one publisher's events",
    Wrong.UNKNOWN: "told, and not there in the log",
}
_EXAMPLES: Final = 3  # of each
_AROUND: Final = 4  # messages
_WORDS: Final = ("live", "late", "old", "subscribed", "not recovered", "state")


class Record(NamedTuple):
    """A client's history of one source. ``settled``: as of :func:`judge`."""

    client: int
    via: str
    source: str
    sessions: Sequence[Session]
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One wrong, by the event's id. ``around``: what the client was told there."""

    wrong: Wrong
    client: str
    source: str
    event: str
    place: str
    around: str

    @property
    def text(self) -> str:
        """A few lines."""
        return f"{self.client} of {self.source}: {self.event} at {self.place}\n    {self.around}"


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Sums over all records. ``wrong``: by class, ``refusals``: by reason, times; the others as of
    Judgement.
    """

    events: int = 0
    wrong: Counter[Wrong] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    told: int = 0
    old: int = 0
    late: int = 0
    declared: int = 0
    repeated: int = 0
    crossed: int = 0
    unsettled: int = 0
    examples: list[Example] = field(default_factory=list)

    @classmethod
    def of(cls, truth: Truth, records: Iterable[Record], *, began: float, wall: float) -> Verdict:
        """``began``: when the check did, s, monotonic; ``wall``: the same moment since the epoch."""
        verdict = cls(events=truth.events)
        shown: Counter[Wrong] = Counter()
        for record in records:
            logs = truth.logs[record.source]
            for log, stays, found in judge_all(logs, record.sessions, settled=record.settled):
                verdict.refusals += found.refusals
                for name in ("told", "old", "late", "declared", "repeated", "crossed", "unsettled"):
                    setattr(verdict, name, getattr(verdict, name) + getattr(found, name))
                verdict.wrong.update(one.wrong for one in found.findings)
                # One of each client and source: they are more telling than neighbours.
                for one in {one.wrong: one for one in reversed(found.findings)}.values():
                    if shown[one.wrong] < _EXAMPLES:
                        shown[one.wrong] += 1
                        around = _around(stays, one, log, began)
                        verdict.examples.append(_example(record, log, one, truth.names, around, wall))
        verdict.examples.sort(key=lambda one: list(Wrong).index(one.wrong))
        return verdict

    @property
    def held(self) -> bool:
        """Whether nothing was wrong."""
        return not self.wrong.total()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "held": self.held,
            "events": self.events,
            "told": {"all": self.told, "old": self.old, "late": self.late},
            "wrong": {wrong.value: self.wrong[wrong] for wrong in Wrong},
            "allowed": {
                "declared": self.declared,
                "refusals": dict(self.refusals),
                "repeated": self.repeated,
                "crossed": self.crossed,
                "unsettled": self.unsettled,
            },
            "examples": [
                {
                    name: getattr(one, name)
                    for name in ("wrong", "client", "source", "event", "place", "around")
                }
                for one in self.examples
            ],
        }


def _example(
    record: Record, log: SourceLog, finding: Finding, names: list[str], around: str, wall: float
) -> Example:
    entry = log.index.get(finding.event)
    place = "no place in the log"
    if entry is not None:
        place = f"{log.partition}:{log.offsets[entry]} ({log.times[entry] - wall:.2f} s)"
    return Example(
        wrong=finding.wrong,
        client=f"client {record.client} ({record.via})",
        source=record.source,
        event=names[finding.event],
        place=place,
        around=around,
    )


def _around(stays: Sequence[Stay], finding: Finding, log: SourceLog, began: float) -> str:
    """The connection on which it was noticed, and its messages up to there."""
    stay = stays[finding.stay]
    since = {None: "only new events", -1: "the beginning"}.get(stay.since, f"cursor {stay.since}")
    end = finding.row + 1 if finding.row >= 0 else len(stay.kinds)
    rows = range(max(0, end - _AROUND), end)
    said = ", ".join(_message(stay, row, log, began) for row in rows) or "nothing was told"
    dots = "…, " if rows.start else ""
    then = f", …; it ended {stay.ended} " if stay.ended else ""
    if finding.stay + 1 < len(stays):
        then += f"and resumed from cursor {stays[finding.stay + 1].since}"
    head = f"connection {finding.stay + 1} since {since}, at {stay.began - began:.2f} s"
    return f"{head}: {dots}{said}{then}".rstrip()


def _message(stay: Stay, row: int, log: SourceLog, began: float) -> str:
    entry = log.index.get(stay.events[row])
    place = "" if entry is None else f" {log.offsets[entry]}"
    cursor = "" if stay.cursors[row] == NOWHERE else f" [{stay.cursors[row]}]"
    return f"{_WORDS[stay.kinds[row]]}{place}{cursor} {stay.times[row] - began:.2f} s"
