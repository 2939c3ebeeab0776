"""The smallest deployment that works below a share of every ceiling; in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.capacity import capacity
from dualstream_lab.simulation.parameters import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable

    from dualstream_lab.simulation.parameters import Costs
    from dualstream_lab.simulation.requirements import Requirements

__all__ = ["arranged", "size"]

_OWN: Final = 64  # partitions of a broker, to look for fewer brokers
_MOST: Final = 10_000  # of a part


def size(needs: Requirements, costs: Costs) -> Deployment:
    """Enough of every part. One gateway more than there must be, so that the clients of one that fails find
    room. Partitions are a whole multiple of brokers and of consumers: all have the same to do.

    Raises ConfigError where no number of parts is enough: too few sources to spread, or a part that would be
    needed more than 10,000 times.
    """
    found = _sized(needs, costs)
    if (widest := max(found.partitions, found.shards)) <= needs.sources:
        return found
    low, high = 0.0, needs.rate
    for _ in range(20):
        rate = (low + high) / 2
        fits = _sized(replace(needs, rate=max(1.0, rate)), costs)
        low, high = (rate, high) if max(fits.partitions, fits.shards) <= needs.sources else (low, rate)
    raise ConfigError(
        f"sources: {needs.sources:,} cannot be spread over the {widest:,} partitions or shards that "
        f"{needs.rate:,.0f} events/s need, as events of one source stay together; the nearest that works: "
        f"{widest:,} sources, or about {low:,.0f} events/s"
    )


def arranged(deployment: Deployment, brokers: int, own: int, consumers: int) -> Deployment:
    """With ``own`` partitions a broker, and at least so many consumers that share them evenly."""
    partitions = brokers * own
    members = next(count for count in range(consumers, partitions + 1) if partitions % count == 0)
    return replace(deployment, brokers=brokers, partitions=partitions, consumers=members)


def _sized(needs: Requirements, costs: Costs) -> Deployment:
    traffic, most = needs.traffic, needs.max_load
    rooms = math.ceil(needs.subscribers / needs.max_connections) + 1
    found = Deployment(
        brokers=needs.copies, copies=needs.copies, partitions=needs.copies, tick=needs.tick,
        gateways=rooms, clients=needs.clients,
    )  # fmt: skip

    def load(station: str, **parts: int) -> float:
        return capacity(traffic, replace(found, **parts), costs)[station].load

    def enough(station: str, name: str, least: int = 1) -> int:
        return _least(lambda count: load(station, **{name: count}), most, least, name)

    found = replace(found, publishers=enough("publisher", "publishers"))
    found = replace(found, gateways=enough("gateway", "gateways", rooms))
    found = replace(found, shards=enough("shard", "shards"))
    consumers = enough("consumer", "consumers")

    def brokers_load(brokers: int, own: int = 0) -> float:
        own = own or max(_OWN, math.ceil(consumers / brokers))
        made = replace(found, brokers=brokers, partitions=brokers * own)
        return capacity(traffic, made, costs)["broker"].load

    brokers = _least(brokers_load, most, needs.copies, "brokers")
    own = math.ceil(consumers / brokers)
    while own < _OWN and brokers_load(brokers, own) > most:
        own += 1
    return arranged(found, brokers, own, consumers)


def _least(load: Callable[[int], float], most: float, least: int, name: str) -> int:
    """The smallest number, from ``least``, whose load is at most ``most``."""
    most *= 1 + 1e-9
    parts = least
    while (now := load(parts)) > most:
        parts = max(parts + 1, math.ceil(parts * min(now / most, 100.0)))
        if parts > _MOST and name != "gateways":
            raise ConfigError(f"{name}: more than {_MOST:,} would be needed; take a lower rate")
    while parts > least and load(parts - 1) <= most:
        parts -= 1
    return parts
