"""A simulated run as a run directory: what judges, plots and reports real ones does the same with it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import (
    KINDS,
    Clocks,
    Ending,
    FaultRecord,
    Interval,
    IntervalWriter,
    LatencyHistogram,
    Manifest,
    RunDirectory,
)
from dualstream_lab.simulation.engine.aggregates import EDGES, Bins, binned
from dualstream_lab.simulation.outages import outages
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from dualstream_lab.simulation.engine.simulate import Case, Outcome

__all__ = ["record"]

_ZERO: Final = 1_000_000_000_000  # ns of the rows' clock at which the plan begins
_SECOND: Final = 1_000_000_000
_BEFORE, _AFTER = 1.0, 1.0  # s that the subscriber listens before the plan and after the last event
_HISTOGRAMS: Final = {
    "generator": ("publish", "publish_raw", "slip"),
    "redis": ("live", "live_raw", "live_delay"),
}
_INTERVALS: Final = 360  # of each process, about: their histograms are big
_MIDDLES: Final = (np.sqrt(EDGES[:-1] * EDGES[1:]) * 1e9).astype(np.int64)


def record(
    result: Outcome | Bins, root: Path, *, name: str = "simulated", thresholds: Sequence[str] = ()
) -> RunDirectory:
    """Write it below ``root``; the manifest's engine is ``simulation``. Its one subscriber stands for all.
    ``thresholds``: what a verdict of it is to check.

    Processes are named as in a real run: ``generator``, ``redis``, ``kafka``. The latencies of a run with a
    row an event are in the rows; of a sample, those of all events are in the intervals, as coarse as the
    bins. Raises ConfigError for a result that does not know its case, RecordingError where it cannot be
    written.
    """
    bins = result if isinstance(result, Bins) else binned(result)
    rows = bins.rows
    if rows.case is None:
        raise ConfigError("case: must be known for a run directory (is None)")
    run = uuid4()
    last = max(float(np.nanmax(at, initial=0.0)) for at in (rows.settled, rows.heard, rows.consumed))
    last = max(last, rows.case.workload.duration)
    path = RunDirectory.create(root, name)
    directory = RunDirectory(
        path,
        Manifest(
            name=name, run=str(run), ids=RunIds.of_run(run).prefix, engine="simulation",
            clocks=Clocks(monotonic=_ZERO, wall=time.time_ns()), workload=rows.case.workload.as_dict(),
            settings=_settings(rows.case), users={"lanes": _lanes(rows.case), "subscribers": 1},
            thresholds=list(thresholds), asked={"faults": [fault.as_dict() for fault in rows.case.faults]},
            faults=_faults(rows.case), sample=bins.every, started=_ZERO, ended=_ns(last), state="finished",
        ),
    )  # fmt: skip
    _write_rows(path, rows, last)
    _write_intervals(path, bins, rows.case)
    directory.save()
    return directory


def _settings(case: Case) -> dict[str, Any]:
    return {**asdict(case.deployment), "costs": asdict(case.costs), "seed": case.seed}


def _lanes(case: Case) -> int:
    """Calls that can be open: as there are callers; else as many as the buffers hold, and one more."""
    its = case.deployment
    return its.publishers * its.callers or its.publishers * its.buffer_events // case.workload.batch + 1


def _faults(case: Case) -> list[FaultRecord]:
    return [
        FaultRecord(what=fault.what, begin=_ns(begin), end=_ns(end), bite="simulated", over="simulated")
        for fault in case.faults
        for begin, end in fault.spans
    ]


def _ns(seconds: float) -> int:
    return _ZERO + round(seconds * 1e9)


def _times(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """ns; 0 for never."""
    there = ~np.isnan(seconds)
    times = np.zeros(len(seconds), np.int64)
    times[there] = np.round(seconds[there] * 1e9).astype(np.int64) + _ZERO
    return times


# Rows


def _write_rows(path: Path, rows: Outcome, last: float) -> None:
    seq, live = rows.seq, ~np.isnan(rows.heard) & ~rows.late
    _write(
        path, "published", "generator", seq=seq, intended=_times(rows.intended), sent=_times(rows.sent),
        acked=_times(rows.acked), outcome=rows.outcome, source=rows.source, size=rows.size,
    )  # fmt: skip
    subscribed = rows.case is not None and rows.case.deployment.receivers
    if subscribed:
        for kind, which in (("heard", live), ("caught_up", rows.late)):
            its = _in_order(rows.heard, which)
            late = {"late": np.ones(len(its))} if kind == "caught_up" else {}
            at = _times(rows.heard[its])
            _write(path, kind, "redis", seq=seq[its], at=at, subscriber=np.zeros(len(its)), **late)
        _write_listening(path, rows, last)
    if rows.case is not None and rows.case.deployment.consumers:
        its = _in_order(rows.consumed, ~np.isnan(rows.consumed))
        at = _times(rows.consumed[its])
        partition, offset = rows.partition[its], rows.offset[its]
        _write(path, "consumed", "kafka", seq=seq[its], at=at, partition=partition, offset=offset)
    its = _in_order(rows.dropped, rows.reason >= 0)
    at = _times(rows.dropped[its])
    _write(path, "dropped", "generator", seq=seq[its], at=at, reason=rows.reason[its])


def _write_listening(path: Path, rows: Outcome, last: float) -> None:
    away = [(begin, end) for shard, begin, end in rows.away if shard == 0 and begin < last + _AFTER]
    begins = np.array([-_BEFORE, *(end for _, end in away)])
    ends = np.array([*(begin for begin, _ in away), max(last, *begins) + _AFTER])
    why = np.full(len(begins), Ending.LOST)
    why[-1] = Ending.CLOSED
    zeros = np.zeros(len(begins), np.int64)
    _write(
        path, "listening", "redis", subscriber=zeros, source=zeros - 1, begin=_times(begins),
        end=_times(ends), why=why,
    )  # fmt: skip


def _in_order(times: npt.NDArray[np.float64], which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The places of ``which``, by time."""
    its = np.flatnonzero(which)
    return np.asarray(its[np.argsort(times[its], kind="stable")])


