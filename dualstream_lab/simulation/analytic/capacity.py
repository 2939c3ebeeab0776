"""How busy each station is, and the rate at which it saturates: in closed form, for traffic that is evenly
spread over partitions, brokers, shards and gateways.

Publishers, notifiers and consumers take whatever waits in one go: the busier, the bigger the batches, and the
less each event costs. So a station can be busy all the time and still have room; *load*, the rate's share of
the ceiling, says how much, and the ceiling is where batches grow no further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from dualstream_lab.simulation.analytic import mean_value_analysis as means
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.workload import Workload

STATIONS: Final = ("publisher", "broker", "shard", "consumer", "gateway")
"""The way of an event; names as in ``Outcome.busy``."""

_EXCHANGE: Final = 4000  # notifications, as in the notifier
_POLL: Final = 10_000  # records, as in the consumer
_STEPS: Final = 16  # of bisection
_HIGHER: Final = 1.1  # steps of the search for a ceiling
_EVEN: Final = 4  # found to fit the model
_WORK: Final = (
    "call", "event", "turn", "request", "batch", "record", "record_byte", "exchange", "publish", "deliver",
    "poll", "consume", "receive", "write",
)  # fmt: skip
"""Costs that keep a core busy; the others are ways and waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is published.

    ``selective``: a gateway gets only the sources that its clients want, as it does; else each gets
    everything, as in :func:`~dualstream_lab.simulation.simulate`.
    """

    rate: float  # events/s
    batch: int = 10  # events of a call
    size: float = 300.0  # bytes of an event
    selective: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Servers that are alike, and how busy the traffic keeps them."""

    parts: int  # how many servers
    fixed: float  # s that each batch takes, whatever is in it
    most: float  # the most events of a batch
    each: float  # s for each event of a batch
    rate: float  # events/s of the traffic
    utilization: float  # the share of time that a server works; of shards and consumers about
    rtt: float = 0.0  # s that a batch is on its way to a server and back
    connections: int = 0  # each has one batch on its way at a time; 0 where nobody waits for an answer
    stops: float = 0.0  # the share of time that a server stands still

    @property
    def ceiling(self) -> float:
        """Events/s of all parts together."""
        work = (self.fixed + self.most * self.each) / (1 - self.stops)
        cycle = max(work, (self.rtt + work) / self.connections) if self.connections else work
        return self.parts * self.most / cycle if cycle else math.inf

    @property
    def load(self) -> float:
        """The rate as a share of the ceiling."""
        return self.rate / self.ceiling


Capacity = dict[str, Station]  # by name, in the order of ``STATIONS``; those that the deployment has


def capacity(traffic: Traffic, deployment: Deployment, costs: Costs) -> Capacity:
    """Every station of the deployment. Partitions are taken as whole multiples of brokers and consumers."""
    absent = {"consumer"} if not deployment.consumers else set()
    absent |= {"gateway"} if not deployment.gateways else set()
    pipeline = _Pipeline(traffic, deployment, costs)
    return {name: getattr(pipeline, name)() for name in STATIONS if name not in absent}


def station(name: str, traffic: Traffic, deployment: Deployment, costs: Costs) -> Station:
    """One station of the deployment, by name; it must be there."""
    found: Station = getattr(_Pipeline(traffic, deployment, costs), name)()
    return found


def traffic_of(workload: Workload) -> Traffic:
    """The traffic of a workload, on average; every gateway gets all of it."""
    return Traffic(rate=workload.rate, batch=workload.batch, size=workload.payload_bytes)


def at_work(workload: Workload, deployment: Deployment, costs: Costs) -> float:
    """The share of time for which a publisher works on calls and their events."""
    calls = workload.rate / workload.batch / deployment.publishers
    return min(1.0, calls * (costs.call + costs.event * workload.batch))


def turns_per_call(traffic: Traffic, deployment: Deployment, costs: Costs) -> float:
    """About how many turns of its loop a publisher spends on a call's requests: one for those that leave
    together, and one for each answer. They are fewer where more calls come while requests are on their way.
    """
    _, batch, meets = _Pipeline(traffic, deployment, costs).requests
    spacing = traffic.batch * deployment.publishers / traffic.rate
    requests = deployment.brokers * spacing / batch.cycle
    # As calls come evenly, few of them find the last request on its way if it lasts less than their distance.
    late = batch.away * min(1.0, batch.away * batch.cycle / spacing) ** _EVEN
    together = 1 - late ** (deployment.brokers * meets)
    return float(requests + requests * late + together)


def listening(gateways: int, clients: float) -> float:
    """Gateways that have one or more of an event's ``clients``, on average; a client is at any of them."""
    return min(clients, gateways * -math.expm1(clients * means.log_other(gateways))) if clients else 0.0


