"""An outage of Redis in a long run: event by event, by a slice of the events that stands for all."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import DROPS
from dualstream_lab.simulation.engine.outcome import Case, Outcome, bin_of
from dualstream_lab.simulation.engine.redis_shard import Notified
from dualstream_lab.simulation.engine.stations import Setup, by_publisher, notify_shard, receive
from dualstream_lab.simulation.kernels import Counts, Floats, Integers, kernel
from dualstream_lab.simulation.outages import united

DROPPED: Final = tuple(f"dropped: {why}" for why in DROPS)  # the counts of those that were given up
LEAD: Final = 1  # seconds that are simulated before the tile, until everything has warmed up
_SETTLES: Final = 5.0  # s after an outage in which everything must be as before
_LATE: Final = 1.0  # s from the ack that nothing is, once it is over
_LIVE: Final = ("live", "live_raw", "live_delay")


class Slice(NamedTuple):
    """The events of a tile that stand for all of it: notifier by notifier, by the time of their ack."""

    event: Integers  # its place in the tile
    acked: Floats  # s from the tile's begin
    waited: Floats  # s from intended to acked
    flown: Floats  # s from sent to acked
    weight: Integers  # how many events it stands for
    bounds: Integers  # where each notifier's events begin


class Window(NamedTuple):
    """The tiles around an outage, event by event."""

    first: int  # its first tile
    last: int  # the tile after its last one
    events: Notified
    delivered: Floats  # when clients have each event live; s of the plan, NaN for never
    utilization: Floats  # of the shard, by second of the run
    queued: Integers  # by second of the run, the longest queue
    resyncs: int  # announcements of what was dropped


def slice_of(case: Case, short: Outcome, rows: Integers, length: int) -> Slice:
    """Choose the events of a tile that stand for all: of s shards, every s-th one. ``short``: the run that
    has the tile of ``length`` s; ``rows``: the places of the tile's events in it.
    """
    deployment, count = case.deployment, len(rows)
    whole = count // deployment.shards * deployment.shards
    event = np.concatenate([np.arange(0, whole, deployment.shards), np.arange(whole, count)])
    publisher = rows[event] // case.workload.batch % deployment.publishers
    place = np.mod(short.acked[rows[event]] - LEAD, length)
    order, bounds = by_publisher(publisher, place, deployment.publishers)
    event = event[order]
    acked = short.acked[rows[event]]
    return Slice(
        event=event, acked=place[order], waited=acked - short.intended[rows[event]],
        flown=acked - short.sent[rows[event]], weight=np.where(event < whole, deployment.shards, 1),
        bounds=bounds,
    )  # fmt: skip


def spans_of(setup: Setup, length: int, repeats: int) -> list[tuple[int, int]]:
    """(begin, end): of outages, in tiles, with what comes before and after."""
    redis = setup.outages.redis
    spans = np.concatenate([redis.down, redis.mute, redis.slow[:, :2], redis.refusing, setup.draws.away])
    around = united(
        (np.floor(begin / length) - 1, np.ceil((end + _SETTLES) / length)) for begin, end in spans
    )
    found = [(max(0, int(begin)), min(repeats, int(end))) for begin, end in around]
    return [(begin, end) for begin, end in found if begin < end]


def window_of(setup: Setup, slice_: Slice, length: int, first: int, last: int, repeats: int) -> Window:
    """Everything from tile ``first`` on to tile ``last``, event by event."""
    turns, shards = np.arange(first, last) * float(length), setup.deployment.shards
    parts = [
        np.add.outer(turns, slice_.acked[begin:end]).ravel()
        for begin, end in pairwise(slice_.bounds.tolist())
    ]
    who, utilization = notify_shard(setup, 0, np.concatenate(parts), slice_.bounds * len(turns))
    live, recovered, _ = receive(
        setup, who.events.acked, who.events.delivered, who.events.recovered, stands_for=shards
    )
    events, resyncs = who.events._replace(recovered=recovered), int(who.notifiers["resyncs"].sum()) * shards
    slow = ~(live - events.acked < _LATE) & bool(setup.deployment.receivers)
    if last < repeats and np.any(events.acked[slow] >= last * length - 1):
        raise ConfigError(
            f"faults: the deployment has not got over Redis's {_SETTLES:g} s after its outage: add shards, "
            "or take a shorter run"
        )
    return Window(first, last, events, live, utilization, who.queued, resyncs)


@kernel
def _count(
    window: Window, slice_: Slice, end: int, moved: int, into: tuple[Counts, Counts, Counts], counts: Integers
) -> int:
    """Add the events of a window to ``into``, its live latencies as in ``_LIVE``, and to ``counts``,
    (seconds, 2 + reasons): delivered live, by repair, dropped. The number of those that were not.

    What comes after ``end``, the window's, is counted ``moved`` s before.
    """
    events, never = window.events, 0
    for one in range(len(events.bounds) - 1):
        size = slice_.bounds[one + 1] - slice_.bounds[one]
        for place in range(events.bounds[one], events.bounds[one + 1]):
            alike = slice_.bounds[one] + (place - events.bounds[one]) % size
            many = slice_.weight[alike]
            at, column = window.delivered[place], 0
            if np.isnan(at):
                at, column = events.recovered[place], 1
            if np.isnan(at):
                never += many
            else:
                second = int(at) - (moved if at >= end else 0)
                delay = at - events.acked[place]
                into[0][second, bin_of(delay + slice_.waited[alike])] += many
                into[1][second, bin_of(delay + slice_.flown[alike])] += many
                into[2][second, bin_of(delay)] += many
                counts[second, column] += many
            if events.reason[place] >= 0:
                dropped = events.dropped[place]
                counts[int(dropped) - (moved if dropped >= end else 0), 2 + events.reason[place]] += many
    return never


def put(
    window: Window, slice_: Slice, length: int, repeats: int, counts: dict[str, Integers],
    latencies: dict[str, Counts],
) -> int:  # fmt: skip
    """Count its events in the place of those of its tiles; how many are missing."""
    begin, end = window.first * length, window.last * length
    live, raw, delay = (latencies[name] for name in _LIVE)
    for table in (live, raw, delay, counts["delivered"]):
        table[begin:end] = 0
    table = np.zeros((len(counts["sent"]), 2 + len(DROPS)), np.int64)
    # The last events of a tile are delivered in the next one: in a window, as in a tile, in its first second.
    moved = end - begin if window.last < repeats else 0
    never = _count(window, slice_, end, moved, (live, raw, delay), table)
    for column, counted in enumerate(("delivered", "caught_up", *DROPPED)):
        counts[counted] += table[:, column]
    return never


def fates(rows: Outcome, window: Window, slice_: Slice, length: int, shards: int, size: int) -> None:
    """In an outage a row has the fate of the event that stands for it. ``size``: events of a tile."""
    events = window.events
    inside = np.flatnonzero((rows.acked >= window.first * length) & (rows.acked < window.last * length))
    event = rows.seq[inside] % size
    turn = np.empty(size, np.int64)
    turn[slice_.event] = np.arange(len(slice_.event))
    alike = turn[np.where(event < size // shards * shards, event // shards * shards, event)]
    notifier = np.searchsorted(slice_.bounds, alike, side="right") - 1
    turns = (rows.acked[inside] // length).astype(np.int64) - window.first
    there = events.bounds[notifier] + turns * np.diff(slice_.bounds)[notifier]
    there += alike - slice_.bounds[notifier]
    delay = rows.acked[inside] - events.acked[there]
    live, recovered = window.delivered[there] + delay, events.recovered[there] + delay
    rows.delivered[inside] = np.where(np.isnan(live), recovered, live)
    rows.recovered[inside] = np.isnan(live) & ~np.isnan(recovered)
    rows.dropped[inside] = events.dropped[there] + delay
    rows.reason[inside] = events.reason[there]
