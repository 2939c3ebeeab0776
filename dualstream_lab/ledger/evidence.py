"""A run directory's rows as arrays (:mod:`~dualstream_lab.ledger.arrays`), and what of them is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from dualstream_lab.ledger.account import Drops
from dualstream_lab.ledger.arrays import (
    FOREVER,
    NO_ROW,
    CaughtUp,
    Consumed,
    Events,
    Heard,
    Subscriber,
    Window,
)
from dualstream_lab.ledger.classes import Cause, LogState
from dualstream_lab.ledger.order import grouped
from dualstream_lab.ledger.seconds import Seconds
from dualstream_lab.recording import DROPS, Ending
from dualstream_lab.recording.joined import places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from dualstream_lab.recording import RunDirectory

    Int32 = npt.NDArray[np.int32]
    Int64 = npt.NDArray[np.int64]
    Columns = dict[str, npt.NDArray[Any]]

__all__ = ["Evidence"]

_OTHERS: Final = ("consumed", "heard", "dropped", "caught_up")
_AROUND: Final = 1_000_000_000  # ns: rows that a full disk refused came together within it


class _Part(NamedTuple):
    """A file: how many ``rows`` (None: it cannot be read), and the times of the first and the last."""

    writer: str
    rows: int | None
    begin: int = 0
    end: int = 0


class Evidence:
    """Reads a run. The rows of a kind are read when they are asked for, and not kept.

    ``problems``: what is missing, besides the directory's own. ``published_whole``: no row of publishing is.
    ``drop_times``: when notifications were given up, as :meth:`drops` found them.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.problems: list[str] = []
        self.seconds = Seconds.of(directory)
        self._subscribers: dict[tuple[str, int], int] = {}
        self._listened = any(directory.path.glob("listening-*.parquet"))
        self.published_whole = True
        self.drop_times: Int64 = np.empty(0, np.int64)
        self.events = self._events()

    # Events

    def _events(self) -> Events:
        names = ("seq", "intended", "sent", "acked", "outcome", "source")
        writers: list[str] = []
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*names, "writer")}
        for writer, columns in self._parts("published", names):
            if columns is None:
                self.published_whole = False
                continue
            if writer not in writers:
                writers.append(writer)
            columns["writer"] = np.full(len(columns["seq"]), writers.index(writer), np.uint16)
            for name, column in columns.items():
                parts[name].append(column)
        columns = {name: _joined(parts.pop(name), name) for name in (*names, "writer")}
        pa.default_memory_pool().release_unused()
        self._check_published(len(columns["seq"]))
        if not np.all(columns["seq"][1:] > columns["seq"][:-1]):
            _, first = np.unique(columns["seq"], return_index=True)
            if twice := len(columns["seq"]) - len(first):
                self.problems.append(f"{twice:,} events were published twice: the first row of each counts")
            columns = {name: column[first] for name, column in columns.items()}
        strangers = self._strangers(columns["seq"])
        if len(strangers):
            everything = np.concatenate([columns["seq"], strangers])
            order = np.argsort(everything)
            columns = {
                name: np.concatenate([column, np.zeros(len(strangers), column.dtype)])
                for name, column in columns.items()
            }
            columns["seq"] = everything
            columns["outcome"][-len(strangers) :] = NO_ROW
            columns = {name: column[order] for name, column in columns.items()}
        return Events(**columns)

    def _check_published(self, rows: int) -> None:
        counters = self.seconds.counters
        told = sum(counters.get(n, 0) for n in ("durable", "rejected", "unknown", "no_room", "pending"))
        if not rows and not told:
            self.problems.append("no published rows were recorded")
        if self._directory.manifest.state == "running":
            self.published_whole = False
            self.problems.append("the run did not end: its writers died, or it still runs")
        if missing := self._fewer("published", rows, told):
            self.published_whole = False
            self.problems.append(missing)

    def _fewer(self, kind: str, rows: int, told: int) -> str | None:
        """What to say where there are fewer rows than were counted."""
        if dropped := self.seconds.refused(kind):
            return f"{dropped:,} {kind} rows are missing: the disk was too slow for them"
        if self._directory.manifest.sample == 1 and rows < told:
            return f"{told - rows:,} of {told:,} {kind} rows are missing"
        return None

    def _strangers(self, seq: Int64) -> Int64:
        """Events that are only in rows of other kinds."""
        found = []
        for kind in _OTHERS:
            for _, columns in self._parts(kind, ("seq",)):
                if columns is not None and not (ours := _among(seq, columns["seq"])[1]).all():
                    found.append(np.unique(columns["seq"][~ours]))
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    # The durable path

    def consumed(self) -> tuple[Consumed, LogState]:
        """The consumer's rows, and whether they are all."""
        places, rest, parts = self._rows("consumed", ("at", "partition", "offset"))
        whole = all(part.rows is not None for part in parts)
        told, unread = self.seconds.counters.get("consumed"), self.seconds.unread
        state = LogState.COMPLETE
        if told is None and not len(places) and whole:
            state = LogState.ABSENT
            self.problems.append(
                "no Kafka consumer was recorded: an acknowledged event counts as being in the log"
            )
        else:
            missing = self._fewer("consumed", len(places), told or 0)
            if missing:
                self.problems.append(missing)
            # Runs of older versions do not say it; those that finished had caught up, or failed.
            if self.seconds.caught_up is None and self._directory.manifest.state != "finished":
                unread = "the Kafka consumer did not read to the end of the log"
            if unread:
                self.problems.append(unread)
            if missing or not whole or unread:
                state = LogState.PARTIAL
        return Consumed(places, rest["at"], rest["partition"], rest["offset"]), state

    # The live path

    def heard(self) -> tuple[Heard, list[Subscriber], CaughtUp]:
        """The subscribers' rows, and when each of them was subscribed."""
        places, rest, parts = self._rows("heard", ("at", "subscriber"), subscribers=True)
        later, more, _ = self._rows("caught_up", ("at", "subscriber"), subscribers=True)
        if missing := self._fewer("caught_up", len(later), self.seconds.counters.get("caught_up", 0)):
            self.problems.append(missing)
        windows = self._windows()
        if not len(places) and not windows and "heard" not in self.seconds.counters:
            self.problems.append("no subscriber was recorded")
        elif not self._listened and len(places):
            self.problems.append(
                "who was subscribed when was not recorded: whoever heard anything counts as listening always"
            )
        number = len(self._subscribers)
        who, at = rest.pop("subscriber"), rest.pop("at")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(who, minlength=number))])
        if np.any(who[1:] < who[:-1]):
            order = grouped(who)
            del who
            places = places[order]
            at = at[order]
        holes = self._holes(parts)
        subscribers = [
            Subscriber(sources=sources, windows=among, holes=holes.get(writer, ()))
            for (writer, _), (sources, among) in (
                (key, windows.get(place, ((-1,), [] if self._listened else list(Subscriber().windows))))
                for key, place in self._subscribers.items()
            )
        ]
        return Heard(places, at, bounds), subscribers, CaughtUp(later, more["at"], more["subscriber"])

    def _windows(self) -> dict[int, tuple[tuple[int, ...], list[Window]]]:
        """Of each subscriber: the sources that it is for, and its windows."""
        found: dict[int, tuple[set[int], dict[int, Window]]] = {}
        for writer, columns in self._parts("listening", ("subscriber", "source", "begin", "end", "why")):
            rows = (
                [] if columns is None else zip(*(column.tolist() for column in columns.values()), strict=True)
            )
            for number, source, begin, end, why in rows:
                who = self._subscribers.setdefault((writer, number), len(self._subscribers))
                sources, windows = found.setdefault(who, (set(), {}))
                sources.add(source)
                if end:
                    slow = why == Ending.LOST and self.seconds.killed_slow(end, writer)
                    windows[begin] = Window(begin, end, Ending(why), slow)
                else:
                    windows.setdefault(begin, Window(begin, FOREVER, Ending.OPEN))
        return {
            who: (tuple(sorted(sources)), sorted(windows.values()))
            for who, (sources, windows) in found.items()
        }

    def _holes(self, parts: Sequence[_Part]) -> dict[str, list[tuple[int, int]]]:
        """By process: stretches of time that ``heard`` rows are missing of."""
        holes: dict[str, list[tuple[int, int]]] = {}
        last: dict[str, int] = {}
        rows: dict[str, int] = {}
        broken: set[str] = set()
        for part in parts:
            writer = part.writer
            if part.rows is None:
                broken.add(writer)
            elif part.rows:
                if writer in broken:
                    holes.setdefault(writer, []).append((last.get(writer, 0), part.begin))
                    broken.discard(writer)
                last[writer], rows[writer] = part.end, rows.get(writer, 0) + part.rows
        for begin, end, writer in self.seconds.refusals("heard"):
            holes.setdefault(writer, []).append((begin - _AROUND, end))
        told = self.seconds.heard if self._directory.manifest.sample == 1 else {}
        short = {w for w, count in told.items() if rows.get(w, 0) < count and w not in holes}
        for writer in broken | short:
            holes.setdefault(writer, []).append((last.get(writer, 0), FOREVER))
        for writer in sorted(holes):
            self.problems.append(f"rows of what the subscribers of {writer!r} heard are missing")
        return holes

    # What the publisher gave up

    def drops(self) -> Drops:
        """Event by event where it was recorded, else second by second."""
        cause = np.zeros(len(self.events), np.uint8)
        places, rest, _ = self._rows("dropped", ("at", "reason"))
        self.drop_times = np.sort(rest["at"])
        if len(places) or not self.seconds.drops or any(self._directory.path.glob("dropped-*.parquet")):
            reasons = np.clip(rest["reason"], 0, len(DROPS) - 1).astype(np.uint8)
            cause[places] = reasons + np.uint8(Cause.DROPPED)
            self._check_drops(len(places))
            return Drops(cause=cause)
        for begin, end, why in self.seconds.drops:
            reason = DROPS.index(why) if why in DROPS else 0
            inside = (self.events.acked >= begin) & (self.events.acked < end)
            cause[inside] = Cause.DROPPED + reason
        self.problems.append("which notifications were given up was not recorded: told by their second")
        return Drops(cause=cause, exact=False)

    def _check_drops(self, rows: int) -> None:
        told = sum(n for name, n in self.seconds.counters.items() if name.startswith("dropped: "))
        if missing := self._fewer("dropped", rows, told):
            self.problems.append(missing)

    # Reading

    def _parts(self, kind: str, names: Sequence[str]) -> Iterator[tuple[str, Columns | None]]:
        for writer, rows in self._directory.parts(kind, names):
            yield writer, None if rows is None else {n: rows.column(n).to_numpy() for n in names}

    def _rows(
        self, kind: str, names: Sequence[str], *, subscribers: bool = False
    ) -> tuple[Int32, Columns, list[_Part]]:
        """(the events' places, the other columns, the parts)."""
        places: list[Int32] = []
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
        files: list[_Part] = []
        for writer, columns in self._parts(kind, ("seq", *names)):
            if columns is None:
                files.append(_Part(writer, None))
                continue
            at = columns["at"]
            files.append(_Part(writer, len(at), int(at[0]), int(at[-1])) if len(at) else _Part(writer, 0))
            places.append(_among(self.events.seq, columns.pop("seq"))[0])
            if subscribers:
                columns["subscriber"] = self._numbers(writer, columns["subscriber"])
            for name, column in columns.items():
                parts[name].append(column)
        place = _joined(places, "place")
        found = {name: _joined(parts.pop(name), name) for name in names}
        pa.default_memory_pool().release_unused()  # a big run would keep twice its size
        return place, found, files

    def _numbers(self, writer: str, numbers: Int32) -> Int32:
        """The numbers of one process's subscribers, as numbers of the run's."""
        among = self._subscribers
        there = np.bincount(numbers)
        table = np.zeros(len(there), np.int32)
        for number in np.flatnonzero(there).tolist():
            table[number] = among.setdefault((writer, number), len(among))
        return table[numbers]


def _joined(parts: list[npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """One array of them; an empty one of the right kind where there are none."""
    kinds = {"outcome": np.int8, "reason": np.int8, "writer": np.uint16, "place": np.int32}
    wide = {"seq", "intended", "sent", "acked", "at", "offset"}
    kind: Any = np.int64 if name in wide else kinds.get(name, np.int32)
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _among(seq: Int64, wanted: Int64) -> tuple[Int32, npt.NDArray[np.bool_]]:
    """(the place of each of ``wanted`` in the ascending ``seq``, whether it is there)."""
    if not len(seq):
        return np.zeros(len(wanted), np.int32), np.zeros(len(wanted), np.bool_)
    place, there = places(seq, wanted)
    return place.astype(np.int32), there
