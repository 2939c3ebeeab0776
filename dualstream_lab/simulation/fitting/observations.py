"""What a recorded run shows of each station: requests, exchanges, polls, and what each second cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import Interval, Outcome, RunDirectory
from dualstream_lab.recording.joined import places
from dualstream_lab.simulation.kernels import Floats, Integers
from dualstream_lab.simulation.parameters import Deployment, deployment_of
from dualstream_lab.workload import Workload

_APART: Final = {"lab": 200e-6, "simulation": 1e-6}
"""s between two calls' answers from which on they came with two requests. The calls of one request are woken
one after the other, each some 50 µs after the last; an answer takes several times as long.
"""
_LEAST: Final = 100  # requests that say anything
_BLOCKS: Final = 8  # of a run: fewer do not show how far they differ


class Events(NamedTuple):
    """All acknowledged events, by publisher and ack. Times are s of the plan, NaN for never."""

    publisher: Integers
    acked: Floats  # when the request was answered that it was in
    delivered: Floats
    consumed: Floats
    member: Integers  # which consumer had it, -1 for none
    request: Integers  # the number of its request


class Requests(NamedTuple):
    """Requests to the one broker, by publisher, in order. Times are s of the plan."""

    acked: Floats
    ready: Floats  # when its first event was sent
    before: Floats  # when the publisher's request before it was answered, -inf for none
    last: Floats  # when the broker answered the request before it, -inf for none
    events: Floats  # how many events it has
    bytes: Floats
    parts: Floats  # of how many partitions they are


class Seconds(NamedTuple):
    """Intervals of one process that are wholly within the plan, about a second each. Times are s."""

    begin: Floats
    end: Floats
    cpu: Floats  # s of one of its loops (or shards)
    events: Floats  # of one of its loops


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one run shows."""

    name: str
    directory: RunDirectory
    workload: Workload
    deployment: Deployment
    events: Events
    requests: Requests | None  # None where it is not known which broker served which event
    publisher: Seconds
    redis: Seconds
    consumer: Seconds
    concurrent_runs: int = 0  # other runs that were made on the same broker at the same time

    @property
    def setup(self) -> tuple[Workload, Deployment]:
        """The workload, less its seed, and the deployment: its repeats have the same."""
        return replace(self.workload, seed=0), self.deployment

    @property
    def simulated(self) -> bool:
        """Whether the model made it: then its times are exact."""
        return self.directory.manifest.engine == "simulation"


