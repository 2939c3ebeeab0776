"""An outage of Redis in a long run: event by event, by a slice of the events that stands for all."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.engine.aggregates import bin_of
from dualstream_lab.simulation.engine.stations import fan_out, joined_of, repaired, tell
from dualstream_lab.simulation.kernels import kernel
from dualstream_lab.simulation.outages import united

if TYPE_CHECKING:
    import numpy.typing as npt

    from dualstream_lab.simulation.engine.redis_shard import Joined
    from dualstream_lab.simulation.engine.simulate import Case, Outcome
    from dualstream_lab.simulation.engine.stations import Circumstances

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Counts = npt.NDArray[np.uint32]

__all__ = ["DROPPED", "LEAD", "Slice", "Window", "fates", "put", "slice_of", "spans_of", "window_of"]

DROPPED: Final = tuple(f"dropped: {why}" for why in DROPS)
"""The counts of those that were given up."""

LEAD: Final = 1
"""Seconds that are simulated before the tile, until everything has warmed up."""

_SETTLES: Final = 5.0  # s after an outage in which everything must be as before
_LATE: Final = 1.0  # s from the ack that nothing is, once it is over
_LIVE: Final = ("live", "live_raw", "live_delay")


class Slice(NamedTuple):
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


class Window(NamedTuple):
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


def slice_of(case: Case, short: Outcome, its: Integers, length: int) -> Slice:
    """``short``: the run that has the tile of ``length`` s; ``its``: the places of the tile's events."""
    shards, count = case.deployment.shards, len(its)
    whole = count // shards * shards
    event = np.concatenate([np.arange(0, whole, shards), np.arange(whole, count)])
    acked = short.acked[its[event]]
    publisher = its[event] // case.workload.batch % case.deployment.publishers
    place = np.mod(acked - LEAD, length)
    order = np.lexsort((place, publisher))
    event, acked = event[order], acked[order]
    return Slice(
        event=event,
        acked=place[order],
        waited=acked - short.intended[its[event]],
        flown=acked - short.sent[its[event]],
        weight=np.where(event < whole, shards, 1),
        bounds=np.searchsorted(publisher[order], np.arange(case.deployment.publishers + 1)),
    )


def spans_of(where: Circumstances, length: int, tiles: int) -> list[tuple[int, int]]:
    """(begin, end): of outages, in tiles, with what comes before and after."""
    redis = where.outages.redis
    spans = np.concatenate([redis.down, redis.mute, redis.slow[:, :2], redis.refusing, where.draws.away])
    around = united(
        (np.floor(begin / length) - 1, np.ceil((end + _SETTLES) / length)) for begin, end in spans
    )
    found = [(max(0, int(begin)), min(tiles, int(end))) for begin, end in around]
    return [(begin, end) for begin, end in found if begin < end]


def window_of(where: Circumstances, slice_: Slice, length: int, first: int, last: int, tiles: int) -> Window:
    """Everything from tile ``first`` on to tile ``last``, event by event."""
    turns = np.arange(first, last) * float(length)
    parts = [
        np.add.outer(turns, slice_.acked[begin:end]).ravel()
        for begin, end in pairwise(slice_.bounds.tolist())
    ]
    joined = joined_of(np.concatenate(parts), slice_.bounds * len(turns))
    told = tell(where, 0, joined)
    shards = where.deployment.shards
    heard = fan_out(where, joined.heard, stands_for=shards)
    joined = joined._replace(late=repaired(where, joined.acked, heard, joined.late))
    window = Window(first, last, joined, heard.live, told.busy, told.queued, told.resyncs * shards)
    late = ~(window.heard - joined.acked < _LATE) & bool(where.deployment.receivers)
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


def put(
    window: Window, slice_: Slice, length: int, tiles: int, counts: dict[str, Integers],
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
            for column, counted in enumerate(("heard", "caught_up", *DROPPED)):
                counts[counted] += table[:, column]
    return never


def fates(rows: Outcome, window: Window, slice_: Slice, length: int, shards: int, size: int) -> None:
    """In an outage a row has the fate of the event that stands for it. ``size``: events of a tile."""
    inside = np.flatnonzero((rows.acked >= window.first * length) & (rows.acked < window.last * length))
    event = rows.seq[inside] % size
    turn = np.empty(size, np.int64)
    turn[slice_.event] = np.arange(len(slice_.event))
    mine = turn[np.where(event < size // shards * shards, event // shards * shards, event)]
    notifier = np.searchsorted(slice_.bounds, mine, side="right") - 1
    turns = (rows.acked[inside] // length).astype(np.int64) - window.first
    there = window.joined.bounds[notifier] + turns * np.diff(slice_.bounds)[notifier]
    there += mine - slice_.bounds[notifier]
    delay = rows.acked[inside] - window.joined.acked[there]
    live, late = window.heard[there] + delay, window.joined.late[there] + delay
    rows.heard[inside] = np.where(np.isnan(live), late, live)
    rows.late[inside] = np.isnan(live) & ~np.isnan(late)
    rows.dropped[inside] = window.joined.dropped[there] + delay
    rows.reason[inside] = window.joined.reason[there]
