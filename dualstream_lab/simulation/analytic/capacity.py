"""How busy each station is, and the rate at which it saturates: in closed form, for traffic that is evenly
spread over partitions, brokers, shards and gateways.

Publishers, notifiers and consumers take whatever waits in one go: the busier, the bigger the batches, and the
less each event costs. So a station can be busy all the time and still have room; *load*, the rate's share of
the ceiling, says how much, and the ceiling is where batches grow no further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.simulation.analytic.mean_value_analysis import (
    Comings,
    Work,
    different,
    log_other,
    settled,
)

if TYPE_CHECKING:
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
    "station",
    "traffic_of",
    "turns_per_call",
]

STATIONS: Final = ("publisher", "broker", "shard", "consumer", "gateway")
"""The way of an event; names as in ``Outcome.busy``."""

_EXCHANGE: Final = 4000  # notifications, as in the notifier
_POLL: Final = 10_000  # records, as in the consumer
_STEPS: Final = 16  # of bisection
_HIGHER: Final = 1.1  # steps of the search for a ceiling
_EVEN: Final = 4  # found to fit the model


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


class _Lane(NamedTuple):
    """In the mean: a batch of ``events`` every ``cycle`` s, which is on its way for a share ``away`` of them.
    ``busy``: the share that the server works that it has in common with others.
    """

    events: float
    cycle: float
    away: float
    busy: float


def capacity(traffic: Traffic, deployment: Deployment, costs: Costs) -> Capacity:
    """Every station of the deployment. Partitions are taken as whole multiples of brokers and consumers."""
    absent = {"consumer"} if not deployment.consumers else set()
    absent |= {"gateway"} if not deployment.gateways else set()
    return {name: station(name, traffic, deployment, costs) for name in STATIONS if name not in absent}


def station(name: str, traffic: Traffic, deployment: Deployment, costs: Costs) -> Station:
    """One of them; it must be there."""
    if name == "publisher":
        return _publisher(traffic, deployment, costs)
    if name == "gateway":
        each = costs.receive * _receivers(traffic, deployment) + costs.write * deployment.clients
        return _plain(traffic, deployment.gateways, fixed=0, most=1, each=each)
    broker, requests = _broker(traffic, deployment, costs)
    if name == "broker":
        return broker
    return (_shard if name == "shard" else _consumer)(traffic, deployment, costs, requests)


def traffic_of(workload: Workload) -> Traffic:
    """On average, heard by every gateway."""
    return Traffic(rate=workload.rate, batch=workload.batch, size=workload.payload_bytes)


def at_work(workload: Workload, deployment: Deployment, costs: Costs) -> float:
    """The share of time for which a publisher works on calls and their events."""
    calls = workload.rate / workload.batch / deployment.publishers
    return min(1.0, calls * (costs.call + costs.event * workload.batch))


def turns_per_call(traffic: Traffic, deployment: Deployment, costs: Costs) -> float:
    """About how many turns of its loop a publisher spends on a call's requests: one for those that leave
    together, and one for each answer. They are fewer where more calls come while requests are on their way.
    """
    lane = _requests(traffic, deployment, costs)
    spacing = traffic.batch * deployment.publishers / traffic.rate
    requests = deployment.brokers * spacing / lane.cycle
    # As calls come evenly, few of them find the last request on its way if it lasts less than their distance.
    late = lane.away * min(1.0, lane.away * lane.cycle / spacing) ** _EVEN
    together = 1 - late ** (deployment.brokers * _meets(traffic, deployment))
    return float(requests + requests * late + together)


def listening(gateways: int, clients: float) -> float:
    """Gateways that have one or more of an event's ``clients``, on average; a client is at any of them."""
    return min(clients, gateways * -math.expm1(clients * log_other(gateways))) if clients else 0.0


def _publisher(traffic: Traffic, deployment: Deployment, costs: Costs) -> Station:
    """Its ceiling is the rate from which on its loop is busy all the time. (At a higher one it may not be, as
    requests that wait for each other have more events in them; but it gets there from below only by luck.)
    """
    parts, served = deployment.publishers, costs.call / traffic.batch + costs.event

    def work(rate: float) -> float:
        """Of an event, s."""
        turns = turns_per_call(replace(traffic, rate=rate), deployment, costs)
        return served + costs.turn * turns / traffic.batch

    if not served or not costs.turn:
        return _plain(traffic, parts, fixed=costs.call, most=traffic.batch, each=costs.event)
    high = parts / (served + costs.turn * (2 * deployment.brokers + 1) / traffic.batch)
    while high * work(high) < parts:
        high *= _HIGHER
    low = high / _HIGHER
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if middle * work(middle) > parts else (middle, high)
    fixed = parts / low * traffic.batch - costs.event * traffic.batch
    plain = _plain(traffic, parts, fixed=fixed, most=traffic.batch, each=costs.event)
    return replace(plain, busy=min(1.0, traffic.rate * work(traffic.rate) / parts))


