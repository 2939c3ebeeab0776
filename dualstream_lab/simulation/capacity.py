"""How busy each station is, and the rate at which it saturates: in closed form, for traffic that is evenly
spread over partitions, brokers, shards and gateways.

Publishers, notifiers and consumers take whatever waits in one go: the busier, the bigger the batches, and the
less each event costs. So a station can be busy all the time and still have room; *load*, the rate's share of
the ceiling, says how much, and the ceiling is where batches grow no further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.workload import Workload

__all__ = [
    "STATIONS",
    "Capacity",
    "Station",
    "Traffic",
    "at_work",
    "capacity",
    "listening",
    "traffic_of",
    "turns_per_call",
]

STATIONS: Final = ("publisher", "broker", "shard", "consumer", "gateway")
"""The way of an event; names as in ``Outcome.busy``."""

_EXCHANGE: Final = 4000  # notifications, as in the notifier
_POLL: Final = 10_000  # records, as in the consumer
_STEPS: Final = 60  # of bisection


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """``rate``: events/s. ``batch``: events of a call. ``size``: bytes of an event.

    ``selective``: a gateway hears only the sources that its clients want, as it does; else each hears
    everything, as in :func:`~dualstream_lab.simulation.simulate`.
    """

    rate: float
    batch: int = 10
    size: float = 300.0
    selective: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """``parts`` servers that are alike. Times in s.

    A batch of n events costs ``fixed`` + n x ``each``; it has ``most`` at most. Each of ``lanes`` has one
    batch on its way to a server, which spends ``trip`` elsewhere. ``lanes`` is 0 where nobody waits for an
    answer. ``stops``: the share of time that a server stands still. ``busy``: the share that it works, at the
    traffic's ``rate``; of shards and consumers about, as answers to one call may come together.
    """

    parts: int
    fixed: float
    most: float
    each: float
    rate: float
    busy: float
    trip: float = 0.0
    lanes: int = 0
    stops: float = 0.0

    @property
    def ceiling(self) -> float:
        """Events/s of all parts together."""
        work = (self.fixed + self.most * self.each) / (1 - self.stops)
        cycle = max(work, (self.trip + work) / self.lanes) if self.lanes else work
        return self.parts * self.most / cycle if cycle else math.inf

    @property
    def load(self) -> float:
        """The rate as a share of the ceiling."""
        return self.rate / self.ceiling


Capacity = dict[str, Station]
"""By name, in the order of ``STATIONS``; those that the deployment has."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """In the mean: a batch of ``events`` every ``cycle`` s. ``busy``: the server that it shares."""

    events: float
    cycle: float
    busy: float = 0.0


def capacity(traffic: Traffic, deployment: Deployment, costs: Costs) -> Capacity:
    """Every station of the deployment. Partitions are taken as whole multiples of brokers and consumers."""
    found = {"publisher": _publisher(traffic, deployment, costs)}
    found["broker"], requests = _broker(traffic, deployment, costs)
    found["shard"] = _shard(traffic, deployment, costs, requests)
    if deployment.consumers:
        found["consumer"] = _consumer(traffic, deployment, costs, requests)
    if deployment.gateways:
        each = costs.receive * _receivers(traffic, deployment) + costs.write * deployment.clients
        found["gateway"] = _plain(traffic, deployment.gateways, fixed=0, most=1, each=each)
    return found


def traffic_of(workload: Workload) -> Traffic:
    """On average, heard by every gateway."""
    return Traffic(rate=workload.rate, batch=workload.batch, size=workload.payload_bytes)


def at_work(workload: Workload, deployment: Deployment, costs: Costs) -> float:
    """The share of time for which a publisher works on calls and their events."""
    calls = workload.rate / workload.batch / deployment.publishers
    return min(1.0, calls * (costs.call + costs.event * workload.batch))


def turns_per_call(traffic: Traffic, deployment: Deployment, costs: Costs) -> float:
    """About how many turns of requests each call makes: one, or fewer where more calls come while the last
    requests are on their way. Those of a call to several brokers are one turn.
    """
    events = traffic.batch / deployment.brokers / _meets(traffic, deployment)
    lasts = _trip(deployment, costs) + _fixed(events, deployment, costs)
    lasts += events * _copied(traffic, deployment, costs)
    served = costs.call + costs.event * traffic.batch
    spacing = traffic.batch * deployment.publishers / traffic.rate
    found = min(1.0, spacing / lasts) if lasts else 1.0
    if served + costs.turn * found <= spacing:
        return found
    # The loop is busy all the time: calls come as fast as it serves them.
    return 1.0 if served + costs.turn >= lasts else served / (lasts - costs.turn)


def listening(gateways: int, clients: float) -> float:
    """Gateways that have one or more of an event's ``clients``, on average; a client is at any of them."""
    return min(clients, gateways * -math.expm1(clients * _log_other(gateways))) if clients else 0.0


