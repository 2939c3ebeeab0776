"""What the rest of the pipeline has of it when a part is away; in closed form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.simulation.analytic.capacity import listening, station
from dualstream_lab.units import count, many, percent, seconds

if TYPE_CHECKING:
    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.simulation.planning.requirements import Requirements

__all__ = ["ELECTION", "Effect", "effects"]

ELECTION: Final = 6.0
"""Seconds until the partitions of a broker that is gone have another leader, as in the fault catalogue."""

_NOTICED: Final = 1.5  # s that a publisher's breaker is open before it tries again


class Effect(NamedTuple):
    """When ``part`` is away: so many ``unit`` (events, s, …; or a ``share``) of ``what``, and ``how`` that
    comes about.
    """

    part: str
    what: str
    value: float
    unit: str
    how: str


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
    part, shards = "Redis shard", deployment.shards
    dropped = needs.rate / shards * needs.outage
    heard = listening(deployment.gateways, deployment.clients)
    return [
        Effect(part, "publishes that fail or wait for it", 0, "events", "nobody waits for Redis"),
        Effect(
            part, "notifications dropped; the events are in Kafka", dropped, "events",
            f"{count(needs.rate)}/s ÷ {many(shards, 'shard')} x {seconds(needs.outage)}",
        ),
        Effect(
            part, "reads of gateways when it is back, to repair",
            needs.sources / shards * heard, "reads",
            f"{many(needs.sources, 'source')} ÷ {many(shards, 'shard')} x {heard:.4g} gateways with clients",
        ),
        Effect(
            part, "at most, from its return until clients hear live again", _NOTICED, "s",
            "a publisher's breaker is open for so long before it tries again",
        ),
    ]  # fmt: skip


def _broker(needs: Requirements, deployment: Deployment, costs: Costs) -> list[Effect]:
    part, brokers, deadline = "broker", deployment.brokers, deployment.delivery_timeout
    lasts = min(needs.outage, ELECTION) if deployment.copies > 1 else needs.outage
    coming = needs.rate / deployment.publishers / brokers
    waits = min(lasts, deadline)
    # A call waits for room behind those before it, whatever its partition: a full buffer refuses all.
    refusing = max(0.0, waits - deployment.buffer_events / coming - deployment.buffer_timeout)
    found = [
        Effect(
            part, "of all partitions cannot be written", 1 / brokers, "share",
            f"1 of {many(brokers, 'broker')}",
        ),
        Effect(
            part, "until they can be again", lasts, "s",
            "until there is another leader" if deployment.copies > 1 else "there is no other copy",
        ),
        Effect(
            part, f"events wait in each publisher's buffer, of {count(deployment.buffer_events)}",
            min(coming * waits, deployment.buffer_events), "events",
            f"{count(needs.rate)}/s ÷ {many(deployment.publishers, 'publisher')} ÷ {many(brokers, 'broker')} "
            f"x {seconds(waits)}, at most the buffer",
        ),
        Effect(
            part, "events refused, as a buffer is full (NO_ROOM)", needs.rate * refusing, "events",
            f"{count(needs.rate)}/s x what is left of {seconds(waits)} once buffers are full, after "
            f"{seconds(deployment.buffer_events / coming)}, for longer than {deployment.buffer_timeout:g} s",
        ),
    ]  # fmt: skip
    if deployment.copies == 1:
        found.append(Effect(
            part, "events not written by their deadline (REJECTED or UNKNOWN)",
            needs.rate / brokers * max(0.0, lasts - deadline), "events",
            f"{count(needs.rate)}/s ÷ {many(brokers, 'broker')} x what is left of {seconds(lasts)} after "
            f"{seconds(deadline)}",
        ))  # fmt: skip
        return found
    load = station("broker", needs.traffic, deployment, costs).load
    found.append(Effect(
        part, "of their ceiling: load of the other brokers", load * brokers / (brokers - 1), "share",
        f"{percent(load)} x {brokers:,} ÷ {brokers - 1:,}",
    ))  # fmt: skip
    return found


def _consumers(needs: Requirements, deployment: Deployment, costs: Costs) -> list[Effect]:
    part, behind = "all consumers", needs.rate * needs.outage
    ceiling = station("consumer", needs.traffic, deployment, costs).ceiling
    drain = behind / (ceiling - needs.rate) if ceiling > needs.rate else math.inf
    return [
        Effect(
            part, "records behind when they are back", behind, "records",
            f"{count(needs.rate)}/s x {seconds(needs.outage)}",
        ),
        Effect(
            part, "until they have caught up", drain, "s",
            f"{count(behind)} ÷ ({count(ceiling)}/s - {count(needs.rate)}/s)",
        ),
        Effect(part, "events lost", 0, "events", "the log keeps them"),
    ]  # fmt: skip


def _gateway(needs: Requirements, deployment: Deployment) -> list[Effect]:
    part, others = "gateway", deployment.gateways - 1
    clients = needs.subscribers / deployment.gateways
    room = others * needs.max_connections - (needs.subscribers - clients)
    return [
        Effect(
            part, "clients connect again, elsewhere", clients, "clients",
            f"{count(needs.subscribers)} ÷ {many(deployment.gateways, 'gateway')}",
        ),
        Effect(
            part, "of them find no room", max(0.0, math.floor(clients - room)), "clients",
            f"{many(others, 'other')} x {needs.max_connections:,} connections - "
            f"{count(needs.subscribers - clients)} that they have = room for {count(room)}",
        ),
        Effect(
            part, "reads, to catch up", clients * needs.per_subscriber, "reads",
            f"{many(clients, 'client')} x {many(needs.per_subscriber, 'source')}",
        ),
    ]  # fmt: skip


def _publisher(needs: Requirements, deployment: Deployment, costs: Costs) -> list[Effect]:
    part, publishers = "publisher", deployment.publishers
    if publishers == 1:
        return [Effect(part, "events/s that nobody publishes", needs.rate, "events", "there is no other one")]
    load = station("publisher", needs.traffic, deployment, costs).load
    return [Effect(
        part, "of their ceiling: load of the others, with its events", load * publishers / (publishers - 1),
        "share", f"{percent(load)} x {publishers:,} ÷ {publishers - 1:,}",
    )]  # fmt: skip
