"""What happens to the rest of the pipeline while a part is away; in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from dualstream_lab.simulation.analytic.capacity import Capacity, listening
from dualstream_lab.simulation.parameters import Deployment
from dualstream_lab.simulation.planning.requirements import Requirements
from dualstream_lab.units import count, many, percent, seconds

ELECTION: Final = 6.0
"""Seconds until the partitions of a broker that is gone have another leader, as in the fault catalogue."""

_NOTICED: Final = 1.5  # s that a publisher's breaker is open before it tries again
_Row: TypeAlias = tuple[str, float, str, str]


class Effect(NamedTuple):
    """Something that happens while a part is away."""

    part: str  # the part that is away
    quantity: str  # what it is, in words that follow the value
    value: float
    unit: str  # events, s, …; or "share"
    how: str  # how that comes about, as arithmetic


def effects(needs: Requirements, deployment: Deployment, stations: Capacity) -> list[Effect]:
    """What happens while one of each part is away for ``needs.outage`` s; of consumers, all of them.
    ``stations``: of the deployment at this load.
    """
    found = {
        "Redis shard": _shard(needs, deployment), "broker": _broker(needs, deployment, stations),
        "all consumers": _consumers(needs, stations["consumer"].ceiling),
        "gateway": _gateway(needs, deployment), "publisher": _publisher(needs, deployment, stations),
    }  # fmt: skip
    return [Effect(part, *row) for part, rows in found.items() for row in rows]


def _shard(needs: Requirements, deployment: Deployment) -> Iterator[_Row]:
    shards = deployment.shards
    reached = listening(deployment.gateways, deployment.clients)
    yield "publishes that fail or wait for it", 0, "events", "nobody waits for Redis"
    yield (
        "notifications dropped; the events are in Kafka", needs.rate / shards * needs.outage, "events",
        f"{count(needs.rate)}/s ÷ {many(shards, 'shard')} x {seconds(needs.outage)}",
    )  # fmt: skip
    yield (
        "reads of gateways when it is back, to repair", needs.sources / shards * reached, "reads",
        f"{many(needs.sources, 'source')} ÷ {many(shards, 'shard')} x {reached:.4g} gateways with clients",
    )  # fmt: skip
    yield (
        "at most, from its return until clients get live events again", _NOTICED, "s",
        "a publisher's breaker is open for so long before it tries again",
    )  # fmt: skip


def _broker(needs: Requirements, deployment: Deployment, stations: Capacity) -> Iterator[_Row]:
    brokers, deadline, copied = (
        deployment.brokers,
        deployment.delivery_timeout,
        deployment.replication_factor > 1,
    )
    rate, parts = f"{count(needs.rate)}/s", many(brokers, "broker")
    shares = f"{many(deployment.publishers, 'publisher')} ÷ {parts}"
    lasts = min(needs.outage, ELECTION) if copied else needs.outage
    coming = needs.rate / deployment.publishers / brokers
    waits = min(lasts, deadline)
    # A call waits for room behind those before it, whatever its partition: a full buffer refuses all.
    refusing = max(0.0, waits - deployment.buffer_events / coming - deployment.buffer_timeout)
    yield "of all partitions cannot be written", 1 / brokers, "share", f"1 of {parts}"
    yield (
        "until they can be again", lasts, "s",
        "until there is another leader" if copied else "there is no other copy",
    )  # fmt: skip
    yield (
        f"events wait in each publisher's buffer, of {count(deployment.buffer_events)}",
        min(coming * waits, deployment.buffer_events), "events",
        f"{rate} ÷ {shares} x {seconds(waits)}, at most the buffer",
    )  # fmt: skip
    yield (
        "events refused, as a buffer is full (NO_ROOM)", needs.rate * refusing, "events",
        (f"{rate} x what is left of {seconds(waits)} once buffers are full, after "
        f"{seconds(deployment.buffer_events / coming)}, for longer than {deployment.buffer_timeout:g} s"),
    )  # fmt: skip
    if copied:
        load = stations["broker"].load
        yield (
            "of their ceiling: load of the other brokers", load * brokers / (brokers - 1), "share",
            f"{percent(load)} x {brokers:,} ÷ {brokers - 1:,}",
        )  # fmt: skip
    else:
        yield (
            "events not written by their deadline (REJECTED or UNKNOWN)",
            needs.rate / brokers * max(0.0, lasts - deadline), "events",
            f"{rate} ÷ {parts} x what is left of {seconds(lasts)} after {seconds(deadline)}",
        )  # fmt: skip


def _consumers(needs: Requirements, ceiling: float) -> Iterator[_Row]:
    rate, behind = f"{count(needs.rate)}/s", needs.rate * needs.outage
    drain = behind / (ceiling - needs.rate) if ceiling > needs.rate else math.inf
    yield "records behind when they are back", behind, "records", f"{rate} x {seconds(needs.outage)}"
    yield "until they have caught up", drain, "s", f"{count(behind)} ÷ ({count(ceiling)}/s - {rate})"
    yield "events lost", 0, "events", "the log keeps them"


def _gateway(needs: Requirements, deployment: Deployment) -> Iterator[_Row]:
    others, clients = deployment.gateways - 1, needs.subscribers / deployment.gateways
    room = others * needs.max_connections - (needs.subscribers - clients)
    yield (
        "clients connect again, elsewhere", clients, "clients",
        f"{count(needs.subscribers)} ÷ {many(deployment.gateways, 'gateway')}",
    )  # fmt: skip
    yield (
        "of them find no room", max(0.0, math.floor(clients - room)), "clients",
        (f"{many(others, 'other')} x {needs.max_connections:,} connections - "
        f"{count(needs.subscribers - clients)} that they have = room for {count(room)}"),
    )  # fmt: skip
    yield (
        "reads, to catch up", clients * needs.per_subscriber, "reads",
        f"{many(clients, 'client')} x {many(needs.per_subscriber, 'source')}",
    )  # fmt: skip


def _publisher(needs: Requirements, deployment: Deployment, stations: Capacity) -> Iterator[_Row]:
    publishers, load = deployment.publishers, stations["publisher"].load
    if publishers == 1:
        yield "events/s that nobody publishes", needs.rate, "events", "there is no other one"
    else:
        yield (
            "of their ceiling: load of the others, with its events", load * publishers / (publishers - 1),
            "share", f"{percent(load)} x {publishers:,} ÷ {publishers - 1:,}",
        )  # fmt: skip
