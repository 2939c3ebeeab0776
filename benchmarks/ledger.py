"""How long the ledger of a big run takes, and in how much memory.

The rows are made up, with an outage in them: Redis is away for a tenth of the run, one subscriber returns
later than the other one, and here and there something is lost, repeated or out of order.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dualstream_lab.recording import (
    DROPS,
    Clocks,
    Ending,
    FaultRecord,
    IntervalWriter,
    Manifest,
    Meter,
    RowWriter,
    RunDirectory,
)
from dualstream_lab.workload import Workload

__all__ = ["ledger", "make"]

_EVENTS = 10_000_000
_RATE = 20_000
_STEP = 100_000
_PARTITIONS = 6
_MS = 1_000_000
_SECOND = 1_000 * _MS
_READ = """
import json, resource, sys, time
began = time.perf_counter()
from dualstream_lab.ledger import Ledger
ledger = Ledger.of(sys.argv[1])
spent = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
counts = {f"{e.name} {e.cause}".strip(): e.count for e in (*ledger.entries, *ledger.marks)}
print(json.dumps([ledger.events, spent, peak, counts, ledger.problems]))
"""


def make(path: Path, events: int = _EVENTS) -> dict[str, int]:
    """A run directory; returns how many events of each kind of trouble it has."""
    workload = Workload(rate=_RATE, duration=events / _RATE, batch=20)
    zero, length = _SECOND, round(events / _RATE * _SECOND)
    down, up = zero + length // 2, zero + length // 2 + length // 10
    manifest = Manifest(
        name="made-up", run="r", ids="0" * 24, clocks=Clocks.now(), settings={}, workload=workload.as_dict(),
        started=zero, ended=zero + length, state="finished",
        faults=[FaultRecord(name="redis.kill", begin=down, end=up)],
    )  # fmt: skip
    RunDirectory(path, manifest).save()
    writers = {
        kind: RowWriter(path, kind, "a")
        for kind in ("published", "delivered", "consumed", "dropped", "listening")
    }
    rng = np.random.default_rng(1)
    offsets = np.zeros(_PARTITIONS, np.int64)
    made = {"lost": 0}
    for slots in workload.slots(chunk=_STEP):
        seq, count = slots.seq, len(slots)
        begin = slots.intended + zero
        acked = np.maximum.accumulate(begin + (rng.lognormal(1, 0.5, count) * _MS).astype(np.int64))
        writers["published"].add(
            seq, intended=begin, sent=begin + 1000, acked=acked, outcome=1, source=slots.source, size=300
        )
        lost = rng.random(count) < 1e-6
        partition = slots.source % _PARTITIONS
        order = np.argsort(acked, kind="stable")
        order = order[~lost[order]]
        offset = np.empty(count, np.int64)
        for number in range(_PARTITIONS):
            inside = order[partition[order] == number]
            offset[inside] = offsets[number] + np.arange(len(inside))
            offsets[number] += len(inside)
        writers["consumed"].add(
            seq[order], at=(acked + 40 * _MS)[order], partition=partition[order], offset=offset[order]
        )
        away = (acked >= down) & (acked < up)
        writers["dropped"].add(seq[away], at=acked[away], reason=DROPS.index("redis down"))
        for subscriber, back in ((0, up + _SECOND), (1, up + 2 * _SECOND)):
            there = np.flatnonzero((acked < down) | (begin >= back))
            there = np.concatenate([there, there[rng.random(len(there)) < 1e-5]])  # delivered again
            at = (acked + 400_000 + subscriber * 1000)[there]
            arrival = np.argsort(at, kind="stable")
            writers["delivered"].add(seq[there][arrival], at=at[arrival], subscriber=subscriber)
        made["lost"] += int(lost.sum())
    ends = zero + length + 10 * _SECOND
    for subscriber, back in ((0, up + _SECOND), (1, up + 2 * _SECOND)):
        for first, last, why in ((1, down, Ending.LOST), (back, ends, Ending.CLOSED)):
            who = np.array([subscriber])
            writers["listening"].add(who, subscriber=who, source=-1, begin=first, end=last, why=int(why))
    for writer in writers.values():
        writer.close()
        if writer.dropped:
            raise RuntimeError(f"{writer.dropped} rows were dropped")
    meter, intervals = Meter("a"), IntervalWriter(path, "a")
    for kind, counter in (("published", "durable"), ("delivered", "delivered"), ("consumed", "consumed")):
        meter.count(counter, writers[kind].written)
    meter.level("consumed.caught_up", 1)
    intervals.write(meter.take())
    intervals.close()
    return made


def ledger(events: int = _EVENTS) -> str:
    """A table of one line."""
    with tempfile.TemporaryDirectory() as root:
        made = make(Path(root), events)
        done = subprocess.run([sys.executable, "-c", _READ, root], capture_output=True, text=True, check=True)
    count, spent, peak, counts, problems = json.loads(done.stdout)
    if counts.get("lost", 0) != made["lost"] or problems:
        raise RuntimeError(f"the ledger is wrong: {counts} of {made}, {problems}")
    print(json.dumps(counts), file=sys.stderr)
    return (
        "| events of a run, with 2 recorded subscribers | ledger (≤ 60 s) | peak memory (≤ 2 GiB) |\n"
        f"|---|---|---|\n| {count:,} | **{spent:.1f} s** | **{peak:.2f} GiB** |"
    )