def _publisher(traffic: Traffic, deployment: Deployment, costs: Costs) -> Station:
    """At its ceiling each call has a turn of requests of its own: no others come from a loop that is late."""
    parts, turns = deployment.publishers, turns_per_call(traffic, deployment, costs)
    plain = _plain(traffic, parts, fixed=costs.call + costs.turn, most=traffic.batch, each=costs.event)
    busy = traffic.rate / parts * ((costs.call + costs.turn * turns) / traffic.batch + costs.event)
    return replace(plain, busy=min(1.0, busy))


def _plain(traffic: Traffic, parts: int, *, fixed: float, most: float, each: float) -> Station:
    """A station whose batches have one size."""
    busy = min(1.0, traffic.rate * (fixed / most + each) / parts)
    return Station(parts=parts, fixed=fixed, most=most, each=each, rate=traffic.rate, busy=busy)


def _receivers(traffic: Traffic, deployment: Deployment) -> float:
    """Gateways that hear an event."""
    return listening(deployment.gateways, deployment.clients) if traffic.selective else deployment.gateways


def _meets(traffic: Traffic, deployment: Deployment) -> float:
    """That a call has events for a broker."""
    return -math.expm1(traffic.batch * _log_other(deployment.brokers))


def _trip(deployment: Deployment, costs: Costs) -> float:
    """Of a request, there and back, with the wait for copies."""
    return costs.kafka_trip + (costs.replica if deployment.copies > 1 else 0.0)


def _fixed(events: float, deployment: Deployment, costs: Costs) -> float:
    """Of a request with so many events: what it takes besides them, s."""
    own = deployment.partitions / deployment.brokers
    return costs.request + costs.batch * own * -math.expm1(events * _log_other(own))


def _copied(traffic: Traffic, deployment: Deployment, costs: Costs) -> float:
    """Of an event in a request, s."""
    return deployment.copies * (costs.record + costs.record_byte * traffic.size)


