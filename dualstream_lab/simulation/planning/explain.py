"""How a plan's figures come about, line by line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from dualstream_lab.simulation.analytic.capacity import Station, listening
from dualstream_lab.simulation.planning.plan import Plan, way
from dualstream_lab.units import count, many, percent, seconds

_BATCHES: Final = {
    "publisher": ("publishers", "a call of {}", "event"),
    "broker": ("brokers", "a request of at most {}", "event"),
    "shard": ("Redis shards", "an exchange of at most {}", "notification"),
    "consumer": ("consumers", "a poll of at most {}", "record"),
}


def arithmetic(plan: Plan) -> list[str]:
    """Lines to print, in the order of an event's way; nothing in them is rounded before it is shown."""
    needs, deployment = plan.needs, plan.deployment
    reached = listening(deployment.gateways, deployment.clients)
    rooms = math.ceil(needs.subscribers / needs.max_connections)
    show = {"s": seconds, "share": percent}
    return [
        f"of each part, the smallest number whose load, rate ÷ ceiling, is at most {percent(needs.max_load)}"
        + ("; more where a goal takes it" if plan.goals else ""),
        (
            f"{many(needs.subscribers, 'subscriber')} x {many(needs.per_subscriber, 'source')} ÷ "
            f"{many(needs.sources, 'source')} = {many(needs.clients, 'client')} of an event"
        ),
        (
            f"they are at {reached:.4g} of {deployment.gateways:,} gateways, G x (1 - (1 - 1/G)^clients), so "
            f"Redis delivers each notification {reached:.4g} times"
        ),
        *(line for name in _BATCHES for line in _of(name, plan.stations[name], plan)),
        *_gateways(plan, reached),
        (
            f"gateways: {needs.subscribers:,} connections ÷ {needs.max_connections:,} = {rooms:,}, and one "
            "more so that the clients of one that fails find room"
        ),
        (
            f"partitions: {deployment.partitions:,}, a multiple of {many(deployment.brokers, 'broker')} and "
            f"of {many(deployment.consumers, 'consumer')}, so that all have the same to do"
        ),
        *_latency(plan),
        *(
            f"{effect.part} away: {show.get(effect.unit, count)(effect.value)} {effect.quantity}: "
            f"{effect.how}"
            for effect, _ in plan.effects
        ),
    ]


def _of(name: str, station: Station, plan: Plan) -> Iterator[str]:
    plural, batch, item = _BATCHES[name]
    most, work = count(station.most), station.fixed + station.most * station.each
    yield (
        f"{plural}: {batch.format(most)} takes {seconds(station.fixed)} + {most} x {seconds(station.each)} = "
        f"{seconds(work)}: {_each(name, plan)}"
    )
    alone = station.parts * station.most / work * (1 - station.stops)
    stops = f" x {1 - station.stops:.4g} (pauses)" if station.stops else ""
    yield f"{plural}: {station.parts:,} x {most} ÷ {seconds(work)}{stops} = {count(alone)} {item}s/s"
    if station.ceiling < 0.999 * alone:
        yield (
            f"{plural}: no more than {count(station.ceiling)}, as {many(station.connections, 'publisher')} "
            f"can have one each on its way to each, for {seconds(station.rtt)} besides"
        )
    yield _share(plural, station)


def _each(name: str, plan: Plan) -> str:
    """What the work for a batch and for each of its events is made of."""
    costs, deployment, needs = plan.calibration.costs, plan.deployment, plan.needs
    station = plan.stations[name]
    if name == "publisher":
        turns = (station.fixed - costs.call) / costs.turn if costs.turn else 0.0
        return (
            f"the call {seconds(costs.call)} + {turns:.3g} turns of the loop for requests and answers, x "
            f"{seconds(costs.turn)}; and each of its events"
        )
    if name == "broker":
        own = deployment.partitions // deployment.brokers
        return (
            f"the request {seconds(costs.request)} + {many(own, 'partition')} x {seconds(costs.batch)}; "
            f"an event {deployment.replication_factor} x ({seconds(costs.record)} + "
            f"{needs.payload_bytes:,} B x {costs.record_byte * 1e9:.3g} ns)"
        )
    if name == "shard":
        reached = (station.each - costs.publish) / costs.deliver if costs.deliver else 0.0
        return (
            f"a notification {seconds(costs.publish)} + {count(reached)} receivers x {seconds(costs.deliver)}"
        )
    return "the poll, and each of its records"


def _gateways(plan: Plan, reached: float) -> Iterator[str]:
    costs, station = plan.calibration.costs, plan.stations["gateway"]
    yield (
        f"gateways: an event costs all of them {count(reached)} x {seconds(costs.receive)} to receive + "
        f"{count(plan.needs.clients)} x {seconds(costs.write)} to write = {seconds(station.each)}; "
        f"{station.parts:,} ÷ {seconds(station.each)} = {count(station.ceiling)} events/s"
    )
    yield _share("gateways", station)


def _share(plural: str, station: Station) -> str:
    load = f"{count(station.rate)}/s ÷ {count(station.ceiling)}/s = {percent(station.load)} of their ceiling"
    if station.utilization < station.load + 0.005:
        return f"{plural}: {load}"
    return f"{plural}: {load}; busy {percent(station.utilization)} of the time, with smaller batches"


def _latency(plan: Plan) -> Iterator[str]:
    steps = way(plan.needs, plan.calibration.costs)
    text = " + ".join(f"{seconds(spent)} {name}" for name, spent in steps if spent)
    yield f"live, the way by itself: {text} = {seconds(sum(spent for _, spent in steps))}"
    yield (
        "latency: of a moment of this deployment, simulated event by event; a publisher has one request at a "
        "time on its way to a broker, and an event may wait for the one before its own"
    )
