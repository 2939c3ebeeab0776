"""From requirements to a bill of materials, with what saturates first and what outages do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.analytic.capacity import Capacity, capacity, listening
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.planning.outage_effects import Effect, effects
from dualstream_lab.simulation.planning.requirements import Requirements
from dualstream_lab.simulation.planning.sizing import size, smallest, with_brokers
from dualstream_lab.simulation.planning.trial_run import Rehearsal, rehearse

PARTS: Final = ("publishers", "brokers", "partitions", "shards", "gateways", "consumers")
"""Of the bill, as the fields of Deployment."""

_LATENCIES: Final = tuple((name, share) for name in ("publish", "live", "durable") for share in (0.5, 0.99))
_TRIES: Final = 6  # times that a part is raised to reach a goal
_CLUSTERS: Final = (2, 3, 5, 10, 30)
_SECOND: Final = 0.999
_SUM: Final = ("request", "kafka_rtt")
_BETTER: Final = 0.98  # of the latency; what helps less does not help
PUBLISHED: Final = 4  # steps of the way until the ack
_BROKERS: Final = {"brokers", "partitions", "replication_factor", "payload_bytes"}
_MATTERS: Final = {
    "publishers": {"rate", "batch", "publishers", *_BROKERS},
    "brokers": {"publishers", "brokers", "replication_factor", "payload_bytes"},
    "partitions": _BROKERS,
    "shards": {"publishers", "subscribers"},
    "gateways": {"clients_per_gateway"},
    "consumers": {"consumers", "payload_bytes"},
}
"""What a part's figures were measured with."""


class Figure(NamedTuple):
    """A figure of a plan, and how sure it is."""

    value: float
    low: float  # the lowest, with all costs at the low or at the high ends of their intervals
    high: float  # the highest
    extrapolated: bool  # whether it depends on something beyond what was measured


class Goal(NamedTuple):
    """A limit on a p99, in s."""

    name: str
    limit: float
    value: float  # with this plan
    least: float  # what the way takes by itself, whatever there is of each part

    @property
    def reached(self) -> bool:
        """Whether the plan holds the limit."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A deployment for some requirements, and what it can do."""

    needs: Requirements
    calibration: Calibration
    deployment: Deployment
    bill: Mapping[str, Figure]  # how many, by part
    stations: Capacity  # with their load and ceiling (events/s)
    loads: Mapping[str, Figure]  # shares of the ceiling, by station
    latency: Mapping[
        tuple[str, float], Figure
    ]  # s, by name and quantile; infinite where it would not keep up
    effects: tuple[tuple[Effect, Figure], ...]  # of outages
    goals: tuple[Goal, ...]
    beyond: Mapping[str, float]  # figures that are beyond what was measured, by name

    @property
    def bottleneck(self) -> str:
        """The station that saturates first as the rate grows."""
        return max(self.stations, key=lambda name: self.stations[name].load)

    @property
    def missed(self) -> tuple[Goal, ...]:
        """Goals that no number of parts reached; the plan is the nearest."""
        return tuple(goal for goal in self.goals if not goal.reached)


class _Variant(NamedTuple):
    """A deployment at some costs."""

    deployment: Deployment
    costs: Costs
    stations: Capacity
    trial: Rehearsal | None  # None where it would not keep up

    def quantile(self, name: str, share: float = 0.99) -> float:
        return self.trial.quantile(name, share) if self.trial else math.inf


def plan(needs: Requirements, calibration: Calibration | None = None) -> Plan:
    """The smallest deployment that works below ``max_load`` everywhere, and then what it takes for the goals,
    or comes nearest to them.

    Raises ConfigError where no number of parts carries the rate.
    """
    calibration = calibration or Calibration.shipped()
    best = _towards(needs, size(needs, calibration.costs), calibration.costs)
    ends = [_end(calibration, costs) for costs in (calibration.low, calibration.high)]
    variants = [best, *(_variant(needs, best.deployment, costs) for costs in ends)]
    sizes = [best.deployment, *(_sized(needs, costs) for costs in ends)]
    beyond = _beyond(needs, best.deployment, calibration)
    extrapolated = {part: bool(names & beyond.keys()) for part, names in _MATTERS.items()}
    outages = zip(*(effects(needs, best.deployment, each.stations) for each in variants), strict=True)
    return Plan(
        needs=needs, calibration=calibration, deployment=best.deployment, stations=best.stations,
        bill={
            part: _figure([getattr(one, part) if one else math.inf for one in sizes], extrapolated[part])
            for part in PARTS
        },
        loads={
            name: _figure([each.stations[name].load for each in variants], extrapolated[f"{name}s"])
            for name in best.stations
        },
        latency={
            (name, share): _figure([each.quantile(name, share) for each in variants], bool(beyond))
            for name, share in _LATENCIES
        },
        effects=tuple(_effect(ways, bool(beyond)) for ways in outages),
        goals=_goals(needs, best), beyond=beyond,
    )  # fmt: skip


def share_of(needs: Requirements, number: int) -> Requirements:
    """The requirements of one of so many separate clusters: its share of events, sources and subscribers."""
    return replace(
        needs, rate=needs.rate / number, sources=math.ceil(needs.sources / number),
        subscribers=math.ceil(needs.subscribers / number),
    )  # fmt: skip


