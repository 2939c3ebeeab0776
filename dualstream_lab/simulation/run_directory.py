"""A simulated run as a run directory: what judges, plots and reports real ones does the same with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dualstream_lab import recording
from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import FaultRecord, Manifest, RunDirectory
from dualstream_lab.simulation.engine.outcome import EDGES, Bins, Case, Outcome, binned
from dualstream_lab.simulation.kernels import Array, Flags, Floats, Integers
from dualstream_lab.simulation.outages import outages
from dualstream_lab.workload import RunIds

_ZERO: Final = 1_000_000_000_000  # ns of the rows' clock at which the plan begins
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
    rows, case, run = bins.rows, bins.rows.case, uuid4()
    if case is None:
        raise ConfigError("case: must be known for a run directory (is None)")
    last = max(float(np.nanmax(at, initial=0.0)) for at in (rows.settled, rows.delivered, rows.consumed))
    last = max(last, case.workload.duration)
    parts, simulated = case.deployment, "simulated"
    # Calls that can be open: as there are callers; else as many as the buffers hold, and one more.
    calls = parts.publishers * parts.callers
    calls = calls or parts.publishers * parts.buffer_events // case.workload.batch + 1
    path = RunDirectory.create(root, name)
    directory = RunDirectory(
        path,
        Manifest(
            name=name, run=str(run), ids=RunIds.of_run(run).prefix, engine="simulation",
            clocks=recording.Clocks(monotonic=_ZERO, wall=time.time_ns()), workload=case.workload.as_dict(),
            settings={**asdict(parts), "costs": asdict(case.costs), "seed": case.seed},
            users={"concurrency": calls, "subscribers": 1}, thresholds=list(thresholds),
            asked={"faults": [fault.as_dict() for fault in case.faults]},
            faults=[
                FaultRecord(name=fault.name, begin=_ns(begin), end=_ns(end), bite=simulated, over=simulated)
                for fault in case.faults
                for begin, end in fault.spans
            ],
            sample=bins.every, started=_ZERO, ended=_ns(last), state="finished",
        ),
    )  # fmt: skip
    _write_rows(path, rows, case, last)
    _write_intervals(path, bins, case)
    directory.save()
    return directory


def _ns(seconds: float) -> int:
    return _ZERO + round(seconds * 1e9)


def _times(seconds: Floats) -> Integers:
    """Times in ns of the rows' clock; 0 for never."""
    there = ~np.isnan(seconds)
    times = np.zeros(len(seconds), np.int64)
    times[there] = np.round(seconds[there] * 1e9).astype(np.int64) + _ZERO
    return times


# Rows


def _write_rows(path: Path, rows: Outcome, case: Case, last: float) -> None:
    """Write the rows of each kind, by time."""
    seq, subscriber = rows.seq, np.zeros(len(rows.seq))
    _write(
        path, "published", "generator", seq=seq, intended=_times(rows.intended), sent=_times(rows.sent),
        acked=_times(rows.acked), outcome=rows.outcome, source=rows.source, size=rows.size,
    )  # fmt: skip
    kinds: list[tuple[str, str, Floats, Flags, dict[str, Array]]] = [
        ("dropped", "generator", rows.dropped, rows.reason >= 0, {"reason": rows.reason})
    ]
    if case.deployment.receivers:
        live = ~np.isnan(rows.delivered) & ~rows.recovered
        repaired = {"subscriber": subscriber, "by_repair": np.ones(len(seq))}
        kinds.append(("delivered", "redis", rows.delivered, live, {"subscriber": subscriber}))
        kinds.append(("caught_up", "redis", rows.delivered, rows.recovered, repaired))
        _write_listening(path, rows, last)
    if case.deployment.consumers:
        read = {"partition": rows.partition, "offset": rows.offset}
        kinds.append(("consumed", "kafka", rows.consumed, ~np.isnan(rows.consumed), read))
    for kind, writer, at, which, columns in kinds:
        order = np.flatnonzero(which)
        order = order[np.argsort(at[order], kind="stable")]
        more = {name: column[order] for name, column in columns.items()}
        _write(path, kind, writer, seq=seq[order], at=_times(at[order]), **more)


def _write_listening(path: Path, rows: Outcome, last: float) -> None:
    away = [(begin, end) for shard, begin, end in rows.away if shard == 0 and begin < last + _AFTER]
    begins = np.array([-_BEFORE, *(end for _, end in away)])
    ends = np.array([*(begin for begin, _ in away), max(last, *begins) + _AFTER])
    why = np.full(len(begins), recording.Ending.LOST)
    why[-1] = recording.Ending.CLOSED
    zeros = np.zeros(len(begins), np.int64)
    _write(
        path, "listening", "redis", subscriber=zeros, source=zeros - 1, begin=_times(begins),
        end=_times(ends), why=why,
    )  # fmt: skip


