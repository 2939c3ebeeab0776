"""The ledger of a run: what became of each event on both paths, from its directory alone."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from dualstream_lab.errors import EventError
from dualstream_lab.former_names import LEDGER
from dualstream_lab.ledger.account import Account, account_of
from dualstream_lab.ledger.arrays import Events, Subscriber
from dualstream_lab.ledger.classes import CAUSES, CLASSES, MARKS, Class, Entry, LogState, Mark
from dualstream_lab.ledger.evidence import Evidence
from dualstream_lab.ledger.live import Live, live_of
from dualstream_lab.ledger.log import Log, log_of
from dualstream_lab.ledger.recovery import Recovery, Series, grade_all
from dualstream_lab.ledger.story import Story, story_of
from dualstream_lab.ledger.tables import entry_table
from dualstream_lab.recording import Ending, RunDirectory
from dualstream_lab.recording.rows import Flags, Int64
from dualstream_lab.units import quantity
from dualstream_lab.workload import RunIds

_EXAMPLES = 3
_PAUSE = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of each event of a run, and how it got over each fault.

    ``entries``: every class that occurs, by cause; their counts add up to ``events``. ``marks``: what else
    is to be said of events of any class. ``sample``: one event in so many was recorded, and counts are of
    those. ``unsent``: events that were due and never sent; they have no row. ``lost`` and ``orphans``: None
    where the rows cannot tell. ``problems``: what is missing.
    """

    directory: RunDirectory
    events: int
    entries: tuple[Entry, ...]
    marks: tuple[Entry, ...]
    recoveries: tuple[Recovery, ...]
    sample: int
    unsent: int
    lost: int | None
    orphans: int | None
    problems: tuple[str, ...]
    seq: Int64
    account: Account

    @classmethod
    def of(cls, run: RunDirectory | Path | str) -> Self:
        """Account for a run directory, also a damaged or incomplete one. Raises RecordingError for no run."""
        directory = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
        evidence = Evidence(directory)
        events = evidence.events
        log = log_of(events, *evidence.consumed())
        delivered, subscribers, caught_up = evidence.delivered()
        live = live_of(events, log, delivered, subscribers, caught_up)
        del delivered, caught_up  # most of what there is
        account = account_of(events, log, live, evidence.drops(), published_whole=evidence.published_whole)
        if directory.manifest.sample > 1:
            evidence.problems.append(
                f"a sample: one event in {directory.manifest.sample} was recorded, and counts are of those"
            )
        entries = tuple(_class_entries(directory, events, account))
        counts = {entry.name: entry.count for entry in entries}
        whole = log.state is LogState.COMPLETE
        # Without a consumer, an orphan is what nobody published.
        published = whole or (log.state is LogState.ABSENT and evidence.published_whole)
        return cls(
            directory=directory, events=len(events), entries=entries,
            marks=tuple(_mark_entries(directory, events, log, live, account)),
            recoveries=_recoveries(directory, evidence, events, log, live, subscribers),
            sample=directory.manifest.sample, unsent=evidence.seconds.counters["unsent"],
            lost=counts.get("lost", 0) if whole else None,
            orphans=counts.get("orphan", 0) if published else None,
            problems=(*directory.problems, *evidence.problems), seq=events.seq, account=account,
        )  # fmt: skip

    def count(self, name: str) -> int:
        """Count the events that are in a class, or have a mark."""
        name = LEDGER.get(name, name)
        return sum(entry.count for entry in (*self.entries, *self.marks) if entry.name == name)

    @property
    def broken(self) -> bool:
        """Whether something happened that must never happen."""
        return bool(self.lost or self.orphans)

    def ids(self, name: str) -> Iterator[str]:
        """Give the ids of all events of a class, or with a mark. Raises EventError for no such name."""
        name = LEDGER.get(name, name)
        classes = {CLASSES[each][0]: each for each in CLASSES}
        marks = {MARKS[each][0]: each for each in MARKS}
        if name in classes:
            chosen = self.account.classes == classes[name]
        elif name in marks:
            chosen = (self.account.marks & marks[name]) > 0
        else:
            raise EventError(f"there is no class {name!r}; there are {', '.join([*classes, *marks])}")
        of = RunIds(self.directory.manifest.ids).of
        return (of(int(seq)) for seq in self.seq[chosen])

    def entry(self, event_id: str) -> Story:
        """Tell one event's story. Raises EventError where the run has no such event, or did not record it."""
        ids = self.directory.manifest.ids
        seq = RunIds(ids).seq(event_id)
        if seq is None:
            raise EventError(
                f"{event_id!r} is not an id of this run: they begin with {ids} and have 36 letters"
            )
        place = int(np.searchsorted(self.seq, seq))
        if place == len(self.seq) or self.seq[place] != seq:
            why = f"one event in {self.sample} was recorded" if self.sample > 1 else "no row names it"
            raise EventError(f"the run has no row of {event_id}: {why}")
        account = self.account
        name, meaning = CLASSES[Class(account.classes[place])]
        cause = CAUSES.get(int(account.causes[place]), "")
        marks = tuple(MARKS[mark][0] for mark in Mark if account.marks[place] & mark)
        return story_of(self.directory, seq, name=name, meaning=meaning, cause=cause, marks=marks)

    def as_dict(self) -> dict[str, Any]:
        """Make a dictionary that JSON takes."""
        manifest = self.directory.manifest
        return {
            **{name: getattr(manifest, name) for name in ("run", "name", "state")},
            **{name: getattr(self, name) for name in ("events", "sample", "unsent")},
            "classes": [entry.as_dict() for entry in self.entries],
            "marks": [entry.as_dict() for entry in self.marks],
            "recovery": [recovery.as_dict() for recovery in self.recoveries],
            "problems": list(self.problems),
        }

    def __repr__(self) -> str:
        return f"<Ledger of {self.directory.path}: {quantity(self.events, 'event')}, {self.lost} lost>"

    def _repr_html_(self) -> str:
        parts = [entry_table(self.entries, examples=1)._repr_html_()]
        if self.marks:
            parts += ["<p>Besides, of these:</p>", entry_table(self.marks, examples=1)._repr_html_()]
        parts.append(f"<p>{quantity(self.events, 'event, in one class', 'events, each in one class')}</p>")
        parts += [f"<p>note: {html.escape(problem)}</p>" for problem in self.problems]
        return "".join(parts)


