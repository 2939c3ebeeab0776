"""What the rest of the pipeline has of it when a part is away; in closed form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.simulation.capacity import capacity, listening

if TYPE_CHECKING:
    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.simulation.requirements import Requirements

__all__ = ["ELECTION", "Effect", "effects"]

ELECTION: Final = 6.0
"""Seconds until the partitions of a broker that is gone have another leader, as in the fault catalogue."""

_NOTICED: Final = 1.5  # s that a publisher's breaker is open before it tries again


class Effect(NamedTuple):
    """When ``part`` is away, ``what`` is so many ``unit`` (events, s, …; ``share``: of a ceiling)."""

    part: str
    what: str
    value: float
    unit: str


def effects(needs: Requirements, deployment: Deployment, costs: Costs) -> list[Effect]:
    """One of each part away for ``needs.outage`` s, the others well; of consumers, all of them."""
    return [
        *_shard(needs, deployment),
        *_broker(needs, deployment, costs),
        *_consumers(needs, deployment, costs),
        *_gateway(needs, deployment),
        *_publisher(needs, deployment, costs),
    ]


def _shard(needs: Requirements, deployment: Deployment) -> list[Effect]:
    part, away = "Redis shard", needs.outage
    dropped = needs.rate / deployment.shards * away
    its = needs.sources / deployment.shards
    dirty = its * -math.expm1(-dropped / its)
    heard = listening(deployment.gateways, deployment.clients)
    return [
        Effect(part, "publishes that fail or wait for it", 0, "events"),
        Effect(part, "notifications dropped, all of them in Kafka", dropped, "events"),
        Effect(part, "sources announced for repair when it is back", dirty, "sources"),
        Effect(part, "reads of gateways, to repair them", dirty * heard, "reads"),
        Effect(part, "until clients hear live again, after it is back: at most", _NOTICED, "s"),
    ]


def _broker(needs: Requirements, deployment: Deployment, costs: Costs) -> list[Effect]:
    part, brokers = "broker", deployment.brokers
    lasts = min(needs.outage, ELECTION) if deployment.copies > 1 else needs.outage
    coming = needs.rate / deployment.publishers
    waiting = coming / brokers * min(lasts, deployment.delivery_timeout)
    full = deployment.buffer_events / (coming / brokers)
    # A call waits for room behind those before it, whatever its partition: a full buffer refuses all.
    refusing = max(0.0, min(lasts, deployment.delivery_timeout) - full - deployment.buffer_timeout)
    settled = max(0.0, lasts - deployment.delivery_timeout)
    found = [
        Effect(part, "share of all partitions that cannot be written", 1 / brokers, "share"),
        Effect(part, "until they can be again", lasts, "s"),
        Effect(part, "events that wait in each publisher's buffer", min(waiting, deployment.buffer_events),
               "events"),
        Effect(part, "events refused as a buffer is full (NO_ROOM)", needs.rate * refusing, "events"),
    ]  # fmt: skip
    if deployment.copies == 1:
        late = "events not written by their deadline (REJECTED or UNKNOWN)"
        found.append(Effect(part, late, needs.rate / brokers * settled, "events"))
    else:
        others = capacity(needs.traffic, deployment, costs)["broker"].load * brokers / (brokers - 1)
        found.append(Effect(part, "load of the other brokers, of their ceiling", others, "share"))
    return found


def _consumers(needs: Requirements, deployment: Deployment, costs: Costs) -> list[Effect]:
    part, away = "all consumers", needs.outage
    ceiling = capacity(needs.traffic, deployment, costs)["consumer"].ceiling
    drain = needs.rate * away / (ceiling - needs.rate) if ceiling > needs.rate else math.inf
    return [
        Effect(part, "records behind when they are back", needs.rate * away, "records"),
        Effect(part, "until they have caught up", drain, "s"),
        Effect(part, "events lost, as the log keeps them", 0, "events"),
    ]


def _gateway(needs: Requirements, deployment: Deployment) -> list[Effect]:
    part, gateways = "gateway", deployment.gateways
    clients = needs.subscribers / gateways
    room = (gateways - 1) * needs.max_connections - (needs.subscribers - clients)
    return [
        Effect(part, "clients that connect again, elsewhere", clients, "clients"),
        Effect(part, "more of them at each other gateway", clients / (gateways - 1), "clients"),
        Effect(part, "clients that find no room", max(0.0, math.floor(clients - room)), "clients"),
        Effect(part, "reads, to catch up", clients * needs.per_subscriber, "reads"),
    ]


def _publisher(needs: Requirements, deployment: Deployment, costs: Costs) -> list[Effect]:
    part, publishers = "publisher", deployment.publishers
    if publishers == 1:
        return [Effect(part, "events/s that nobody publishes", needs.rate, "events")]
    load = capacity(needs.traffic, deployment, costs)["publisher"].load * publishers / (publishers - 1)
    return [Effect(part, "load of the others, of their ceiling, with its events", load, "share")]
