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
from typing import Final

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.analytic.capacity import capacity, traffic_of
from dualstream_lab.simulation.engine import long_run_outage as outage
from dualstream_lab.simulation.engine.outcome import EDGES, LATENCIES, Bins, Case, Outcome, tally
from dualstream_lab.simulation.engine.stations import Setup
from dualstream_lab.simulation.kernels import Array, Floats, Integers

_EVENTS: Final = 1_000_000  # of a tile, about
_OUTAGES: Final = 40_000_000  # events that stand for all in outages: 1.3 GB
_WORSE: Final = 1.5  # times as late at the end of a tile as at its begin: then it does not keep up
_ROWS: Final = 50_000
_TIMES: Final = ("intended", "sent", "acked", "logged", "consumed", "delivered", "entered")
_NONE: Final = ("rejected", "unknown", "no_room", "caught_up")
_ALWAYS: Final = ("sent", "durable", "delivered", "consumed", *_NONE)


def tile_length(case: Case) -> int:
    """Seconds of the tile. Raises ConfigError for a run that is no repetition of one."""
    work = case.workload
    total = f"a run of {work.expected:,} events, too many for a row each,"
    if work.plan != "constant":
        raise ConfigError(f"plan: {total} must be constant (is {work.plan})")
    if work.duration != int(work.duration) or work.duration < outage.LEAD:
        raise ConfigError(f"duration: {total} must last whole seconds (is {work.duration:g})")
    for fault in case.faults:
        if fault.name.startswith(("kafka", "net.kafka")):
            raise ConfigError(f"faults: {total} can have those of Redis only (has {fault.name})")
    longest = max(1, int(_EVENTS / work.rate))
    for length in range(min(longest, int(work.duration)), 0, -1):
        calls = work.rate / work.batch * length
        if work.duration % length == 0 and abs(calls - round(calls)) < 1e-9:
            return length
    raise ConfigError(f"rate: {total} must have whole calls a second (has {work.rate / work.batch:g})")


def repeat(case: Case, setup: Setup, short: Outcome, length: int) -> Bins:
    """The whole run. ``short``: a run of ``LEAD + length`` s without faults.

    Raises ConfigError where the deployment does not keep up with the rate.
    """
    rows = np.flatnonzero((short.intended >= outage.LEAD) & (short.intended < outage.LEAD + length))
    _check(case, short, rows)
    repeats, size, shards = int(case.workload.duration) // length, len(rows), case.deployment.shards
    tile, slice_ = _tile(case, setup, short, rows, length), outage.slice_of(case, short, rows, length)
    del short, rows  # half of all memory
    spans = outage.spans_of(setup, length, repeats)
    _check_spans(spans, length, len(slice_.event))
    windows = [outage.window_of(setup, slice_, length, *span, repeats) for span in spans]
    seconds = repeats * length
    for window in windows:
        ends = (window.delivered, window.events.recovered, window.events.dropped)
        seconds = max(seconds, *(int(np.nanmax(end, initial=0.0)) + 1 for end in ends))

    def whole(values: Array) -> Array:
        """A tile's seconds, again and again; then nothing."""
        run = np.zeros((seconds, *values.shape[1:]), values.dtype)
        run[: repeats * length].reshape((repeats, length, *values.shape[1:]))[:] = values
        return run

    counts = {name: whole(count) for name, count in tile.counts.items()}
    counts |= {name: np.zeros(seconds, np.int64) for name in (*_NONE, *outage.DROPPED)}
    latencies = {name: whole(table) for name, table in tile.latencies.items()}
    levels = {name: whole(level) for name, level in tile.levels.items()}
    utilization = {name: whole(values.T).T for name, values in tile.utilization.items()}
    missing = {name: count * repeats for name, count in tile.missing.items()}
    for window in windows:
        missing["live"] += outage.put(window, slice_, length, repeats, counts, latencies)
        stretch = slice(window.first * length, window.last * length)
        utilization["shard"][:, stretch] = window.utilization[stretch]
        levels["queued"][stretch] = window.queued[stretch] * (case.deployment.publishers * shards)
        outage.fates(tile.rows, window, slice_, length, shards, size)
    return replace(
        tile, counts={name: count for name, count in counts.items() if count.any() or name in _ALWAYS},
        latencies=latencies, missing=missing, levels=levels, utilization=utilization,
        rows=replace(tile.rows, resyncs=sum(window.resyncs for window in windows)),
    )  # fmt: skip


