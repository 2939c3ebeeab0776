"""How a run got over each fault: when it showed, what it stopped, what piled up, when it was over. Pure.

A path is a series of events with a begin and an end: publishing (intended to acknowledged), live (intended to
delivered to the first) and the Kafka consumer (acknowledged to read). "Before": the ten seconds before the
fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from dualstream_lab.recording import FaultRecord
from dualstream_lab.recording.rows import Floats, Int64

PATHS: Final = ("publish", "live", "consumer")
_SECOND: Final = 1_000_000_000
_BEFORE: Final = 10 * _SECOND
_GRID: Final = 10_000_000  # ns between two looks at what has piled up
_NOTICED: Final = 50_000_000  # ns: a shorter silence is none
_BUCKET: Final = _SECOND // 10  # at least, and wide enough for a hundred events
_STEADY: Final = 5  # buckets in a row that must be as before
_TIMES: Final = 2.0  # as slow, or as long unavailable, as at worst before: then it is a sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One path through one fault. None: it did not happen before the next fault or the end.

    ``unavailable``: s of the longest stretch without an event's end, 0 where it was none to speak of.
    ``again``: s from the fault's end to the end of that stretch. ``backlog``: events that were open at worst.
    ``drain``: events/s at which they became fewer. ``back``: s from the fault's end until p99 was within
    ``normal``, ms: its spread before. ``slow_at``: when the first event was twice as late as any before, ns.
    """

    unavailable: float = 0.0
    again: float | None = 0.0
    backlog: int = 0
    drain: float | None = None
    back: float | None = None
    normal: float | None = None
    slow_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How a run got over one fault.

    ``begin``: s of the run; ``lasted``: s, None if it has no end; ``detected``: s from its begin to the first
    ``sign`` of it, None where there was none. ``bite``, ``over``: the fault's own evidence.
    """

    fault: str
    begin: float
    lasted: float | None
    detected: float | None
    sign: str
    publish: Path | None
    live: Path | None
    consumer: Path | None
    bite: str = ""
    over: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Make a dictionary that JSON takes."""
        values = asdict(self)
        for path in PATHS:
            if values[path] is not None:
                values[path].pop("slow_at")
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The events of a path, by when each began and ended (ns); ``end`` 0: never."""

    begin: Int64
    end: Int64


def grade_all(
    faults: Sequence[FaultRecord], paths: Mapping[str, Series], signs: Sequence[tuple[int, str]], *,
    zero: int, ended: int, sample: int = 1,
) -> list[Recovery]:  # fmt: skip
    """Grade every fault of a run. ``paths``: ``publish``, ``live`` and ``consumer``, as far as there are any.
    ``signs``: (when, what) from elsewhere. ``zero``, ``ended``: the run's. ``sample``: as recorded.
    """
    begins = sorted(fault.begin for fault in faults)
    found = []
    for fault in sorted(faults, key=lambda fault: fault.begin):
        since = max([zero, *(other.end for other in faults if 0 < other.end <= fault.begin)])
        until = next((begin for begin in begins if begin > fault.begin), ended)
        graded = {
            name: grade(series, fault.begin, fault.end or until, since=since, until=until, sample=sample)
            for name, series in paths.items()
        }
        found.append(_recovery(fault, graded, signs, zero=zero, until=until))
    return found


def _recovery(
    fault: FaultRecord, paths: Mapping[str, Path | None], signs: Sequence[tuple[int, str]], *,
    zero: int, until: int,
) -> Recovery:  # fmt: skip
    seen = list(signs)
    for name, what in (("publish", "a publish was slow"), ("live", "a notification was slow or missing")):
        path = paths.get(name)
        if path is not None and path.slow_at is not None:
            seen.append((path.slow_at, what))
    at, sign = min((each for each in seen if fault.begin <= each[0] < until), default=(0, ""))
    return Recovery(
        fault=fault.name, begin=(fault.begin - zero) / 1e9, bite=fault.bite, over=fault.over,
        lasted=(fault.end - fault.begin) / 1e9 if fault.end else None,
        detected=(at - fault.begin) / 1e9 if sign else None, sign=sign,
        publish=paths.get("publish"), live=paths.get("live"), consumer=paths.get("consumer"),
    )  # fmt: skip


def grade(series: Series, fault: int, over: int, *, since: int, until: int, sample: int = 1) -> Path | None:
    """Grade one path through a fault from ``fault`` to ``over`` (ns), looked at from ``since`` to ``until``.

    None where it had no events.
    """
    begin, end = series.begin, series.end
    since = max(since, fault - _BEFORE)
    if np.any(begin[1:] < begin[:-1]):
        order = np.argsort(begin, kind="stable")
        begin, end = begin[order], end[order]
    among = slice(*np.searchsorted(begin, (since, until)))
    begin, end = begin[among], end[among]
    if not len(begin):
        return None
    until = min(until, int(begin[-1]))  # nothing is due after the last one
    ends = np.sort(end[end > 0])
    unavailable, again = _silence(ends, fault, over, since, until)
    backlog, drain = _backlog(begin[end > 0], ends, fault, since, until)
    width = max(_BUCKET, round(100 * (until - since) / len(begin)))
    spent = np.where(end > 0, end - begin, np.inf)
    quiet = [p99 for p99 in _p99s(begin, spent, since, fault - width, width) if math.isfinite(p99)]
    normal = max(quiet, default=None)
    before = spent[(begin >= since) & (begin < fault) & (end > 0) & (end <= fault)]
    slow = _first_slow(begin, spent, fault, float(before.max())) if len(before) else None
    return Path(
        unavailable=unavailable, again=again, backlog=backlog * sample,
        drain=None if drain is None else drain * sample,
        back=None if normal is None else _back(_p99s(begin, spent, over, until, width), normal, width),
        normal=None if normal is None else normal / 1e6, slow_at=slow,
    )  # fmt: skip


def _silence(ends: Int64, fault: int, over: int, since: int, until: int) -> tuple[float, float | None]:
    """Find (s of the longest silence, s from the fault's end to its end)."""
    inside = ends[(ends >= since) & (ends <= until)]
    next_ = ends[ends > until][:1]
    before = int(np.searchsorted(inside, fault, side="right"))
    usual = int(np.diff(inside[:before]).max(initial=0))
    first = inside[max(0, before - 1) :] if before else np.concatenate([[fault], inside])
    marks = np.concatenate([first, next_ if len(next_) else [until]])
    gaps = np.diff(marks)
    place = int(gaps.argmax())
    longest = int(gaps[place])
    if longest <= max(_TIMES * usual, _NOTICED):
        return 0.0, 0.0
    never = place == len(gaps) - 1 and not len(next_)
    return longest / 1e9, None if never else max(0.0, (int(marks[place + 1]) - over) / 1e9)


def _backlog(begins: Int64, ends: Int64, fault: int, since: int, until: int) -> tuple[int, float | None]:
    """Find (events that were open at worst, events/s at which these became fewer). What never ended is not
    open.
    """

    def opened(first: int, last: int) -> tuple[Int64, Int64]:
        at = np.arange(first, max(last, first) + _GRID, _GRID)
        return at, np.searchsorted(begins, at, side="right") - np.searchsorted(ends, at, side="right")

    usual = int(opened(since, fault - _GRID)[1].max()) if since < fault else 0
    at, level = opened(fault, max(until, int(ends[-1]) if len(ends) else 0))
    worst = int(level.argmax())
    peak = int(level[worst])
    low = np.flatnonzero(level[worst:] <= usual)
    if peak <= _TIMES * usual or not len(low):
        return peak, None
    drained = worst + int(low[0])
    return peak, (peak - int(level[drained])) / ((int(at[drained]) - int(at[worst])) / 1e9)


def _p99s(begin: Int64, spent: Floats, first: int, last: int, width: int) -> Iterator[float]:
    """Find the p99 of the events that began in each bucket; NaN of none."""
    edges = np.searchsorted(begin, np.arange(first, last + 1, width))
    for low, high in pairwise(edges.tolist()):
        rank = max(1, math.ceil(0.99 * (high - low))) - 1
        yield float(np.partition(spent[low:high], rank)[rank]) if high > low else math.nan


def _first_slow(begin: Int64, spent: Floats, fault: int, slowest: float) -> int | None:
    """Find when it showed that an event was late: twice as slow as the slowest before the fault."""
    limit = int(_TIMES * slowest)
    late = begin[(spent > limit) & (begin + limit >= fault)]
    return int(late.min()) + limit if len(late) else None


def _back(p99s: Iterable[float], normal: float, width: int) -> float | None:
    """Find the s until the first of some normal buckets in a row; those without events do not count."""
    first, steady = 0, 0
    for place, p99 in enumerate(p99s):
        if p99 <= normal:
            first = first if steady else place
            steady += 1
            if steady == _STEADY:
                break
        elif not math.isnan(p99):
            steady = 0
    return first * width / 1e9 if steady else None
