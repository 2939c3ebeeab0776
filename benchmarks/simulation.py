"""How long the model takes for an hour at a million events/s, in which Redis is away for 90 s."""

from __future__ import annotations

import json
import subprocess
import sys

__all__ = ["simulation"]

_RUN = """
import json, resource, sys, time
began = time.perf_counter()
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.simulation import Deployment, simulate
from dualstream_lab.workload import Workload

rate, duration, outage = json.loads(sys.argv[1])
bins = simulate(
    Workload(rate=rate, duration=duration, batch=100, sources=1_000_000, zipf=0.5),
    Deployment(publishers=20, brokers=20, partitions=400, copies=3, shards=16, consumers=8, catch_up=True),
    faults=[FaultSpec(name="redis.kill", at=duration / 2, length=outage)],
)
spent = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
counts = {name: int(count.sum()) for name, count in bins.counts.items()}
counts["missing"] = bins.missing["live"]
quantiles = [bins.quantile("live", 0.5) * 1e3, bins.quantile("publish", 0.99) * 1e3]
print(json.dumps([spent, time.process_time(), peak, counts, quantiles]))
"""


def simulation(*, rate: float = 1_000_000, duration: float = 3600, outage: float = 90) -> str:
    """A table of one line. Each run is a process of its own, on one core; the first one compiles."""
    for size in ([rate, 20, 2], [rate, duration, outage]):
        done = subprocess.run(
            [sys.executable, "-c", _RUN, json.dumps(size)], capture_output=True, text=True, check=True
        )
    spent, cpu, peak, counts, (live, publish) = json.loads(done.stdout)
    events = round(rate * duration)
    delivered = counts["delivered"] + counts["caught_up"] + counts["missing"]
    if counts["durable"] != events or delivered != events or counts["consumed"] != events:
        raise RuntimeError(f"events were lost on the way: {counts} of {events}")
    print(json.dumps(counts), file=sys.stderr)
    return (
        "| simulated | in (≤ 10 s), of it CPU | memory (≤ 1 GiB) | publish p99, live p50 | recovered "
        "| missing |\n"
        "|---|---|---|---|---|---|\n"
        f"| {events:,} events in {duration:,.0f} s, Redis away for {outage:g} s | "
        f"**{spent:.1f} s**, {cpu:.1f} s | "
        f"**{peak:.2f} GiB** | {publish:.1f} ms, {live:.1f} ms | {counts['caught_up']:,} | "
        f"{counts['missing']:,} |"
    )