def _plain(traffic: Traffic, parts: int, *, fixed: float, most: float, each: float) -> Station:
    """A station whose batches have one size."""
    busy = min(1.0, traffic.rate * (fixed / most + each) / parts)
    return Station(parts=parts, fixed=fixed, most=most, each=each, rate=traffic.rate, busy=busy)


def _receivers(traffic: Traffic, deployment: Deployment) -> float:
    """Gateways that hear an event."""
    return listening(deployment.gateways, deployment.clients) if traffic.selective else deployment.gateways


def _meets(traffic: Traffic, deployment: Deployment) -> float:
    """That a call has events for a broker."""
    return -math.expm1(traffic.batch * log_other(deployment.brokers))


def _trip(deployment: Deployment, costs: Costs) -> float:
    """Of a request, there and back, with the wait for copies."""
    return costs.kafka_trip + costs.until_copied(deployment.copies)


def _copied(traffic: Traffic, deployment: Deployment, costs: Costs) -> float:
    """Of an event in a request, s."""
    return deployment.copies * (costs.record + costs.record_byte * traffic.size)


def _requests(traffic: Traffic, deployment: Deployment, costs: Costs) -> _Lane:
    lanes, meets = deployment.publishers, _meets(traffic, deployment)
    # Calls come evenly; which of them have something for the lane is chance.
    return _Lane(*settled(
        traffic.rate / (lanes * deployment.brokers), _most(traffic, deployment),
        Work(
            costs.request, costs.batch, deployment.partitions / deployment.brokers,
            _copied(traffic, deployment, costs), costs.broker_noise,
        ),
        Comings(_trip(deployment, costs), lanes, traffic.batch * lanes / (traffic.rate * meets), meets),
    ))  # fmt: skip


def _most(traffic: Traffic, deployment: Deployment) -> float:
    """Events of a request."""
    whole = max(1.0, deployment.batch_bytes // traffic.size)
    room = float(deployment.buffer_events)
    if deployment.callers:
        room = min(room, deployment.callers * traffic.batch)
    return max(1.0, min(deployment.partitions / deployment.brokers * whole, room / deployment.brokers))


def _broker(traffic: Traffic, deployment: Deployment, costs: Costs) -> tuple[Station, _Lane]:
    most, own = _most(traffic, deployment), deployment.partitions / deployment.brokers
    lane = _requests(traffic, deployment, costs)
    return Station(
        parts=deployment.brokers, fixed=costs.request + costs.batch * different(most, own), most=most,
        each=_copied(traffic, deployment, costs), rate=traffic.rate, busy=lane.busy,
        trip=_trip(deployment, costs), lanes=deployment.publishers,
        stops=min(0.99, costs.pauses * costs.pause),
    ), lane  # fmt: skip


def _shard(traffic: Traffic, deployment: Deployment, costs: Costs, requests: _Lane) -> Station:
    selective = traffic.selective and deployment.gateways
    heard = _receivers(traffic, deployment) if selective else deployment.receivers
    each = costs.publish + costs.deliver * heard
    lanes = deployment.publishers
    # Notifications come with the acks of requests, those that have some for this shard.
    meets = -math.expm1(requests.events * log_other(deployment.shards))
    lane = _Lane(*settled(
        traffic.rate / (lanes * deployment.shards), _EXCHANGE,
        Work(costs.exchange, 0, 1, each, costs.redis_noise),
        Comings(
            costs.redis_trip, lanes, requests.cycle / (deployment.brokers * meets), meets / deployment.brokers
        ),
    ))  # fmt: skip
    return Station(
        parts=deployment.shards, fixed=costs.exchange, most=_EXCHANGE, each=each, rate=traffic.rate,
        busy=lane.busy, trip=costs.redis_trip, lanes=lanes,
    )  # fmt: skip


def _consumer(traffic: Traffic, deployment: Deployment, costs: Costs, requests: _Lane) -> Station:
    members = deployment.consumers
    # Both divide the partitions by number: a member meets one broker in so many, and shares it with others.
    common = math.gcd(members, deployment.brokers)
    meets = -math.expm1(requests.events * log_other(members / common))
    brokers = deployment.brokers / common
    # A broker that is busy answers evenly; of many, it is chance whose answer comes next.
    lane = _Lane(*settled(
        traffic.rate / members, _POLL, Work(costs.poll, 0, 1, costs.consume, 0),
        Comings(
            0, 1, requests.cycle / (brokers * deployment.publishers * meets), requests.busy * meets / brokers
        ),
    ))  # fmt: skip
    return Station(
        parts=members, fixed=costs.poll, most=_POLL, each=costs.consume, rate=traffic.rate, busy=lane.busy
    )