def _write(path: Path, kind: str, writer: str, **columns: Array) -> None:
    """One part. Not a RowWriter, which drops rows rather than wait for the disk."""
    types = recording.KINDS[kind]
    arrays = [pa.array(columns[name].astype(f"i{of.bit_width // 8}"), of) for name, of in types.items()]
    table = pa.Table.from_arrays(arrays, names=list(types))
    pq.write_table(table, path / f"{kind}-{writer}-00001.parquet", compression="lz4", use_dictionary=False)


# Intervals


def _write_intervals(path: Path, bins: Bins, case: Case) -> None:
    broken = outages(case.faults, case.deployment)
    up = {"redis": broken.redis, "kafka": broken.first_broker}
    away = {name: np.concatenate([modes.down, modes.mute]) for name, modes in up.items()}
    step = max(1, bins.seconds // _INTERVALS)
    files = {writer: recording.IntervalWriter(path, writer) for writer in ("generator", "redis", "kafka")}
    for second in range(0, bins.seconds, step):
        stretch = slice(second, min(second + step, bins.seconds))
        for writer, (counters, gauges) in _collected(bins, case, stretch).items():
            if writer in away:
                gone = np.any((away[writer][:, 0] < stretch.stop) & (away[writer][:, 1] > second))
                gauges[f"{writer}.up"] = 0.0 if gone else 1.0
            files[writer].write(
                recording.Interval(
                    writer=writer, begin=_ns(second), end=_ns(stretch.stop),
                    counters={name: count for name, count in counters.items() if count}, gauges=gauges,
                    histograms=_histograms(bins, writer, stretch),
                )
            )  # fmt: skip
    for file in files.values():
        file.close()


def _histograms(bins: Bins, writer: str, stretch: slice) -> dict[str, recording.LatencyHistogram]:
    """Histograms of a process. Those of the live path only where rows are a sample: else rows have it all."""
    found = {}
    for name in _HISTOGRAMS.get(writer, ()) if bins.every > 1 or writer == "generator" else ():
        counts = bins.latencies[name][stretch].sum(axis=0, dtype=np.int64)
        histogram = recording.LatencyHistogram()
        there = np.flatnonzero(counts)
        histogram.record(_MIDDLES[there], counts[there])
        if name in {"publish", "publish_raw"}:
            failed = (bins.counts[outcome][stretch].sum() for outcome in ("rejected", "unknown", "no_room"))
            histogram.missing = int(sum(failed))
        elif name in {"live", "live_raw"} and stretch.stop == bins.seconds:
            histogram.missing = bins.missing["live"]
        if histogram.count:
            found[name] = histogram
    return found


def _collected(bins: Bins, case: Case, stretch: slice) -> dict[str, tuple[dict[str, int], dict[str, float]]]:
    """(counters, gauges) of each process."""
    deployment, publishers = case.deployment, case.deployment.publishers

    def count(*names: str) -> dict[str, int]:
        return {name: int(bins.counts[name][stretch].sum()) for name in names}

    def busiest(station: str) -> float:
        utilization = bins.utilization.get(station, np.zeros((0, 0)))[:, stretch]
        return float(utilization.max(initial=0.0))

    def level(name: str) -> float:
        return float(bins.levels[name][stretch].max())

    dropped = count(*(name for name in bins.counts if name.startswith("dropped: ")))
    counters = count("sent", "durable", "rejected", "unknown", "no_room") | dropped
    counters["notified"] = max(0, counters["durable"] - sum(dropped.values()))
    buffered = level("buffered") / publishers
    answered = float(np.nanmax(bins.rows.acked, initial=0.0))
    gauges = {
        "published.cpu": busiest("publisher"),
        "published.seconds": min(float(stretch.stop), answered),
        "published.in_flight": float(np.ceil(buffered * publishers / case.workload.batch)),
        "publisher.buffered_events": buffered,
        "publisher.queued_notifications": level("queued") / publishers,
    }
    redis, delivered, kafka, consumed = {"redis.cpu": busiest("shard")}, {}, {}, {}
    if deployment.receivers:
        delivered = count("delivered", "caught_up")
        redis |= {"delivered.subscriptions": float(deployment.receivers), "delivered.cpu": busiest("gateway")}
    if deployment.consumers:
        consumed = count("consumed")
        kafka = {"consumed.lag_messages": level("lag"), "consumed.cpu": busiest("consumer"),
                 "consumed.caught_up": 1.0}  # fmt: skip
    return {"generator": (counters, gauges), "redis": (delivered, redis), "kafka": (consumed, kafka)}
