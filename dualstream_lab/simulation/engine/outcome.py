"""What a simulated run gives: what became of every event; or, of runs too big for a row each, counts and
histograms by second, of all events, and rows of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

import numpy as np

from dualstream_lab import recording
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.simulation.kernels import Counts, Flags, Floats, Int8, Integers, kernel
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.workload import Workload

_LEAST: Final = 1e-6  # s
_WIDTH: Final = float(np.log(1.01))
_BINS: Final = 2400  # up to 6 hours
EDGES: Final = _LEAST * np.exp(_WIDTH * np.arange(_BINS + 1))
"""Of the histograms' bins, s; the first bin has all that is smaller, the last all that is bigger."""

LATENCIES: Final = {
    "publish": ("intended", "acked"),
    "publish_raw": ("sent", "acked"),
    "slip": ("intended", "sent"),
    "live": ("intended", "delivered"),
    "live_raw": ("sent", "delivered"),
    "live_delay": ("acked", "delivered"),
    "durable": ("intended", "consumed"),
}
"""Names of the histograms, and from what to what; each is counted in the second of its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was simulated: enough to do it again."""

    workload: Workload
    deployment: Deployment
    costs: Costs
    faults: tuple[FaultSpec, ...] = ()
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One entry an event, by ascending ``seq``. Times: s after the plan's zero, NaN for never.

    A durable event with neither ``delivered`` nor ``dropped`` was published to nobody, or to those who were
    away and do not catch up.
    """

    seq: Integers  #: its number in the plan
    intended: Floats  #: when the plan wanted it sent
    sent: Floats  #: when its publisher began to serve its call
    entered: Floats  #: when it came into its publisher's buffer (never: no room)
    settled: Floats  #: when its outcome was known: its ack, its deadline, or the end of its wait for room
    acked: Floats  #: its ack; never, unless it is durable
    outcome: Int8  #: a ``recording.Outcome``, never PENDING
    source: Integers  #: the rank of its source
    size: Integers  #: bytes
    partition: Integers
    offset: Integers  #: its place in the log of its partition, from 0; -1 where it is not in it
    logged: Floats  #: when it came into the log
    consumed: Floats  #: when the consumer had it
    delivered: Floats  #: when subscribers had it: live, else by repair
    recovered: Flags  #: whether that was by repair: its notification was dropped, or they were not connected
    dropped: Floats  #: when its notification was given up
    reason: Int8  #: why, its place in ``recording.DROPS``; -1 where it was not
    resyncs: int = 0  #: announcements of skipped sources
    away: tuple[tuple[int, float, float], ...] = ()  #: (shard, begin, end): nobody was connected to it
    #: By station, the share of each second that each of its servers worked: (servers, seconds).
    utilization: Mapping[str, Floats] = field(default_factory=dict)
    case: Case | None = None  #: what was simulated

    def __len__(self) -> int:
        return len(self.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """One entry a second, from the plan's zero, in every array.

    ``counts``: events that were ``sent``, ``durable``, ``rejected``, ``unknown``, ``no_room``, ``consumed``,
    ``delivered`` (live), ``caught_up`` (delivered by repair) and ``dropped: <reason>``.

    ``levels``, at the end of each second: ``buffered`` (events, of all publishers), ``lag`` (records in the
    log and not consumed) and ``queued`` (notifications, of all publishers; of a long run the most in each
    second of an outage, else 0).
    """

    counts: Mapping[str, Integers]
    latencies: Mapping[str, Counts]  #: by name (``LATENCIES``), (seconds, len(EDGES) - 1)
    missing: Mapping[str, int]  #: of the whole run, durable events not delivered (``live``), or not consumed
    levels: Mapping[str, Integers]
    utilization: Mapping[str, Floats]  #: as in Outcome
    rows: Outcome  #: a sample of the events
    every: int  #: which has one in so many

    @property
    def seconds(self) -> int:
        """How many seconds the run took, until its last event was settled, delivered and consumed."""
        return len(self.counts["sent"])

    def quantile(self, name: str, share: float) -> float:
        """A quantile of the latencies of this name, s: the upper edge of a bin. NaN where none has an end."""
        counts = self.latencies[name].sum(axis=0, dtype=np.int64)
        if not counts.any():
            return float("nan")
        place = np.searchsorted(np.cumsum(counts), share * counts.sum())
        return float(EDGES[place + 1])


@kernel
def bin_of(latency: float) -> int:
    """The number of the bin that a latency (s) belongs to."""
    if latency <= _LEAST:
        return 0
    return min(int(np.log(latency / _LEAST) / _WIDTH), _BINS - 1)


@kernel
def tally(into: Counts, begin: Floats, end: Floats) -> None:
    """Add the latencies from ``begin`` to ``end``; those that are NaN are none."""
    for place in range(len(end)):
        if not np.isnan(end[place]):
            into[int(end[place]), bin_of(end[place] - begin[place])] += 1


def binned(outcome: Outcome, every: int = 1) -> Bins:
    """Count all events of a run by second, and keep one in ``every`` as a row."""
    ends = (outcome.settled, outcome.delivered, outcome.consumed)
    seconds = int(max(np.nanmax(end, initial=0.0) for end in ends)) + 1
    live = np.where(outcome.recovered, np.nan, outcome.delivered)

    def by_second(times: Floats) -> Integers:
        return np.bincount(times[~np.isnan(times)].astype(np.int64), minlength=seconds)

    counts = {"sent": by_second(outcome.sent), "consumed": by_second(outcome.consumed)}
    for settled in sorted(set(recording.Outcome) - {recording.Outcome.PENDING}):
        counts[settled.name.lower()] = by_second(outcome.settled[outcome.outcome == settled])
    counts |= {"delivered": by_second(live), "caught_up": by_second(outcome.delivered[outcome.recovered])}
    for reason in np.unique(outcome.reason[outcome.reason >= 0]).tolist():
        counts[f"dropped: {recording.DROPS[reason]}"] = by_second(outcome.dropped[outcome.reason == reason])
    latencies = {name: np.zeros((seconds, _BINS), np.uint32) for name in LATENCIES}
    for name, (begin, end) in LATENCIES.items():
        tally(latencies[name], getattr(outcome, begin), getattr(outcome, end))
    durable = outcome.outcome == recording.Outcome.DURABLE
    left = np.isnan(outcome.entered) | np.isnan(outcome.settled)
    gone = np.fmin(outcome.dropped, live)
    waits = durable & ~np.isnan(gone)
    rows = outcome
    if every > 1:
        arrays = [one.name for one in fields(outcome) if isinstance(getattr(outcome, one.name), np.ndarray)]
        which = recording.sampled(outcome.seq, every)
        rows = replace(outcome, utilization={}, **{name: getattr(outcome, name)[which] for name in arrays})
    missing = {"live": outcome.delivered, "durable": outcome.consumed}
    return Bins(
        counts=counts,
        latencies=latencies,
        missing={name: int(np.isnan(times[durable]).sum()) for name, times in missing.items()},
        levels={
            "buffered": np.cumsum(by_second(outcome.entered[~left]) - by_second(outcome.settled[~left])),
            "lag": np.cumsum(by_second(outcome.logged) - counts["consumed"]),
            "queued": np.cumsum(by_second(outcome.acked[waits]) - by_second(gone[waits])),
        },
        utilization={name: utilization[:, :seconds] for name, utilization in outcome.utilization.items()},
        rows=rows, every=every,
    )  # fmt: skip
