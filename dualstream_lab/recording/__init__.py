"""What a run leaves behind: a directory that is written as it happens and survives a crash.

::

    runs/smoke-20250601-120000-3f9a/
      manifest.json                what ran, where, with which versions; one pair of clocks; the faults
      published-<writer>-0001.parquet   a row an event (or a sample of them), in parts of about a second
      delivered-…  consumed-…           the same of subscribers and consumers
      dropped-…  listening-…            notifications given up; who was subscribed, from when until when
      caught_up-…                       what gateway clients were given later
      intervals-<writer>.jsonl     each second: counters, gauges, HDR histograms of all events
      verdict.json                 measures, thresholds, the sentence about what was the limit

Columns and units: :mod:`dualstream_lab.recording.rows`.
"""

from __future__ import annotations

from dualstream_lab.recording.directory import RunDirectory, list_runs
from dualstream_lab.recording.histogram import LatencyHistogram
from dualstream_lab.recording.interval import Interval, IntervalWriter, Meter, drops_of
from dualstream_lab.recording.manifest import Clocks, FaultRecord, Manifest
from dualstream_lab.recording.rows import DROPS, KINDS, Ending, Outcome, RowWriter, sampled

__all__ = [
    "DROPS", "KINDS", "Clocks", "Ending", "FaultRecord", "Interval", "IntervalWriter", "LatencyHistogram",
    "Manifest", "Meter", "Outcome", "RowWriter", "RunDirectory", "drops_of", "list_runs", "sampled",
]  # fmt: skip
