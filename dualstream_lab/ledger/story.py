"""One event's story: everything that any row says of it, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dualstream_lab.recording import DROPS, Ending, Outcome, RunDirectory
from dualstream_lab.units import quantity
from dualstream_lab.workload import RunIds, source_name

_OUTCOMES = {
    Outcome.PENDING: "its call ended without an answer",
    Outcome.REJECTED: "rejected, or not given to Kafka in time",
    Outcome.UNKNOWN: "not acknowledged by the deadline: the outcome is unknown",
    Outcome.NO_ROOM: "refused: there was no room in the publisher's buffer",
}
_ENDINGS = {
    Ending.LOST: "lost its connection",
    Ending.LEFT: "had left",
    Ending.CLOSED: "had ended",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What happened to an event, ``at`` ms after it was due; None for what has no time of its own."""

    at: float | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What any row says of one event.

    ``due``: s of the run at which the plan wanted it sent; None where the row of its publishing is missing
    (``at`` of the moments is then from the run's start). ``moments``: by time.
    """

    event_id: str
    name: str
    meaning: str
    cause: str
    marks: tuple[str, ...]
    source: str
    due: float | None
    moments: tuple[Moment, ...]

    def __str__(self) -> str:
        cause = f" ({self.cause})" if self.cause else ""
        marks = f"; {', '.join(self.marks)}" if self.marks else ""
        lines = [f"{self.event_id}  {self.name}{cause}{marks}", self.meaning]
        if self.due is None:
            lines.append("the row of its publishing is missing: times from the run's start")
        else:
            lines.append(f"of {self.source}, due at {self.due:.6f} s of the run; times from then")
        for moment in self.moments:
            when = " " * 16 if moment.at is None else f"{moment.at:+13,.3f} ms"
            lines.append(f"{when}  {moment.text}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Make a dictionary that JSON takes."""
        return {
            "id": self.event_id, "class": self.name, "cause": self.cause or None, "marks": list(self.marks),
            "source": self.source or None, "due_s": self.due,
            "moments": [{"at_ms": moment.at, "text": moment.text} for moment in self.moments],
        }  # fmt: skip


def story_of(
    directory: RunDirectory, seq: int, *, name: str, meaning: str, cause: str, marks: tuple[str, ...]
) -> Story:
    """Tell the story of one event, whose rows are read again."""
    manifest = directory.manifest
    published = next((row for _, row in _rows(directory, "published", seq)), None)
    zero = published["intended"] if published else manifest.started
    timed: list[tuple[int, str]] = []
    if published:
        timed.append((published["sent"], f"sent, {quantity(published['size'], 'byte')}"))
        if published["acked"]:
            timed.append((published["acked"], "acknowledged by Kafka, as its caller saw it"))
    delivered: dict[tuple[str, int], int] = {}
    for kind in ("delivered", "caught_up"):
        for writer, row in _rows(directory, kind, seq):
            number, at = row["subscriber"], row["at"]
            who = f"subscriber {number} of {writer}"
            if kind == "delivered":
                timed.append((at, f"delivered{' again' if (writer, number) in delivered else ''} to {who}"))
            else:
                timed.append((at, f"given to {who} by {'repair' if row['by_repair'] else 'catch-up'}"))
            delivered.setdefault((writer, number), at)
    records = [row for _, row in _rows(directory, "consumed", seq)]
    timed += [
        (row["at"], f"read by the Kafka consumer: partition {row['partition']}, offset {row['offset']}")
        for row in records
    ]
    timed += [
        (row["at"], f"its notification was given up: {DROPS[row['reason']]}")
        for _, row in _rows(directory, "dropped", seq)
    ]
    timed.sort()
    untimed: list[str] = []
    if published:
        if not (durable := published["outcome"] == Outcome.DURABLE):
            untimed.append(_OUTCOMES[Outcome(published["outcome"])])
        if durable or records:
            until = min(delivered.values(), default=max(published["acked"], published["sent"]))
            untimed += _absent(directory, delivered, published["sent"], until, published["source"])
    untimed += _faults(directory, zero, timed[-1][0] if timed else zero)
    return Story(
        event_id=RunIds(manifest.ids).of(seq), name=name, meaning=meaning, cause=cause, marks=marks,
        source=":".join(source_name(published["source"])) if published else "",
        due=(zero - manifest.started) / 1e9 if published else None,
        moments=(
            *(Moment(at=(at - zero) / 1e6, text=text) for at, text in timed),
            *(Moment(at=None, text=text) for text in untimed),
        ),
    )  # fmt: skip


def _rows(directory: RunDirectory, kind: str, seq: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Find the rows of one event, as (process, row)."""
    for writer, rows in directory.parts(kind):
        if rows is None:
            continue
        places = (rows.column("seq").to_numpy() == seq).nonzero()[0]
        for row in rows.take(places).to_pylist():
            yield writer, row


def _absent(
    directory: RunDirectory, delivered: dict[tuple[str, int], int], sent: int, until: int, source: int
) -> Iterator[str]:
    """Name the subscribers that did not get it, and how they were from ``sent`` to ``until``."""
    windows: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}
    for writer, rows in directory.parts("listening"):
        for row in [] if rows is None else rows.to_pylist():
            if row["source"] in {-1, source} and (writer, row["subscriber"]) not in delivered:
                known = windows.setdefault((writer, row["subscriber"]), {})
                if row["end"] or row["begin"] not in known:
                    known[row["begin"]] = row["end"], row["why"]
    for (writer, number), among in sorted(windows.items()):
        who = f"subscriber {number} of {writer}"
        inside = [b for b, (end, _) in among.items() if b <= sent and (until <= end or not end)]
        if inside:
            yield f"{who} was listening, and did not receive it"
            continue
        before = max((begin for begin in among if begin <= until), default=None)
        if before is None:
            yield f"{who} was not yet subscribed"
            continue
        end, why = among[before]
        after = min((begin for begin in among if begin > before), default=None)
        back = f", and was back {(after - sent) / 1e6:,.1f} ms after it" if after else ""
        if before > sent:
            yield f"{who} was subscribed only {(before - sent) / 1e6:,.1f} ms after it was sent"
        else:
            ago = (sent - end) / 1e6
            when = f"{ago:,.1f} ms before it was sent" if ago >= 0 else f"{-ago:,.1f} ms after it was sent"
            yield f"{who} {_ENDINGS.get(Ending(why), 'was gone')} {when}{back}"


def _faults(directory: RunDirectory, zero: int, end: int) -> Iterator[str]:
    """Name the faults that were on meanwhile."""
    for fault in directory.manifest.faults:
        if fault.begin <= end and (fault.end or end) >= zero:
            until = f"{(fault.end - zero) / 1e6:+,.0f} ms" if fault.end else "the end"
            yield f"fault {fault.name} was on, from {(fault.begin - zero) / 1e6:+,.0f} ms to {until}"