def _write(path: Path, kind: str, writer: str, **columns: npt.NDArray[Any]) -> None:
    """One part. Not a RowWriter, which drops rows rather than wait for the disk."""
    types = KINDS[kind]
    arrays = [pa.array(columns[name].astype(f"i{of.bit_width // 8}"), of) for name, of in types.items()]
    table = pa.Table.from_arrays(arrays, names=list(types))
    pq.write_table(table, path / f"{kind}-{writer}-00001.parquet", compression="lz4", use_dictionary=False)


# Intervals


def _write_intervals(path: Path, bins: Bins, case: Case) -> None:
    broken = outages(case.faults, case.deployment)
    up = {"redis": broken.redis, "kafka": broken.first_broker}
    away = {name: np.concatenate([modes.down, modes.mute]) for name, modes in up.items()}
    step = max(1, bins.seconds // _INTERVALS)
    for writer in ("generator", "redis", "kafka"):
        file = IntervalWriter(path, writer)
        for second in range(0, bins.seconds, step):
            stretch = slice(second, min(second + step, bins.seconds))
            counters, gauges = _COLLECT[writer](bins, case, stretch)
            if writer in away:
                gone = np.any((away[writer][:, 0] < stretch.stop) & (away[writer][:, 1] > second))
                gauges[f"{writer}.up"] = 0.0 if gone else 1.0
            file.write(
                Interval(
                    writer=writer, begin=_ns(second), end=_ns(stretch.stop),
                    counters={name: count for name, count in counters.items() if count}, gauges=gauges,
                    histograms=_histograms(bins, writer, stretch),
                )
            )  # fmt: skip
        file.close()


def _histograms(bins: Bins, writer: str, stretch: slice) -> dict[str, LatencyHistogram]:
    """Of the live path only where the rows are a sample: else the rows tell."""
    found = {}
    for name in _HISTOGRAMS.get(writer, ()) if bins.every > 1 or writer == "generator" else ():
        counts = bins.latencies[name][stretch].sum(axis=0, dtype=np.int64)
        histogram = LatencyHistogram()
        there = np.flatnonzero(counts)
        histogram.record(_MIDDLES[there], counts[there])
        if name in {"publish", "publish_raw"}:
            histogram.missing = sum(_count(bins, stretch, "rejected", "unknown", "no_room").values())
        elif name in {"live", "live_raw"} and stretch.stop == bins.seconds:
            histogram.missing = bins.missing["live"]
        if histogram.count:
            found[name] = histogram
    return found


def _count(bins: Bins, stretch: slice, *names: str) -> dict[str, int]:
    return {name: int(bins.counts[name][stretch].sum()) for name in names}


def _busiest(bins: Bins, station: str, stretch: slice) -> float:
    busy = bins.busy.get(station, np.zeros((0, 0)))[:, stretch]
    return float(busy.max()) if busy.size else 0.0


def _generator(bins: Bins, case: Case, stretch: slice) -> tuple[dict[str, int], dict[str, float]]:
    counters = _count(bins, stretch, "sent", "durable", "rejected", "unknown", "no_room")
    counters |= _count(bins, stretch, *(name for name in bins.counts if name.startswith("dropped: ")))
    given_up = sum(count for name, count in counters.items() if name.startswith("dropped: "))
    counters["notified"] = max(0, counters["durable"] - given_up)
    publishers = case.deployment.publishers
    buffered = float(bins.levels["buffered"][stretch].max()) / publishers
    answered = float(np.nanmax(bins.rows.acked, initial=0.0))
    return counters, {
        "published.cpu": _busiest(bins, "publisher", stretch),
        "published.seconds": min(float(stretch.stop), answered),
        "published.in_flight": float(np.ceil(buffered * publishers / case.workload.batch)),
        "publisher.buffered_events": buffered,
        "publisher.queued_notifications": float(bins.levels["queued"][stretch].max()) / publishers,
    }


def _redis(bins: Bins, case: Case, stretch: slice) -> tuple[dict[str, int], dict[str, float]]:
    gauges = {"redis.cpu": _busiest(bins, "shard", stretch)}
    if not case.deployment.receivers:
        return {}, gauges
    gauges["heard.subscriptions"] = float(case.deployment.receivers)
    gauges["heard.cpu"] = _busiest(bins, "gateway", stretch)
    return _count(bins, stretch, "heard", "caught_up"), gauges


def _kafka(bins: Bins, case: Case, stretch: slice) -> tuple[dict[str, int], dict[str, float]]:
    if not case.deployment.consumers:
        return {}, {}
    return _count(bins, stretch, "consumed"), {
        "consumed.lag_messages": float(bins.levels["lag"][stretch].max()),
        "consumed.cpu": _busiest(bins, "consumer", stretch),
        "consumed.caught_up": 1.0,
    }


_COLLECT: Final = {"generator": _generator, "redis": _redis, "kafka": _kafka}