def _tile(case: Case, setup: Setup, short: Outcome, rows: Integers, length: int) -> Bins:
    """One of them. What ends after the tile is counted in its first seconds, as the tile before would end
    there. Rows, and how many they stand for: of the whole run, as it is without outages.
    """

    def seconds(name: str) -> Floats:
        times = getattr(short, name)[rows]
        return np.asarray(np.mod(times[~np.isnan(times)] - outage.LEAD, length))

    def passed(times: Floats) -> Integers:
        return np.array([np.count_nonzero(times <= outage.LEAD + 1 + second) for second in range(length)])

    latencies = {name: np.zeros((length, len(EDGES) - 1), np.uint32) for name in LATENCIES}
    for name, (begin, end) in LATENCIES.items():
        spent = getattr(short, end)[rows] - getattr(short, begin)[rows]
        tally(latencies[name], seconds(end) - spent[~np.isnan(spent)], seconds(end))
    ends = {"sent": "sent", "durable": "acked", "delivered": "delivered", "consumed": "consumed"}
    inside = slice(outage.LEAD, outage.LEAD + length)
    sample, every = _rows(case, setup, short, rows, length)
    return Bins(
        counts={n: np.bincount(seconds(end).astype(np.int64), minlength=length) for n, end in ends.items()},
        latencies=latencies,
        levels={
            "buffered": passed(short.entered) - passed(short.settled),
            "lag": passed(short.logged) - passed(short.consumed),
            "queued": np.zeros(length, np.int64),
        },
        utilization={name: values[:, inside].copy() for name, values in short.utilization.items()},
        missing={
            "live": int(np.isnan(short.delivered[rows]).sum()),
            "durable": int(np.isnan(short.consumed[rows]).sum()),
        },
        rows=sample, every=every,
    )  # fmt: skip


def _check_spans(spans: list[tuple[int, int]], length: int, events: int) -> None:
    """Raise ConfigError where outages do not fit in memory, with ``events`` of each tile."""
    lasts, most = length * sum(last - first for first, last in spans), length * (_OUTAGES // events)
    if lasts > most:
        raise ConfigError(
            f"faults: at this rate, with so many shards, outages of Redis can last {most:,} s together, with "
            f"some seconds before and after each (they last {lasts:,} s): shorten them, or add shards"
        )


def _check(case: Case, short: Outcome, rows: Integers) -> None:
    """Raise ConfigError where a part of the deployment does not keep up with the rate."""
    third = len(rows) // 3
    for begin, end, what in (
        ("intended", "acked", "publishers or brokers"),
        ("acked", "delivered", "shards or gateways"),
        ("logged", "consumed", "consumers"),
    ):
        wait = getattr(short, end)[rows] - getattr(short, begin)[rows]
        if np.isnan(wait).all() and end != "acked":  # nobody listens
            continue
        late = np.median(wait[-third:]) > _WORSE * np.median(wait[:third]) + 1e-3
        late |= end == "delivered" and short.recovered[rows].any()  # gateways lose their connections
        if late or np.isnan(wait).any():
            stations = capacity(traffic_of(case.workload), case.deployment, case.costs)
            loads = ", ".join(
                f"{name}s at {station.load:.0%} of their ceiling"
                for name, station in stations.items()
                if f"{name}s" in what
            )
            raise ConfigError(
                f"rate: {what} of this deployment do not keep up with it ({loads}); so many "
                "events are simulated only where they do: add some, or take a shorter run"
            )


def _rows(case: Case, setup: Setup, short: Outcome, rows: Integers, length: int) -> tuple[Outcome, int]:
    """(a sample of the run's events as they are without outages; it has one in how many)."""
    size = len(rows)
    total = size * (int(case.workload.duration) // length)
    every = max(1, total // _ROWS)
    seq = np.arange(0, total - every + 1, every)
    seq += np.random.default_rng(case.seed).integers(0, every, len(seq))
    tile, place = seq // size, rows[seq % size]
    moved = {name: getattr(short, name)[place] - outage.LEAD + tile * length for name in _TIMES}
    log = np.bincount(short.partition[rows], minlength=case.deployment.partitions)
    away = setup.draws.away.tolist()
    return replace(
        short, case=case, seq=seq, **moved, settled=moved["acked"].copy(),
        **{name: getattr(short, name)[place] for name in ("outcome", "source", "size", "partition")},
        offset=short.offset[place] + tile * log[short.partition[place]],
        recovered=np.zeros(len(seq), np.bool_), dropped=np.full(len(seq), np.nan),
        reason=np.full(len(seq), -1, np.int8), utilization={},
        away=tuple((shard, *span) for shard in range(case.deployment.shards) for span in away),
    ), every  # fmt: skip