def _broker(traffic: Traffic, deployment: Deployment, costs: Costs) -> tuple[Station, _Lane]:
    own = deployment.partitions / deployment.brokers
    whole = max(1.0, deployment.batch_bytes // traffic.size)
    most = max(1.0, min(own * whole, deployment.buffer_events / deployment.brokers))
    each, trip = _copied(traffic, deployment, costs), _trip(deployment, costs)
    lanes = deployment.publishers
    rate = traffic.rate / (lanes * deployment.brokers)
    meets = _meets(traffic, deployment)
    spacing = traffic.batch * lanes / (traffic.rate * meets)

    def fixed(events: float) -> float:
        return _fixed(events, deployment, costs)

    # Calls come evenly; which of them have something for the lane is chance.
    idle = _idle(spacing, meets)

    def cycle(events: float) -> float:
        work = fixed(events) + each * events
        return _cycle(work, costs.broker_noise, trip, lanes, idle)

    lane = _settled(rate, most, cycle)
    busy = lanes * (fixed(lane.events) + each * lane.events) / lane.cycle
    return Station(
        parts=deployment.brokers, fixed=fixed(most), most=most, each=each, rate=traffic.rate,
        busy=min(1.0, busy), trip=trip, lanes=lanes, stops=min(0.99, costs.pauses * costs.pause),
    ), _Lane(lane.events, lane.cycle, min(1.0, busy))  # fmt: skip


def _shard(traffic: Traffic, deployment: Deployment, costs: Costs, requests: _Lane) -> Station:
    selective = traffic.selective and deployment.gateways
    heard = _receivers(traffic, deployment) if selective else deployment.subscribers
    each = costs.publish + costs.deliver * heard
    lanes = deployment.publishers
    # Notifications come with the acks of requests, those that have some for this shard.
    meets = -math.expm1(requests.events * _log_other(deployment.shards))
    idle = _idle(requests.cycle / (deployment.brokers * meets), meets / deployment.brokers)

    def cycle(events: float) -> float:
        work = costs.exchange + each * events
        return _cycle(work, costs.redis_noise, costs.redis_trip, lanes, idle)

    lane = _settled(traffic.rate / (lanes * deployment.shards), _EXCHANGE, cycle)
    busy = lanes * (costs.exchange + each * lane.events) / lane.cycle
    return Station(
        parts=deployment.shards, fixed=costs.exchange, most=_EXCHANGE, each=each, rate=traffic.rate,
        busy=min(1.0, busy), trip=costs.redis_trip, lanes=lanes,
    )  # fmt: skip


def _consumer(traffic: Traffic, deployment: Deployment, costs: Costs, requests: _Lane) -> Station:
    members = deployment.consumers
    # Both divide the partitions by number: a member meets one broker in so many, and shares it with others.
    common = math.gcd(members, deployment.brokers)
    meets = -math.expm1(requests.events * _log_other(members / common))
    brokers = deployment.brokers / common
    # A broker that is busy answers evenly; of many, it is chance whose answer comes next.
    idle = _idle(requests.cycle / (brokers * deployment.publishers * meets), requests.busy * meets / brokers)

    def cycle(events: float) -> float:
        work = costs.poll + costs.consume * events
        return work + idle(work)

    lane = _settled(traffic.rate / members, _POLL, cycle)
    busy = (costs.poll + costs.consume * lane.events) / lane.cycle if lane.cycle else 0.0
    return Station(
        parts=members, fixed=costs.poll, most=_POLL, each=costs.consume, rate=traffic.rate,
        busy=min(1.0, busy),
    )  # fmt: skip


def _log_other(parts: float) -> float:
    """Log of the chance that an event belongs to another one of so many."""
    return math.log1p(-1 / parts) if parts > 1 else -math.inf


def _idle(spacing: float, even: float) -> Callable[[float], float]:
    """The mean wait for what comes every ``spacing`` s, after a time in which it may have come: ``even`` is 1
    where it comes evenly, 0 where it comes by chance (Poisson).
    """

    def idle(time: float) -> float:
        return (1 - even) * spacing * math.exp(-time / spacing) + even * max(0.0, spacing - time)

    return idle


def _settled(rate: float, most: float, cycle: Callable[[float], float]) -> _Lane:
    """A lane takes what came in its last cycle, at ``rate`` events/s: how many that is where it settles."""
    low, high = 0.0, most
    for _ in range(_STEPS):
        events = (low + high) / 2
        if rate * cycle(events) > events:
            low = events
        else:
            high = events
    return _Lane(high, cycle(high))


def _cycle(work: float, noise: float, trip: float, lanes: int, idle: Callable[[float], float]) -> float:
    """Of lanes that each have one batch at a time on the way to a server that works on one after the other: s
    from one to the next, by mean value analysis. ``idle``: s until there is something, after so many.
    """
    waiting = at_work = cycle = 0.0
    for lane in range(1, lanes + 1):
        response = work * (1 + waiting - at_work + at_work * (1 + noise**2) / 2)
        cycle = trip + response
        cycle += idle(cycle)
        waiting, at_work = lane * response / cycle, lane * work / cycle
        if at_work > 0.9999:  # nothing but a longer queue comes with more
            return lanes * work
    return cycle