def observe(run: RunDirectory | Path | str) -> Observed:
    """Read a run. Raises ConfigError naming the run and why no costs can be learned from it,
    RecordingError where it cannot be read.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
    name = directory.path.name
    workload = usable(directory)
    intervals = list(directory.intervals())
    deployment = deployment_of(directory, intervals)
    events, requests = _events(directory, workload, deployment)
    if directory.problems:
        raise _unusable(name, f"it is damaged: {directory.problems[0]}")
    if len(np.unique(events.request)) < _LEAST:
        raise _unusable(name, f"it has fewer than {_LEAST} requests; take a longer run")
    if dropped := max((i.gauges.get("published.rows_dropped", 0.0) for i in intervals), default=0.0):
        raise _unusable(name, f"{dropped:,.0f} of its rows were dropped, as the disk was too slow")
    zero = directory.manifest.started
    planned = zero + round(workload.duration * 1e9)
    inside = [each for each in intervals if each.begin >= zero and each.end <= planned]
    loops = deployment.publishers / max(1, len({i.writer for i in inside if "published.cpu" in i.gauges}))
    return Observed(
        name=name, directory=directory, workload=workload, deployment=deployment, events=events,
        requests=requests,
        publisher=_seconds(inside, zero, "published.cpu", "sent", loops),
        redis=_seconds(inside, zero, "redis.cpu", "", 1),
        consumer=_seconds(inside, zero, "consumed.cpu", "consumed", 1),
    )  # fmt: skip


def _unusable(name: str, why: str) -> ConfigError:
    return ConfigError(f"{name} cannot be used to calibrate: {why}")


def usable(directory: RunDirectory, *, faults: bool = False) -> Workload:
    """The run's workload, if the model can be compared with it; with ``faults``, also where it had some.

    Raises ConfigError naming the run and why not.
    """
    manifest = directory.manifest
    name = directory.path.name
    if manifest.engine not in _APART:
        raise _unusable(name, f"it was made by {manifest.engine}; `dualstream run` makes those that can be")
    if manifest.state != "finished":
        raise _unusable(name, f"it is {manifest.state}, not finished")
    if manifest.faults and not faults:
        what = manifest.faults[0].name
        raise _unusable(name, f"it has a fault ({what}); give it with --hold-out to see it predicted")
    if manifest.sample > 1:
        raise _unusable(name, f"only one event in {manifest.sample} has a row; raise max_rows")
    workload = Workload.load(manifest.workload)
    if workload.plan == "closed":
        raise _unusable(name, "its plan is closed: what it sends depends on the answers")
    return workload


def _column(directory: RunDirectory, kind: str, *names: str) -> list[Integers]:
    rows = directory.rows(kind)
    return [rows.column(name).to_numpy().astype(np.int64) for name in names]


def _events(
    directory: RunDirectory, workload: Workload, deployment: Deployment
) -> tuple[Events, Requests | None]:
    name = directory.path.name
    seq, sent, acked, outcome, size = _column(
        directory, "published", "seq", "sent", "acked", "outcome", "size"
    )
    if not len(seq):
        raise _unusable(name, "it has no rows")
    if lost := int(np.isin(outcome, (Outcome.REJECTED, Outcome.UNKNOWN, Outcome.PENDING)).sum()):
        raise _unusable(name, f"{lost:,} of its events were not acknowledged; take a lower rate")
    rows = np.flatnonzero(outcome == Outcome.DURABLE)
    publisher = seq // workload.batch % deployment.publishers
    rows = rows[np.lexsort((seq[rows], acked[rows], publisher[rows]))]
    seq, sent, acked, size, publisher = (each[rows] for each in (seq, sent, acked, size, publisher))
    zero = directory.manifest.started

    delivered = _first(seq, *_column(directory, "delivered", "seq", "at"))[0]
    read, at, partitions = _column(directory, "consumed", "seq", "at", "partition")
    consumed, row = _first(seq, read, at)
    partition = np.append(partitions, -1)[row]
    times = (acked - zero) / 1e9
    apart = np.diff(times, prepend=-np.inf) > _APART[directory.manifest.engine]
    answered = np.cumsum(apart | (np.diff(publisher, prepend=-1) != 0)) - 1  # the number of its request
    first = np.flatnonzero(np.diff(answered, prepend=-1))
    events = Events(
        publisher, times[first][answered], (delivered - zero) / 1e9, (consumed - zero) / 1e9,
        np.where(partition >= 0, partition % max(1, deployment.consumers), -1), answered,
    )  # fmt: skip
    events.delivered[delivered == 0] = events.consumed[consumed == 0] = np.nan
    if deployment.brokers > 1 or (partition < 0).any():
        return events, None
    return events, _requests(events, (sent - zero) / 1e9, size, partition, first)


def _first(seq: Integers, rows: Integers, at: Integers) -> tuple[Integers, Integers]:
    """(of each of ``seq`` the first time, 0 for never; the place of its row, -1)."""
    found, row = np.zeros(len(seq), np.int64), np.full(len(seq), -1)
    if not len(rows) or not len(seq):
        return found, row
    order = np.argsort(seq)
    backwards = np.argsort(-at, kind="stable")  # of several rows the first one is written last
    place, there = places(seq[order], rows[backwards])
    target = order[place[there]]
    found[target], row[target] = at[backwards][there], backwards[there]
    return found, row


def _requests(events: Events, sent: Floats, size: Integers, partition: Integers, first: Integers) -> Requests:
    count = len(first)
    acked, publisher = events.acked[first], events.publisher[first]
    before = np.full(count, -np.inf)
    before[1:] = np.where(publisher[1:] == publisher[:-1], acked[:-1], -np.inf)
    order = np.argsort(acked, kind="stable")
    last = np.full(count, -np.inf)
    last[order[1:]] = acked[order[:-1]]
    width = int(partition.max()) + 1
    parts = np.bincount(np.unique(events.request * width + partition) // width, minlength=count)
    return Requests(
        acked=acked, ready=np.minimum.reduceat(sent, first), before=before, last=last,
        events=np.bincount(events.request, minlength=count).astype(np.float64),
        bytes=np.bincount(events.request, size, minlength=count).astype(np.float64),
        parts=parts.astype(np.float64),
    )  # fmt: skip


def _seconds(intervals: Iterable[Interval], zero: int, gauge: str, counter: str, loops: float) -> Seconds:
    shown = [i for i in intervals if gauge in i.gauges and i.end > i.begin]
    begin, end = (np.array([getattr(i, name) - zero for i in shown]) / 1e9 for name in ("begin", "end"))
    cpu = np.array([i.gauges[gauge] * (i.end - i.begin) for i in shown]) / 1e9
    return Seconds(begin, end, cpu, np.array([i.counters.get(counter, 0) / loops for i in shown]))


def side_by_side(seen: Sequence[Observed]) -> list[Observed]:
    """Runs on the same broker at the same time are its publishers: each request knows the others' acks."""

    def monotonic(run: Observed, at: Floats) -> Integers:
        return np.round(at * 1e9).astype(np.int64) + run.directory.manifest.started

    found = []
    for run in seen:
        others = [other for other in seen if other is not run and _at_once(run, other)]
        shown = run.requests
        if others and shown:
            pool = [monotonic(each, each.requests.acked) for each in (run, *others) if each.requests]
            acks = np.sort(np.concatenate(pool))
            place = np.searchsorted(acks, monotonic(run, shown.acked)) - 1
            before = (acks[np.maximum(place, 0)] - run.directory.manifest.started) / 1e9
            shown = shown._replace(last=np.where(place >= 0, before, -np.inf))
        found.append(replace(run, requests=shown, concurrent_runs=len(others)))
    return found