def _class_entries(directory: RunDirectory, events: Events, account: Account) -> Iterator[Entry]:
    for which, (name, meaning) in CLASSES.items():
        inside = account.classes == which
        for cause in np.flatnonzero(np.bincount(account.causes[inside])).tolist():
            chosen = inside & (account.causes == cause) if which is Class.UNDELIVERED else inside
            yield _entry(directory, events, chosen, name=name, meaning=meaning, cause=CAUSES.get(cause, ""))


def _mark_entries(
    directory: RunDirectory, events: Events, log: Log, live: Live, account: Account
) -> Iterator[Entry]:
    for mark, (name, meaning) in MARKS.items():
        chosen = (account.marks & mark) > 0
        if not chosen.any():
            continue
        delay: tuple[float, float, float] | None = None
        if mark is Mark.BEFORE_CONSUMER:
            delay = _delay(log.at[chosen] - live.first[chosen])
        elif mark is Mark.RECOVERED:
            acked = events.acked[chosen]
            delay = _delay(live.recovered[chosen] - np.where(acked > 0, acked, events.sent[chosen]))
        yield _entry(directory, events, chosen, name=name, meaning=meaning, delay=delay)


def _delay(spent: Int64) -> tuple[float, float, float]:
    p50, p99, most = (np.quantile(spent, (0.5, 0.99, 1.0)) / 1e6).tolist()
    return p50, p99, most


def _entry(directory: RunDirectory, events: Events, chosen: Flags, **known: Any) -> Entry:
    """Make an entry of the chosen events, with their count, share and examples."""
    count, of = int(np.count_nonzero(chosen)), RunIds(directory.manifest.ids).of
    examples = tuple(of(int(seq)) for seq in events.seq[np.flatnonzero(chosen)[:_EXAMPLES]])
    return Entry(count=count, share=count / len(events), examples=examples, **known)


def _recoveries(
    directory: RunDirectory, evidence: Evidence, events: Events, log: Log, live: Live,
    subscribers: Sequence[Subscriber],
) -> tuple[Recovery, ...]:  # fmt: skip
    manifest = directory.manifest
    published = events.outcome >= 0
    if not manifest.faults or not published.any():
        return ()
    durable, intended, acked = events.durable, events.intended, events.acked
    paths = {"publish": _series(intended, np.where(durable, acked, 0), published)}
    if subscribers:
        paths["live"] = _series(intended, live.first, durable)
    if log.at.any():
        paths["consumer"] = _series(acked, log.at, durable)
    signs = list(evidence.seconds.signs)
    # Of those that follow each other, the first: what was given up all the while is no sign of a new fault.
    given_up = evidence.drop_times
    begins = given_up[np.diff(given_up, prepend=-_PAUSE) >= _PAUSE]
    signs += [(at, "a notification was given up") for at in begins.tolist()]
    signs += [
        (window.end, "a subscriber lost its connection")
        for subscriber in subscribers
        for window in subscriber.windows
        if window.why is Ending.LOST
    ]
    zero = manifest.started or int(intended[published].min())
    ended = manifest.ended or int(max(intended.max(), acked.max()))
    return tuple(grade_all(manifest.faults, paths, signs, zero=zero, ended=ended, sample=manifest.sample))


def _series(begin: Int64, end: Int64, which: Flags) -> Series:
    # a copy of ten million entries is worth avoiding
    return Series(begin=begin, end=end) if which.all() else Series(begin=begin[which], end=end[which])