@dataclass(frozen=True)
class _Pipeline:
    """A deployment under a traffic: a method a station, of the name it has in ``STATIONS``."""

    traffic: Traffic
    deployment: Deployment
    costs: Costs

    def publisher(self) -> Station:
        """The publishers: their ceiling is the rate from which on loops are busy all the time. (At a higher
        one they may not be, as requests that wait for each other have more events in them; but they get
        there from below only by luck.)
        """
        traffic, costs, parts = self.traffic, self.costs, self.deployment.publishers
        served = costs.call / traffic.batch + costs.event

        def work(rate: float) -> float:
            """Seconds of work that an event is."""
            turns = turns_per_call(replace(traffic, rate=rate), self.deployment, costs)
            return served + costs.turn * turns / traffic.batch

        if not served or not costs.turn:
            return self._plain(parts, fixed=costs.call, most=traffic.batch, each=costs.event)
        high = parts / (served + costs.turn * (2 * self.deployment.brokers + 1) / traffic.batch)
        while high * work(high) < parts:
            high *= _HIGHER
        low = high / _HIGHER
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if middle * work(middle) > parts else (middle, high)
        fixed = parts / low * traffic.batch - costs.event * traffic.batch
        plain = self._plain(parts, fixed=fixed, most=traffic.batch, each=costs.event)
        return replace(plain, utilization=min(1.0, traffic.rate * work(traffic.rate) / parts))

    def broker(self) -> Station:
        return self.requests[0]

    def shard(self) -> Station:
        deployment, costs, requests = self.deployment, self.costs, self.requests[1]
        selective = self.traffic.selective and deployment.gateways
        each = costs.publish + costs.deliver * (self._receivers if selective else deployment.receivers)
        publishers = deployment.publishers
        # Notifications come with the acks of requests, those that have some for this shard.
        meets = -math.expm1(requests.events * means.log_other(deployment.shards))
        spacing = requests.cycle / (deployment.brokers * meets)
        utilization = means.settled(
            self.traffic.rate / (publishers * deployment.shards), _EXCHANGE,
            means.Work(costs.exchange, 0, 1, each, costs.redis_noise),
            means.Comings(costs.redis_rtt, publishers, spacing, meets / deployment.brokers),
        ).utilization  # fmt: skip
        return Station(
            parts=deployment.shards, fixed=costs.exchange, most=_EXCHANGE, each=each, rate=self.traffic.rate,
            utilization=utilization, rtt=costs.redis_rtt, connections=publishers,
        )  # fmt: skip

    def consumer(self) -> Station:
        deployment, costs, requests = self.deployment, self.costs, self.requests[1]
        members = deployment.consumers
        # Both divide the partitions by number: a member meets one broker in so many, which others share.
        common = math.gcd(members, deployment.brokers)
        meets = -math.expm1(requests.events * means.log_other(members / common))
        brokers = deployment.brokers / common
        # A broker that is busy answers evenly; of many, it is chance whose answer comes next.
        spacing = requests.cycle / (brokers * deployment.publishers * meets)
        utilization = means.settled(
            self.traffic.rate / members, _POLL, means.Work(costs.poll, 0, 1, costs.consume, 0),
            means.Comings(0, 1, spacing, requests.utilization * meets / brokers),
        ).utilization  # fmt: skip
        return Station(
            parts=members, fixed=costs.poll, most=_POLL, each=costs.consume, rate=self.traffic.rate,
            utilization=utilization,
        )  # fmt: skip

    def gateway(self) -> Station:
        each = self.costs.receive * self._receivers + self.costs.write * self.deployment.clients
        return self._plain(self.deployment.gateways, fixed=0, most=1, each=each)

    def _plain(self, parts: int, *, fixed: float, most: float, each: float) -> Station:
        """A station whose batches have one size."""
        utilization = min(1.0, self.traffic.rate * (fixed / most + each) / parts)
        return Station(
            parts=parts, fixed=fixed, most=most, each=each, rate=self.traffic.rate, utilization=utilization
        )

    @property
    def _receivers(self) -> float:
        """Gateways that receive an event."""
        gateways = self.deployment.gateways
        return listening(gateways, self.deployment.clients) if self.traffic.selective else gateways

    @cached_property
    def requests(self) -> tuple[Station, means.Batch, float]:
        """(the brokers, a publisher's requests to one of them, the chance that a call has events for it)."""
        traffic, deployment, costs = self.traffic, self.deployment, self.costs
        publishers, own = deployment.publishers, deployment.partitions / deployment.brokers
        each = deployment.replication_factor * (costs.record + costs.record_byte * traffic.size)
        rtt = costs.kafka_rtt + costs.until_copied(deployment.replication_factor)
        room = float(deployment.buffer_events)
        if deployment.callers:
            room = min(room, deployment.callers * traffic.batch)
        whole = max(1.0, deployment.batch_bytes // traffic.size)
        most = max(1.0, min(own * whole, room / deployment.brokers))
        meets = -math.expm1(traffic.batch * means.log_other(deployment.brokers))
        # Calls come evenly; which of them have something for the connection is chance.
        batch = means.settled(
            traffic.rate / (publishers * deployment.brokers), most,
            means.Work(costs.request, costs.batch, own, each, costs.broker_noise),
            means.Comings(rtt, publishers, traffic.batch * publishers / (traffic.rate * meets), meets),
        )  # fmt: skip
        return Station(
            parts=deployment.brokers, fixed=costs.request + costs.batch * means.different(most, own),
            most=most, each=each, rate=traffic.rate, utilization=batch.utilization, rtt=rtt,
            connections=publishers, stops=min(0.99, costs.pauses * costs.pause),
        ), batch, meets  # fmt: skip


def on_shared_cores(costs: Costs, workload: Workload, deployment: Deployment) -> Costs:
    """What each step costs where all parts together want more than ``deployment.cores``: the same shares of
    them, so that the part that saturates first does so at the rate at which all cores are used. Below that
    rate, and where each part has a core of its own (0), nothing is changed.
    """
    if not deployment.cores:
        return costs
    stations = capacity(traffic_of(workload), deployment, costs).values()
    first = min(station.ceiling for station in stations)
    each = sum((station.fixed + station.most * station.each) / station.most for station in stations)
    together = deployment.cores / each
    if together >= min(first, workload.rate):
        return costs
    return replace(costs, **{name: getattr(costs, name) * first / together for name in _WORK})
