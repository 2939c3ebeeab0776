"""The smallest deployment that works below a share of every ceiling; in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.analytic.capacity import station
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.planning.requirements import Requirements

_OWN: Final = 64  # partitions of a broker, to look for fewer brokers
_MOST: Final = 10_000  # of a part
_GATEWAYS: Final = 100_000  # of them
_WHOLE: Final = 1 + 1e-9  # up to rounding
_SPREAD: Final = "one for each source"


class _Short(ConfigError):
    """Raised where the most that there can be of a part is not enough."""


def size(needs: Requirements, costs: Costs) -> Deployment:
    """Find enough of every part. One gateway more than there must be, so that the clients of one that fails
    find room. Partitions are a whole multiple of brokers and of consumers: all have the same to do.

    Raises ConfigError, with the nearest that works, where no number of parts is enough: more of one than
    10,000, or than there are sources, as what is about one source stays together.
    """
    if _rooms(needs) > _GATEWAYS:
        raise ConfigError(
            f"subscribers: {needs.subscribers:,} need more gateways than {_GATEWAYS:,}, the most there can "
            f"be; the nearest that works: {(_GATEWAYS - 1) * needs.max_connections:,} subscribers, or "
            f"gateways of {math.ceil(needs.subscribers / (_GATEWAYS - 1)):,} connections"
        )
    try:
        return smallest(needs, costs)
    except _Short as short:
        lacking = str(short)
    low, high = 0.0, needs.rate
    for _ in range(20):
        rate = (low + high) / 2
        try:
            smallest(replace(needs, rate=max(1.0, rate)), costs)
            low = rate
        except _Short:
            high = rate
    raise ConfigError(
        f"rate: {needs.rate:,.0f} events/s need more {lacking}; the nearest that works: about {low:,.0f} "
        "events/s"
    )


def _rooms(needs: Requirements) -> int:
    """Gateways for all connections, and a spare one."""
    return math.ceil(needs.subscribers / needs.max_connections) + 1


def smallest(needs: Requirements, costs: Costs) -> Deployment:
    """Find enough of every part, as :func:`size`, which also names the nearest that works."""
    rooms = _rooms(needs)
    limit = min(_MOST, needs.sources)
    least = math.ceil(needs.rate * (costs.call / needs.batch + costs.event) / needs.max_load)
    found = Deployment(
        publishers=min(_MOST, max(1, least)), brokers=needs.replication_factor,
        replication_factor=needs.replication_factor,
        partitions=needs.replication_factor, tick=needs.tick, gateways=rooms, clients=needs.clients,
    )  # fmt: skip
    found = replace(found, gateways=_enough(needs, found, costs, "gateway", rooms, _GATEWAYS))
    found = replace(found, shards=_enough(needs, found, costs, "shard", 1, limit))
    consumers = _enough(needs, found, costs, "consumer", 1, limit)

    def brokers_load(brokers: int) -> float:
        own = max(_OWN, math.ceil(consumers / brokers))
        return _broker_load(needs, replace(found, brokers=brokers, partitions=brokers * own), costs)

    brokers = _least(
        brokers_load, 1, needs.replication_factor, max(limit, needs.replication_factor), "brokers"
    )
    return with_brokers(needs, found, brokers, costs)


def with_brokers(needs: Requirements, deployment: Deployment, brokers: int, costs: Costs) -> Deployment:
    """With so many, as few partitions as they and consumers need, consumers that share these evenly, and as
    many publishers as it takes to send to all brokers. Raises ConfigError.
    """
    consumers = _enough(needs, deployment, costs, "consumer", 1, min(_MOST, needs.sources))
    own = math.ceil(consumers / brokers)
    while own < _OWN and _broker_load(needs, _arranged(deployment, brokers, own, consumers), costs) > _WHOLE:
        own += 1
    return _with_publishers(needs, _arranged(deployment, brokers, own, consumers), costs)


def _load(needs: Requirements, deployment: Deployment, costs: Costs, name: str, **parts: Any) -> float:
    """The load of a station, with so many of the parts, as a share of its ceiling."""
    return station(name, needs.traffic, replace(deployment, **parts), costs).load


def _enough(
    needs: Requirements, deployment: Deployment, costs: Costs, name: str, least: int, limit: int
) -> int:
    """The smallest number of the parts of a station that is enough."""

    def load(parts: int) -> float:
        return _load(needs, deployment, costs, name, **{f"{name}s": parts})

    return _least(load, needs.max_load, least, limit, f"{name}s")


def _arranged(deployment: Deployment, brokers: int, own: int, consumers: int) -> Deployment:
    """The deployment with ``own`` partitions a broker, shared evenly by at least so many consumers."""
    partitions = brokers * own
    members = next(count for count in range(consumers, partitions + 1) if partitions % count == 0)
    return replace(deployment, brokers=brokers, partitions=partitions, consumers=members)


def _broker_load(needs: Requirements, deployment: Deployment, costs: Costs) -> float:
    """The load of the brokers, as a share of the most that it may be."""
    load = _load(needs, deployment, costs, "broker") / needs.max_load
    # Where there are fewer sources than brokers, the others have copies only.
    return load * deployment.brokers / min(deployment.brokers, needs.sources)


def _with_publishers(needs: Requirements, deployment: Deployment, costs: Costs) -> Deployment:
    """The deployment with as many more publishers as it takes. Raises _Short."""

    def short(parts: int) -> bool:
        return _load(needs, deployment, costs, "publisher", publishers=parts) > needs.max_load * _WHOLE

    # Their load can fall faster than they grow: as they wait for each other, more events are in a request.
    few, parts = deployment.publishers - 1, deployment.publishers
    while short(parts):
        if parts >= _MOST:
            raise _Short(f"publishers than {_MOST:,}, the most there can be")
        few, parts = parts, min(_MOST, parts + max(1, parts // 8))
    while parts - few > 1:
        middle = (few + parts) // 2
        few, parts = (middle, parts) if short(middle) else (few, middle)
    return replace(deployment, publishers=parts)


def _least(load: Callable[[int], float], most: float, least: int, limit: int, name: str) -> int:
    """The smallest number, from ``least`` to ``limit``, whose load is at most ``most``. Raises _Short."""
    most *= _WHOLE
    parts = least  # a load falls no faster than parts grow, so that no step leads beyond the smallest
    while (now := load(parts)) > most:
        if parts >= limit:
            raise _Short(f"{name} than {limit:,}, {'the most there can be' if limit >= _MOST else _SPREAD}")
        parts = min(limit, max(parts + 1, math.ceil(parts * min(now / most, 100.0))))
    return parts