def _at_once(one: Observed, other: Observed) -> bool:
    """Whether both were made on the same broker, and at the same time of day."""
    spans, brokers = [], []
    for run in (one, other):
        manifest = run.directory.manifest
        begin = manifest.started + manifest.clocks.wall - manifest.clocks.monotonic
        spans.append((begin, begin + run.workload.duration * 1e9))
        brokers.append(manifest.settings.get("kafka_url"))
    together = max(begin for begin, _ in spans) < min(end for _, end in spans)
    return brokers[0] is not None and brokers[0] == brokers[1] and together


class Blocks:
    """Observations that are resampled together, as neighbours within a second are alike: each second of a run
    is a block, of a short one each eighth; ``count``: how many. Runs of the same settings are repeats.
    """

    def __init__(self, seen: Sequence[Observed]) -> None:
        self._widths = [min(1.0, run.workload.duration / _BLOCKS) for run in seen]
        self._lengths = [
            math.ceil(run.workload.duration / width) for run, width in zip(seen, self._widths, strict=True)
        ]
        self._begins = np.concatenate([[0], np.cumsum(self._lengths)])
        self.count = int(self._begins[-1])
        setups: dict[object, list[int]] = {}
        for number, run in enumerate(seen):
            setups.setdefault(run.setup, []).append(number)
        self._setups = list(setups.values())

    def of(self, run: int, at: Floats) -> Integers:
        """The block of each of these times of a run; what is late is in the last one."""
        inside = np.clip((at / self._widths[run]).astype(np.int64), 0, self._lengths[run] - 1)
        return np.asarray(inside + self._begins[run])

    def resampled(self, rng: np.random.Generator) -> Floats:
        """Draw repeats, and seconds within each: how often each block counts."""
        weights = np.zeros(self.count)
        for repeats in self._setups:
            for run in rng.choice(repeats, len(repeats)).tolist():
                length = self._lengths[run]
                drawn = rng.integers(0, length, length)
                begin = self._begins[run]
                weights[begin : begin + length] += np.bincount(drawn, minlength=length)
        return weights
