"""A long run of one rate from a short one: what nothing disturbs is simulated once, and comes again.

What is taken for alike:

- **Time.** A tile of some seconds, of all publishers, brokers and shards, is simulated event by event, once;
  every other tile is the same, with its chance and its pauses. An event belongs to the tile of its ack.
- **Shards.** An outage of Redis is simulated from before its begin until everything is as before, event by
  event, all notifiers, for one shard that gets every s-th event of s shards; it stands for the others. So
  shards with unequal shares (few sources, a hot one) are not told apart in an outage; in the tile they are.

Publishing and the consumer do not notice what happens to Redis, so an outage does not change them. All counts
add up to the plan's.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.bins import EDGES, LATENCIES, Bins, bin_of, tally
from dualstream_lab.simulation.compiled import kernel
from dualstream_lab.simulation.outages import united
from dualstream_lab.simulation.pipeline import fan_out, joined_of, tell

if TYPE_CHECKING:
    import numpy.typing as npt

    from dualstream_lab.simulation.model import Case, Outcome
    from dualstream_lab.simulation.pipeline import Circumstances
    from dualstream_lab.simulation.shard import Joined

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Counts = npt.NDArray[np.uint32]

__all__ = ["LEAD", "repeat", "tile_length"]

LEAD: Final = 1  # s that are simulated before the tile, until everything has warmed up
_EVENTS: Final = 2_000_000  # of a tile, about
_SETTLES: Final = 5.0  # s after an outage, at first
_LATE: Final = 1.0  # s from the ack that nothing is, once it is over
_WORSE: Final = 1.5  # times as late at the end of a tile as at its begin: then it does not keep up
_ROWS: Final = 50_000
_LIVE: Final = ("live", "live_raw", "live_delay")
_TIMES: Final = ("intended", "sent", "acked", "logged", "consumed", "heard")
_NONE: Final = ("rejected", "unknown", "no_room", "caught_up")
_ALWAYS: Final = ("sent", "durable", "heard", "consumed", *_NONE)


def tile_length(case: Case) -> int:
    """Seconds of the tile. Raises ConfigError for a run that is no repetition of one."""
    work = case.workload
    total = f"a run of {work.expected:,} events, too many for a row each,"
    if work.plan != "constant":
        raise ConfigError(f"plan: {total} must be constant (is {work.plan})")
    if work.duration != int(work.duration) or work.duration < LEAD:
        raise ConfigError(f"duration: {total} must last whole seconds (is {work.duration:g})")
    for fault in case.faults:
        if fault.what.startswith(("kafka", "net.kafka")):
            raise ConfigError(f"faults: {total} can have those of Redis only (has {fault.what})")
    longest = max(1, int(_EVENTS / work.rate))
    for length in range(min(longest, int(work.duration)), 0, -1):
        calls = work.rate / work.batch * length
        if work.duration % length == 0 and abs(calls - round(calls)) < 1e-9:
            return length
    raise ConfigError(f"rate: {total} must have whole calls a second (has {work.rate / work.batch:g})")


class _Slice(NamedTuple):
    """The events of a tile that stand for all: notifier by notifier (``bounds``), by the time of their ack
    within the tile. ``event``: its place in the tile; ``acked``: from the tile's begin; ``waited``,
    ``flown``: from intended and from sent to the ack; ``weight``: how many it stands for.
    """

    event: Integers
    acked: Floats
    waited: Floats
    flown: Floats
    weight: Integers
    bounds: Integers


class _Window(NamedTuple):
    """An outage. ``first``, ``last``: its first tile, and the one after it; ``heard``: live, by clients;
    ``busy``, ``queued``: of the shard, by second of the run.
    """

    first: int
    last: int
    joined: Joined
    heard: Floats
    busy: Floats
    queued: Integers
    resyncs: int


def repeat(case: Case, where: Circumstances, short: Outcome, length: int) -> Bins:
    """The whole run. ``where``: its circumstances; ``short``: a run of ``LEAD + length`` s without faults.

    Raises ConfigError where the deployment does not keep up with the rate.
    """
    its = np.flatnonzero((short.intended >= LEAD) & (short.intended < LEAD + length))
    _check(short, its)
    tiles = int(case.workload.duration) // length
    slice_ = _slice(case, short, its, length)
    windows = [_window(where, slice_, length, *span, tiles) for span in _spans(where, length, tiles)]
    seconds = tiles * length
    for window in windows:
        ends = (window.heard, window.joined.late, window.joined.dropped)
        seconds = max(seconds, *(int(np.nanmax(end, initial=0.0)) + 1 for end in ends))
    whole = _Whole(length, tiles, seconds)
    times = {name: _folded(getattr(short, name)[its], length) for name in _TIMES}
    counts = {
        name: whole.of(np.bincount(times[by].astype(np.int64), minlength=length))
        for name, by in (("sent", "sent"), ("durable", "acked"), ("heard", "heard"), ("consumed", "consumed"))
    }
    counts |= {name: np.zeros(seconds, np.int64) for name in (*_NONE, *_dropped_names())}
    latencies = {}
    for name, (begin, end) in LATENCIES.items():
        tile = np.zeros((length, len(EDGES) - 1), np.uint32)
        spent = getattr(short, end)[its] - getattr(short, begin)[its]
        tally(tile, times[end] - spent, times[end], 1)
        latencies[name] = whole.of(tile)
    levels = {name: whole.of(level) for name, level in _levels(short, length).items()}
    busy = {name: whole.of(values[:, LEAD : LEAD + length].T).T for name, values in short.busy.items()}
    never = {"live": "heard", "durable": "consumed"}
    missing = {name: int(np.isnan(getattr(short, end)[its]).sum()) * tiles for name, end in never.items()}
    for window in windows:
        missing["live"] += _put(window, slice_, length, tiles, counts, latencies)
        stretch = slice(window.first * length, window.last * length)
        busy["shard"][:, stretch] = window.busy[stretch]
        notifiers = case.deployment.publishers * case.deployment.shards
        levels["queued"][stretch] = window.queued[stretch] * notifiers
    rows, every = _rows(case, where, short, its, slice_, windows, length)
    return Bins(
        counts={name: count for name, count in counts.items() if count.any() or name in _ALWAYS},
        latencies=latencies, missing=missing, levels=levels, busy=busy, rows=rows, every=every,
    )  # fmt: skip


class _Whole(NamedTuple):
    """A tile's seconds, again and again; then nothing."""

    length: int
    tiles: int
    seconds: int

    def of(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        made = np.zeros((self.seconds, *values.shape[1:]), values.dtype)
        shape = (self.tiles, self.length, *values.shape[1:])
        made[: self.tiles * self.length].reshape(shape)[:] = values
        return made


def _check(short: Outcome, its: Integers) -> None:
    """Whether it keeps up."""
    third = len(its) // 3
    for begin, end, what in (
        ("intended", "acked", "publishers or brokers"),
        ("acked", "heard", "shards or gateways"),
        ("logged", "consumed", "consumers"),
    ):
        wait = getattr(short, end)[its] - getattr(short, begin)[its]
        if np.isnan(wait).all() and end != "acked":  # nobody listens
            continue
        late = np.median(wait[-third:]) > _WORSE * np.median(wait[:third]) + 1e-3
        if late or np.isnan(wait).any():
            raise ConfigError(
                f"rate: {what} of this deployment do not keep up with it; so many events are simulated only "
                "where they do: add some, or take a shorter run"
            )


def _folded(times: Floats, length: int) -> Floats:
    """Within the tile; what never happened is left out."""
    return np.asarray(np.mod(times[~np.isnan(times)] - LEAD, length))


def _levels(short: Outcome, length: int) -> dict[str, Integers]:
    """At the end of each second of the tile."""
    at = LEAD + 1.0 + np.arange(length)

    def passed(times: Floats) -> Integers:
        return np.searchsorted(np.sort(times), at, side="right")  # NaN is last

    return {
        "buffered": passed(short.entered) - passed(short.settled),
        "lag": passed(short.logged) - passed(short.consumed),
        "queued": np.zeros(length, np.int64),
    }


# Outages


def _slice(case: Case, short: Outcome, its: Integers, length: int) -> _Slice:
    shards, count = case.deployment.shards, len(its)
    whole = count // shards * shards
    event = np.concatenate([np.arange(0, whole, shards), np.arange(whole, count)])
    acked = short.acked[its[event]]
    publisher = its[event] // case.workload.batch % case.deployment.publishers
    place = np.mod(acked - LEAD, length)
    order = np.lexsort((place, publisher))
    event, acked = event[order], acked[order]
    return _Slice(
        event=event,
        acked=place[order],
        waited=acked - short.intended[its[event]],
        flown=acked - short.sent[its[event]],
        weight=np.where(event < whole, shards, 1),
        bounds=np.searchsorted(publisher[order], np.arange(case.deployment.publishers + 1)),
    )


def _spans(where: Circumstances, length: int, tiles: int) -> list[tuple[int, int]]:
    """(begin, end): of outages, in tiles, with what comes before and after."""
    redis = where.outages.redis
    spans = np.concatenate([redis.down, redis.mute, redis.slow[:, :2], where.draws.away])
    around = united(
        (np.floor(begin / length) - 1, np.ceil((end + _SETTLES) / length)) for begin, end in spans
    )
    found = [(max(0, int(begin)), min(tiles, int(end))) for begin, end in around]
    return [(begin, end) for begin, end in found if begin < end]


def _window(where: Circumstances, slice_: _Slice, length: int, first: int, last: int, tiles: int) -> _Window:
    """Everything from tile ``first`` on to tile ``last``, event by event."""
    turns = np.arange(first, last) * float(length)
    parts = [
        np.add.outer(turns, slice_.acked[begin:end]).ravel()
        for begin, end in pairwise(slice_.bounds.tolist())
    ]
    joined = joined_of(np.concatenate(parts), slice_.bounds * len(turns))
    told = tell(where, 0, joined)
    shards = where.deployment.shards
    heard, _ = fan_out(where, joined.heard, stands_for=shards)
    window = _Window(first, last, joined, heard, told.busy, told.queued, told.resyncs * shards)
    late = ~(joined.heard - joined.acked < _LATE) & bool(where.deployment.subscribers)
    if last < tiles and np.any(joined.acked[late] >= last * length - 1):
        raise ConfigError(
            f"faults: the deployment has not got over Redis's {_SETTLES:g} s after its outage: add shards, "
            "or take a shorter run"
        )
    return window


@kernel
def _count(
    begins: Integers, tile: Integers, waited: Floats, weight: Integers, acked: Floats, heard: Floats,
    late: Floats, dropped: Floats, reason: npt.NDArray[np.int8], limits: Integers, into: Counts,
    counts: Integers,
) -> int:  # fmt: skip
    """Add the events of a window to ``into``, latencies, and to ``counts``, (seconds, 2 + reasons): heard
    live, by repair, dropped. The number of those that were never heard.

    ``begins``, ``tile``: of each notifier, in the window and in the slice. ``limits``: the window's first
    second and its end, and where what comes after the end is counted: less so many seconds.
    """
    never = 0
    for one in range(len(begins) - 1):
        size = tile[one + 1] - tile[one]
        for place in range(begins[one], begins[one + 1]):
            mine = tile[one] + (place - begins[one]) % size
            many = weight[mine]
            at = heard[place]
            column = 0
            if np.isnan(at):
                at, column = late[place], 1
            if np.isnan(at):
                never += many
            else:
                second = int(at)
                if second >= limits[1]:
                    second -= limits[2]
                into[second, bin_of(at - acked[place] + waited[mine])] += many
                counts[second, column] += many
            if reason[place] >= 0 and counts.shape[1] > 2:
                second = int(dropped[place])
                if second >= limits[1]:
                    second -= limits[2]
                counts[second, 2 + reason[place]] += many
    return never


def _put(
    window: _Window, slice_: _Slice, length: int, tiles: int, counts: dict[str, Integers],
    latencies: dict[str, Counts],
) -> int:  # fmt: skip
    """Count its events in the place of those of its tiles; how many were never heard."""
    begin, end = window.first * length, window.last * length
    # The last events of a tile are heard in the next one: in a window, as in a tile, in its first second.
    limits = np.array([begin, end, end - begin if window.last < tiles else 0])
    joined = window.joined
    seconds = len(counts["sent"])
    never = 0
    for name, waited in zip(_LIVE, (slice_.waited, slice_.flown, np.zeros(len(slice_.acked))), strict=True):
        latencies[name][begin:end] = 0
        table = np.zeros((seconds, 2 + (len(DROPS) if name == "live" else 0)), np.int64)
        never = _count(
            joined.bounds, slice_.bounds, waited, slice_.weight, joined.acked, window.heard, joined.late,
            joined.dropped, joined.reason, limits, latencies[name], table,
        )  # fmt: skip
        if name == "live":
            counts["heard"][begin:end] = 0
            for column, counted in enumerate(("heard", "caught_up", *_dropped_names())):
                counts[counted] += table[:, column]
    return never


# Rows of a sample


def _rows(
    case: Case, where: Circumstances, short: Outcome, its: Integers, slice_: _Slice,
    windows: list[_Window], length: int,
) -> tuple[Outcome, int]:  # fmt: skip
    """(rows, one in how many). In an outage an event has the fate of the one that stands for it."""
    size = len(its)
    total = size * (int(case.workload.duration) // length)
    every = max(1, total // _ROWS)
    seq = np.arange(0, total - every + 1, every)
    seq += np.random.default_rng(case.seed).integers(0, every, len(seq))
    tile, event = seq // size, seq % size
    place = its[event]
    moved = {name: getattr(short, name)[place] - LEAD + tile * length for name in (*_TIMES, "entered")}
    log = np.bincount(short.partition[its], minlength=case.deployment.partitions)
    rows = replace(
        short, case=case, seq=seq, **moved, settled=moved["acked"].copy(),
        **{name: getattr(short, name)[place] for name in ("outcome", "source", "size", "partition")},
        offset=short.offset[place] + tile * log[short.partition[place]],
        late=np.zeros(len(seq), np.bool_), dropped=np.full(len(seq), np.nan),
        reason=np.full(len(seq), -1, np.int8), busy={}, resyncs=sum(one.resyncs for one in windows),
        away=tuple(
            (shard, begin, end)
            for shard in range(case.deployment.shards)
            for begin, end in where.draws.away.tolist()
        ),
    )  # fmt: skip
    shards = case.deployment.shards
    turn = np.empty(size, np.int64)
    turn[slice_.event] = np.arange(len(slice_.event))
    mine = turn[np.where(event < size // shards * shards, event // shards * shards, event)]
    notifier = np.searchsorted(slice_.bounds, mine, side="right") - 1
    for window in windows:
        inside = np.flatnonzero((rows.acked >= window.first * length) & (rows.acked < window.last * length))
        sizes = np.diff(slice_.bounds)[notifier[inside]]
        turns = (rows.acked[inside] // length).astype(np.int64) - window.first
        begin = window.joined.bounds[notifier[inside]]
        there = begin + turns * sizes + mine[inside] - slice_.bounds[notifier[inside]]
        delay = rows.acked[inside] - window.joined.acked[there]
        live, late = window.heard[there] + delay, window.joined.late[there] + delay
        rows.heard[inside] = np.where(np.isnan(live), late, live)
        rows.late[inside] = np.isnan(live) & ~np.isnan(late)
        rows.dropped[inside] = window.joined.dropped[there] + delay
        rows.reason[inside] = window.joined.reason[there]
    return rows, every


def _dropped_names() -> tuple[str, ...]:
    return tuple(f"dropped: {why}" for why in DROPS)
