"""What each observation of a run says of the costs, as a linear equation.

A station is a server: what it does begins when the work arrives, or when it has done what came before,
whichever is later. Of the first kind an observation is trip + work, of the second one work alone. So a trip
and the fixed part of the work are told apart only by runs that have both kinds, which needs several
publishers at one server; and parts of the work only by runs in which their numbers differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dualstream_lab.simulation.analytic.capacity import at_work
from dualstream_lab.simulation.fitting.observations import Observed
from dualstream_lab.simulation.kernels import Floats, kernel
from dualstream_lab.simulation.parameters import Costs as Parameters

if TYPE_CHECKING:
    Costs = Mapping[str, float]

IDLE: Final = ("idle", "redis_idle", "consumer_idle", "wake")
"""Measured, and no part of the model: what a process costs a second without any load, and how much later a
caller is woken than the publisher has the ack that he writes down.
"""

LINEAR: Final = (
    "call", "event", "turn", "request", "batch", "record", "record_byte", "kafka_rtt", "replica", "exchange",
    "publish", "deliver", "redis_rtt", "receive_delay", "poll", "consume", "fetch_delay", *IDLE,
)  # fmt: skip
"""The unknowns."""

_REPLICATION: Final = "runs with copies, and to know who leads: that is of simulated ones only"
_BATCHES: Final = "runs with calls of one event, and of many"
_LOADS: Final = "runs at low and at high rates"
_TWO: Final = "several publishers: runs on the same broker at the same time"
_LISTENERS: Final = "runs with one subscriber, and with many"
_ACK: Final = "the time of the ack itself: a real run has that of the caller who is woken by it"
_GATEWAY: Final = "what no run has, a gateway: `python -m benchmarks fanout` measures one"
NEEDED: Final = {
    "call": _BATCHES, "event": _BATCHES, "turn": _LOADS, "request": _TWO, "kafka_rtt": _TWO,
    "broker_noise": _TWO, "batch": _LOADS, "record": _LOADS,
    "record_byte": "runs with small and with big events", "pauses": "longer runs", "pause": "longer runs",
    "replica": _REPLICATION, "exchange": _LOADS, "redis_rtt": _LOADS, "redis_noise": _LOADS,
    "receive_delay": _ACK,
    "publish": _LISTENERS, "deliver": _LISTENERS,
    "poll": _LOADS, "consume": _LOADS, "fetch_delay": _ACK, "receive": _GATEWAY, "write": _GATEWAY,
}  # fmt: skip
"""Which runs tell a cost, together with others that do not."""

_WAITS: Final = {"kafka_rtt", "replica", "redis_rtt", "receive_delay", "fetch_delay", "wake"}
_FIRST, _SHARE, _MOST = 1000, 4, 4000  # notifications of an exchange, as the notifier takes them


class Equations(NamedTuple):
    """What a run says of one station, an equation an observation: y = the sum of costs x ``columns``."""

    station: str
    at: Floats  # when it was observed, s of the plan
    y: Floats  # how long it took, s
    columns: Mapping[str, Floats]  # by cost, how often it is in ``y``
    idle: Floats  # s that the server had nothing to do before
    utilization: float = 1.0  # the share of time that a publisher worked on events
    run: int = 0  # the number of the run
    usual: Floats = np.empty(0)  # how much it counts, 0 to 1; 0 for an outlier
    error: Floats = np.empty(0)  # the standard error of ``y``, s
    spread: float = 0.0  # the same as a share of the work

    def work(self, costs: Costs, *, waits: bool = False) -> Floats:
        """How long the server worked for an observation, s; with ``waits``, how long it was on the way."""
        total = np.zeros(len(self.y))
        for name, column in self.columns.items():
            if (name in _WAITS) == waits:
                total += column * costs[name]
        return total

    def waits(self, costs: Costs) -> Floats:
        """How long an observation was on the way, s."""
        return self.work(costs, waits=True)


def equations_of(run: Observed, costs: Costs) -> Iterator[Equations]:
    """The equations of each station that the run says something of. ``costs``: as known so far; they decide
    which observations waited.
    """
    seconds, batch, deployment = run.publisher, run.workload.batch, run.deployment
    calls = seconds.events / batch
    # Turns of a call: one for each answer, and one for requests that leave together.
    answers = 1 + np.count_nonzero(np.diff(run.events.request))
    per_call = float(answers * batch / len(run.events.request))
    yield _equations("publisher", seconds.begin, seconds.cpu, call=calls, event=seconds.events,
                turn=calls * (per_call + min(1.0, per_call)), idle=seconds.end - seconds.begin)  # fmt: skip
    if run.requests is not None:
        model = Parameters(**{name: costs[name] for name in LINEAR if name not in IDLE})
        yield _broker(run, costs)._replace(utilization=at_work(run.workload, deployment, model))
    if run.concurrent_runs:  # Redis and the consumer had the other runs' events, too
        return
    redis = deployment.shards == 1 and deployment.subscribers and not deployment.gateways
    if redis and not np.isnan(run.events.delivered).any():
        yield from _shard(run, costs)
    for member in range(deployment.consumers if run.events.member.min() >= 0 else 0):
        yield _consumer(run, costs, member)
    seconds = run.consumer
    if deployment.consumers == 1 and len(seconds.cpu):
        polls = np.unique(run.events.consumed[~np.isnan(run.events.consumed)])
        count = np.searchsorted(polls, seconds.end) - np.searchsorted(polls, seconds.begin)
        yield _equations(
            "consumer's CPU", seconds.begin, seconds.cpu, poll=count.astype(np.float64),
            consume=seconds.events, consumer_idle=seconds.end - seconds.begin,
        )  # fmt: skip


def _equations(
    station: str, at: Floats, y: Floats, free: Floats | None = None, **columns: Floats | float
) -> Equations:
    full = {name: np.broadcast_to(np.asarray(value, np.float64), y.shape) for name, value in columns.items()}
    return Equations(station, at, y, full, np.zeros(len(y)) if free is None else free)


def _broker(run: Observed, costs: Costs) -> Equations:
    requests, replication_factor = run.requests, run.deployment.replication_factor
    assert requests is not None  # noqa: S101
    encoded = costs["call"] + costs["event"] * run.workload.batch
    start = np.maximum(requests.before, requests.ready + encoded)
    own, since = requests.acked - start, requests.acked - requests.last
    more = float(replication_factor > 1)
    rtt = costs["kafka_rtt"] + more * costs["replica"]
    waited = since < own - rtt
    arrived = (~waited).astype(np.float64)
    idle = np.where(waited, 0, np.maximum(since - own + rtt, 0))
    return _equations(
        "broker", requests.acked, np.where(waited, since, own), idle,
        kafka_rtt=arrived, replica=more * arrived, request=1, batch=requests.parts,
        record=replication_factor * requests.events, record_byte=replication_factor * requests.bytes,
    )  # fmt: skip


@kernel
def _exchanges(acked: Floats, delivered: Floats, answer: float) -> Floats:
    """The exchanges of one notifier, one a row: when it was sent; when its last notification was received;
    and that of the exchange before it, where it waited for that, else NaN; how many notifications.
    ``answer``: s from the last one received to the answer.
    """
    found = np.empty((len(acked), 4))
    rows, first, last = 0, 0, -np.inf
    while first < len(acked):
        now = max(last + answer, acked[first])
        there = 0
        while first + there < len(acked) and acked[first + there] <= now and there < _SHARE * _MOST:
            there += 1
        count = min(there, max(_FIRST, there // _SHARE), _MOST)
        found[rows, 2] = last if last + answer > acked[first] else np.nan
        last = delivered[first : first + count].max()
        found[rows, 0], found[rows, 1], found[rows, 3] = now, last, count
        rows += 1
        first += count
    return found[:rows]


def _shard(run: Observed, costs: Costs) -> Iterator[Equations]:
    events, subscribers = run.events, run.deployment.subscribers
    way, receive_delay = costs["redis_rtt"] / 2, costs["receive_delay"]
    bounds = np.searchsorted(events.publisher, np.arange(run.deployment.publishers + 1))
    table = np.concatenate([
        _exchanges(events.acked[begin:end], events.delivered[begin:end], way - receive_delay)
        for begin, end in pairwise(bounds.tolist())
    ])  # fmt: skip
    sent, last, before, many = table[np.argsort(table[:, 1], kind="stable")].T
    served = np.concatenate([[-np.inf], last[:-1]])
    queued = served - receive_delay > sent + way  # behind another publisher's
    backlog = ~queued & ~np.isnan(before)
    since = np.where(queued, served, np.where(backlog, before, sent))
    fresh = (~queued & ~backlog).astype(np.float64)
    yield _equations(
        "shard", sent, last - since, redis_rtt=backlog + fresh / 2, receive_delay=fresh, exchange=1,
        publish=many,
        deliver=many * subscribers, wake=_woken(run, fresh),
    )  # fmt: skip
    seconds = run.redis
    if not len(seconds.cpu):
        return
    begun = np.searchsorted(np.sort(sent), [seconds.begin, seconds.end])
    acked = np.searchsorted(np.sort(events.acked), [seconds.begin, seconds.end])
    count = (acked[1] - acked[0]).astype(np.float64)
    yield _equations(
        "shard's CPU", seconds.begin, seconds.cpu, exchange=(begun[1] - begun[0]).astype(np.float64),
        publish=count, deliver=count * subscribers, redis_idle=seconds.end - seconds.begin,
    )  # fmt: skip


def _consumer(run: Observed, costs: Costs, member: int) -> Equations:
    """A poll begins when a record can be read, or when those of the last one are dealt with."""
    rows = np.flatnonzero(run.events.member == member)
    rows = rows[np.argsort(run.events.consumed[rows], kind="stable")]
    at, first, count = np.unique(run.events.consumed[rows], return_index=True, return_counts=True)
    acked = np.minimum.reduceat(run.events.acked[rows], first) if len(first) else at
    readable = acked[1:] + costs["fetch_delay"] - costs["kafka_rtt"] / 2
    readable += costs["wake"] * _woken(run, np.ones(len(readable)))
    done = at[:-1] + costs["poll"] + costs["consume"] * count[:-1]
    fresh = (readable >= done).astype(np.float64)
    waited = 1 - fresh
    return _equations(
        "consumer", at[1:], at[1:] - np.where(fresh > 0, acked[1:], at[:-1]),
        fetch_delay=fresh, kafka_rtt=-fresh / 2, poll=waited,
        consume=waited * count[:-1], wake=_woken(run, fresh),
    )  # fmt: skip


def _woken(run: Observed, since_ack: Floats) -> Floats:
    """How often ``wake`` is in what is measured from an ack: never where the model wrote the ack itself."""
    return np.zeros(len(since_ack)) if run.simulated else -1.0 * since_ack