def clusters(needs: Requirements, calibration: Calibration | None = None) -> int | None:
    """How many separate clusters reach the goals together, each with its share; a few numbers are tried.
    None: they do not, either.
    """
    costs = (calibration or Calibration.shipped()).costs
    for number in _CLUSTERS:
        part = share_of(needs, number)
        try:
            best = _towards(part, smallest(part, costs), costs)
        except ConfigError:
            continue
        if all(goal.reached for goal in _goals(part, best)):
            return number
    return None


def way(needs: Requirements, costs: Costs) -> list[tuple[str, float]]:
    """What each step takes one event for itself, s: no number of parts makes the way shorter."""
    bytes_ = needs.payload_bytes * costs.record_byte
    return [
        ("a call and its events", costs.call + needs.batch * costs.event),
        ("to Kafka and back", costs.kafka_rtt),
        (
            "a request with one event",
            costs.request + costs.batch + needs.replication_factor * (costs.record + bytes_),
        ),
        ("the wait for copies", costs.until_copied(needs.replication_factor)),
        ("to Redis", costs.redis_rtt / 2),
        ("an exchange with one notification", costs.exchange + costs.publish + costs.deliver),
        ("to the gateway", costs.receive_delay),
        ("the gateway", costs.receive + costs.write),
        ("until the gateway's tick, the slowest of 100", 0.99 * needs.tick),
    ]


def _end(calibration: Calibration, costs: Costs) -> Costs:
    """Costs at one end of their intervals, but for those that are only known as a sum."""
    if calibration.observed & set(_SUM):
        return costs
    return replace(costs, **{name: getattr(calibration.costs, name) for name in _SUM})


def _goals(needs: Requirements, variant: _Variant) -> tuple[Goal, ...]:
    steps = [spent for _, spent in way(needs, variant.costs)]
    limits = {"publish": (needs.publish_p99, steps[:PUBLISHED]), "live": (needs.live_p99, steps)}
    return tuple(
        Goal(name, limit, variant.quantile(name), sum(least))
        for name, (limit, least) in limits.items()
        if limit is not None
    )


def _variant(needs: Requirements, deployment: Deployment, costs: Costs) -> _Variant:
    stations = capacity(needs.traffic, deployment, costs)
    keeps_up = max(station.load for station in stations.values()) < 1
    return _Variant(deployment, costs, stations, rehearse(needs, deployment, costs) if keeps_up else None)


def _sized(needs: Requirements, costs: Costs) -> Deployment | None:
    try:
        return smallest(needs, costs)
    except ConfigError:  # not with any number of parts
        return None


def _towards(needs: Requirements, deployment: Deployment, costs: Costs) -> _Variant:
    """Half as many more of the part that costs most time, as long as a goal is missed and it helps."""
    best, useless = _variant(needs, deployment, costs), set[str]()
    for _ in range(_TRIES):
        missed = [goal.name for goal in _goals(needs, best) if not goal.reached]
        if best.trial is None or not missed:
            break
        # Brokers first; a publisher's loop is in the same figure.
        spent = {"brokers": best.quantile("publish"), "publishers": best.quantile("publish") * _SECOND}
        if missed[0] == "live":
            spent |= {"shards": best.quantile("redis"), "gateways": best.quantile("gateway")}
        left = {part: time for part, time in spent.items() if part not in useless}
        if not left:
            break
        part = max(left, key=left.__getitem__)
        more = _more(needs, best.deployment, part, costs)
        better = _variant(needs, more, costs) if more else None
        if better and better.quantile(missed[0]) < _BETTER * best.quantile(missed[0]):
            best = better
        else:
            useless.add(part)
    return best


def _more(needs: Requirements, deployment: Deployment, part: str, costs: Costs) -> Deployment | None:
    """The deployment with half as many more of a part, and what else that takes; None where it cannot be."""
    parts = math.ceil(getattr(deployment, part) * 1.5)
    try:
        if part != "brokers":
            return replace(deployment, **{part: parts})
        return with_brokers(needs, deployment, parts, costs)
    except ConfigError:
        return None


def _figure(values: Sequence[float], extrapolated: bool) -> Figure:
    return Figure(values[0], min(values), max(values), extrapolated)


def _effect(ways: Sequence[Effect], extrapolated: bool) -> tuple[Effect, Figure]:
    """An outage's effect with all three costs; what does not depend on them needs no measurement."""
    values = [one.value for one in ways]
    return ways[0], _figure(values, extrapolated and min(values) < max(values))


def _beyond(needs: Requirements, deployment: Deployment, calibration: Calibration) -> dict[str, float]:
    """The figures of the plan that are beyond what was measured, by name."""
    parts = ("publishers", "brokers", "partitions", "replication_factor", "consumers")
    return calibration.beyond({
        "rate": needs.rate / deployment.publishers, "batch": needs.batch,
        "payload_bytes": needs.payload_bytes, **{name: getattr(deployment, name) for name in parts},
        "subscribers": listening(deployment.gateways, deployment.clients),
        "clients_per_gateway": needs.subscribers / deployment.gateways,
    })  # fmt: skip
