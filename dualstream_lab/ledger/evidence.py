"""A run directory's rows as arrays (:mod:`~dualstream_lab.ledger.arrays`), and what of them is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from dualstream_lab.ledger.arrays import (
    FOREVER,
    NO_ROW,
    CaughtUp,
    Consumed,
    Delivered,
    Drops,
    Events,
    Subscriber,
    Window,
    grouped,
)
from dualstream_lab.ledger.classes import Cause, LogState
from dualstream_lab.ledger.seconds import Seconds
from dualstream_lab.recording import DROPS, Ending, RunDirectory
from dualstream_lab.recording.joined import by_seq, column_types, places, stacked
from dualstream_lab.recording.rows import Int32, Int64
from dualstream_lab.units import quantity

_COLUMNS: Final = ("seq", "intended", "sent", "acked", "outcome", "source")
_OTHERS: Final = ("consumed", "delivered", "dropped", "caught_up")
_AROUND: Final = 1_000_000_000  # ns: rows that a full disk refused came together within it


class _Part(NamedTuple):
    """A file of rows: how many ``rows`` (None: it cannot be read), the times of the first and the last."""

    writer: str
    rows: int | None
    begin: int = 0
    end: int = 0


class Evidence:
    """The rows of a run. Those of a kind are read when they are asked for, and not kept.

    ``problems``: what is missing, besides the directory's own. ``published_whole``: no row of publishing is.
    ``drop_times``: when notifications were given up, as :meth:`drops` found them.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.problems: list[str] = []
        self.seconds = Seconds(directory)
        self._subscribers: dict[tuple[str, int], int] = {}
        self._listened = any(directory.path.glob("listening-*.parquet"))
        self.published_whole = True
        self.drop_times: Int64 = np.empty(0, np.int64)
        self.events = self._events()

    # Events

    def _events(self) -> Events:
        writers: list[str] = []
        parts = []
        for writer, part in self._directory.columns("published", _COLUMNS):
            if part is None:
                self.published_whole = False
                continue
            if writer not in writers:
                writers.append(writer)
            part["writer"] = np.full(len(part["seq"]), writers.index(writer), np.uint16)
            parts.append(part)
        columns = stacked(parts, column_types("published", _COLUMNS) | {"writer": np.uint16})
        rows = len(columns["seq"])
        if not rows and not self.seconds.counted("published"):
            self.problems.append("no published rows were recorded")
        if running := self._directory.manifest.state == "running":
            self.problems.append("the run did not end: its writers died, or it still runs")
        if self._are_missing("published", rows) or running:
            self.published_whole = False
        columns = by_seq(columns)
        if twice := rows - len(columns["seq"]):
            events = quantity(twice, "event was", "events were")
            self.problems.append(f"{events} published twice: the first row of each counts")
        if count := len(unknown := self._unpublished(columns["seq"])):
            added = {name: np.zeros(count, column.dtype) for name, column in columns.items()}
            added |= {"seq": unknown, "outcome": np.full(count, NO_ROW, np.int8)}
            columns = {name: np.concatenate([column, added[name]]) for name, column in columns.items()}
            order = np.argsort(columns["seq"])
            columns = {name: column[order] for name, column in columns.items()}
        return Events(**columns)

    def _are_missing(self, kind: str, rows: int) -> bool:
        """Find whether there are fewer rows than were counted, which is noted as a problem."""
        if missing := self.seconds.missing(kind, rows):
            self.problems.append(missing)
        return bool(missing)

    def _unpublished(self, seq: Int64) -> Int64:
        """Find the events that are only in rows of other kinds than publishing."""
        found = [np.empty(0, np.int64)]
        for kind in _OTHERS:
            for _, columns in self._directory.columns(kind, ("seq",)):
                if columns is not None and not (known := places(seq, columns["seq"])[1]).all():
                    found.append(np.unique(columns["seq"][~known]))
        return np.unique(np.concatenate(found))

    # The durable path

    def consumed(self) -> tuple[Consumed, LogState]:
        """Read the Kafka consumer's rows, and find whether they are all."""
        columns, parts = self._rows("consumed", "at", "partition", "offset")
        consumed = Consumed(**columns)
        whole = all(part.rows is not None for part in parts)
        if "consumed" not in self.seconds.counters and not len(consumed.place) and whole:
            self.problems.append(
                "no Kafka consumer was recorded: an acknowledged event counts as being in the log"
            )
            return consumed, LogState.ABSENT
        missing, unread = self._are_missing("consumed", len(consumed.place)), self.seconds.unread
        # Runs of older versions do not say it; those that finished had caught up, or failed.
        if self.seconds.caught_up is None and self._directory.manifest.state != "finished":
            unread = "the Kafka consumer did not read to the end of the log"
        if unread:
            self.problems.append(unread)
        return consumed, LogState.PARTIAL if missing or not whole or unread else LogState.COMPLETE

    # The live path

    def delivered(self) -> tuple[Delivered, list[Subscriber], CaughtUp]:
        """Read the subscribers' rows, and when each of them was subscribed."""
        columns, parts = self._rows("delivered", "at", "subscriber")
        later, _ = self._rows("caught_up", "at", "subscriber")
        self._are_missing("caught_up", len(later["place"]))
        windows = self._windows()
        place, at, subscriber = columns["place"], columns["at"], columns.pop("subscriber")
        if not len(place) and not windows and "delivered" not in self.seconds.counters:
            self.problems.append("no subscriber was recorded")
        elif not self._listened and len(place):
            self.problems.append(
                "who was subscribed when was not recorded: whoever got anything counts as listening always"
            )
        bounds = np.cumsum(np.bincount(subscriber + 1, minlength=len(self._subscribers) + 1))
        if np.any(subscriber[1:] < subscriber[:-1]):
            order = grouped(subscriber)
            del subscriber
            place = place[order]
            at = at[order]
        del columns
        holes = self._holes(parts)
        always = [] if self._listened else list(Subscriber().windows)
        subscribers = []
        for (writer, _), number in self._subscribers.items():
            sources, among = windows.get(number, ((-1,), always))
            subscribers.append(Subscriber(sources=sources, windows=among, holes=holes.get(writer, ())))
        return Delivered(place, at, bounds), subscribers, CaughtUp(**later)

    def _windows(self) -> dict[int, tuple[tuple[int, ...], list[Window]]]:
        """Read for each subscriber the sources that it is for, and its windows."""
        found: dict[int, tuple[set[int], dict[int, Window]]] = {}
        names = ("subscriber", "source", "begin", "end", "why")
        for writer, columns in self._directory.columns("listening", names):
            lists = [] if columns is None else [column.tolist() for column in columns.values()]
            for number, source, begin, end, why in zip(*lists, strict=True):
                sources, windows = found.setdefault(self._number(writer, number), (set(), {}))
                sources.add(source)
                if end:
                    slow = why == Ending.LOST and self.seconds.killed_slow(end, writer)
                    windows[begin] = Window(begin, end, Ending(why), slow)
                else:
                    windows.setdefault(begin, Window(begin, FOREVER, Ending.OPEN))
        return {
            number: (tuple(sorted(sources)), sorted(windows.values()))
            for number, (sources, windows) in found.items()
        }

    def _holes(self, parts: Sequence[_Part]) -> dict[str, list[tuple[int, int]]]:
        """Find for each process the stretches of time whose ``delivered`` rows are missing."""
        holes: dict[str, list[tuple[int, int]]] = {}
        last: dict[str, int] = {}
        rows: dict[str, int] = {}
        broken: set[str] = set()
        for writer, count, begin, end in parts:
            if count is None:
                broken.add(writer)
            elif count:
                if writer in broken:
                    holes.setdefault(writer, []).append((last.get(writer, 0), begin))
                    broken.discard(writer)
                last[writer], rows[writer] = end, rows.get(writer, 0) + count
        for begin, end, writer in self.seconds.refusals("delivered"):
            holes.setdefault(writer, []).append((begin - _AROUND, end))
        counted = self.seconds.delivered if self._directory.manifest.sample == 1 else {}
        short = {w for w, count in counted.items() if rows.get(w, 0) < count and w not in holes}
        for writer in broken | short:
            holes.setdefault(writer, []).append((last.get(writer, 0), FOREVER))
        self.problems += [
            f"rows of what the subscribers of {writer!r} received are missing" for writer in sorted(holes)
        ]
        return holes

    # What the publisher gave up

    def drops(self) -> Drops:
        """Read which notifications were given up: event by event where that was recorded, else by second."""
        cause = np.zeros(len(self.events), np.uint8)
        columns, _ = self._rows("dropped", "at", "reason")
        place, reason = columns["place"], columns["reason"]
        self.drop_times = np.sort(columns["at"])
        if len(place) or not self.seconds.drops or any(self._directory.path.glob("dropped-*.parquet")):
            cause[place] = np.clip(reason, 0, len(DROPS) - 1).astype(np.uint8) + np.uint8(Cause.DROPPED)
            self._are_missing("dropped", len(place))
            return Drops(cause=cause)
        for begin, end, why in self.seconds.drops:
            inside = (self.events.acked >= begin) & (self.events.acked < end)
            cause[inside] = Cause.DROPPED + (DROPS.index(why) if why in DROPS else 0)
        self.problems.append("which notifications were given up was not recorded: told by their second")
        return Drops(cause=cause, exact=False)

    # Reading

    def _rows(self, kind: str, *names: str) -> tuple[dict[str, Any], list[_Part]]:
        """Read (the events' places and the columns, the parts) of a kind of rows."""
        parts = []
        files: list[_Part] = []
        for writer, columns in self._directory.columns(kind, ("seq", *names)):
            if columns is None:
                files.append(_Part(writer, None))
                continue
            at = columns["at"]
            files.append(_Part(writer, len(at), int(at[0]), int(at[-1])) if len(at) else _Part(writer, 0))
            columns["place"] = places(self.events.seq, columns.pop("seq"))[0].astype(np.int32)
            if "subscriber" in columns:
                columns["subscriber"] = self._numbers(writer, columns["subscriber"])
            parts.append(columns)
        return stacked(parts, {"place": np.int32} | column_types(kind, names)), files

    def _number(self, writer: str, number: int) -> int:
        """Number one process's subscriber among those of the run."""
        return self._subscribers.setdefault((writer, number), len(self._subscribers))

    def _numbers(self, writer: str, numbers: Int32) -> Int32:
        present = np.bincount(numbers)
        table = np.zeros(len(present), np.int32)
        for number in np.flatnonzero(present).tolist():
            table[number] = self._number(writer, number)
        return table[numbers]
