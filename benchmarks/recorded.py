"""How long a big recorded run takes to read and to draw. Its rows are made up; only their number matters."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dualstream_lab.recording import Clocks, Manifest, RowWriter, RunDirectory
from dualstream_lab.workload import Workload

__all__ = ["recorded"]

_EVENTS = 10_000_000
_STEP = 100_000
_READ = """
import json, resource, sys, time
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
from dualstream_lab import analysis
began = time.perf_counter()
frames = analysis.load(sys.argv[1])
loaded = time.perf_counter()
for plot in (analysis.plot_latency_percentiles, analysis.plot_latency_over_time,
             analysis.plot_lag_and_latency, analysis.plot_rates, analysis.plot_timeline,
             analysis.plot_outcomes, analysis.plot_latency_heatmap,
             lambda frames: analysis.plot_percentiles({"one": frames, "two": [frames, frames]})):
    plot(frames).figure.savefig("/dev/null", format="png")
    plt.close("all")
drawn = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([len(frames.events), loaded - began, drawn - loaded, peak]))
"""


def _make(path: Path) -> None:
    workload = Workload(rate=20_000, duration=_EVENTS / 20_000, batch=20)
    manifest = Manifest(
        name="made-up", run="r", ids="0" * 24, clocks=Clocks.now(), settings={}, workload=workload.as_dict(),
        started=1, state="finished",
    )  # fmt: skip
    RunDirectory(path, manifest).save()
    writers = {kind: RowWriter(path, kind, "a") for kind in ("published", "delivered", "consumed")}
    rng = np.random.default_rng(1)
    for slots in workload.slots(chunk=_STEP):
        count = len(slots)
        begin = slots.intended + 1
        acked = begin + (rng.lognormal(1, 0.5, count) * 1e6).astype(np.int64)
        writers["published"].add(
            slots.seq,
            intended=begin,
            sent=begin + 1000,
            acked=acked,
            outcome=1,
            source=slots.source,
            size=300,
        )
        order = rng.permutation(count)  # as subscribers receive them: not in the plan's order
        writers["delivered"].add(slots.seq[order], at=(acked + 400_000)[order], subscriber=0)
        writers["consumed"].add(slots.seq[order], at=(acked + 900_000)[order], partition=0, offset=slots.seq)
    for writer in writers.values():
        writer.close()
        if writer.dropped:
            raise RuntimeError(f"{writer.dropped} rows were dropped")


def recorded() -> str:
    """A table of one line."""
    with tempfile.TemporaryDirectory() as root:
        _make(Path(root))
        done = subprocess.run([sys.executable, "-c", _READ, root], capture_output=True, text=True, check=True)
        events, load, draw, peak = json.loads(done.stdout)
    return (
        "| events of a recorded run | loaded (≤ 10 s) | eight plots (≤ 20 s) | peak memory (≤ 2 GiB) |\n"
        f"|---|---|---|---|\n| {events:,} | **{load:.1f} s** | **{draw:.1f} s** | **{peak:.2f} GiB** |"
    )
