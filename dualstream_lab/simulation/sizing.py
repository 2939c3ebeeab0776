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
_GATEWAYS: Final = 100_000  # of them
_SPREAD: Final = "one for each source"


class _Short(Exception):
    """So many of a part are all there can be, and not enough."""


def size(needs: Requirements, costs: Costs) -> Deployment:
    """Enough of every part. One gateway more than there must be, so that the clients of one that fails find
    room. Partitions are a whole multiple of brokers and of consumers: all have the same to do.

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
        return _sized(needs, costs)
    except _Short as short:
        lacking = str(short)
    low, high = 0.0, needs.rate
    for _ in range(20):
        rate = (low + high) / 2
        try:
            _sized(replace(needs, rate=max(1.0, rate)), costs)
            low = rate
        except _Short:
            high = rate
    raise ConfigError(
        f"rate: {needs.rate:,.0f} events/s need more {lacking}; the nearest that works: about {low:,.0f} "
        "events/s"
    )


def arranged(deployment: Deployment, brokers: int, own: int, consumers: int) -> Deployment:
    """With ``own`` partitions a broker, and at least so many consumers that share them evenly."""
    partitions = brokers * own
    members = next(count for count in range(consumers, partitions + 1) if partitions % count == 0)
    return replace(deployment, brokers=brokers, partitions=partitions, consumers=members)


def _rooms(needs: Requirements) -> int:
    """Gateways for all connections, and a spare one."""
    return math.ceil(needs.subscribers / needs.max_connections) + 1


def _sized(needs: Requirements, costs: Costs) -> Deployment:
    traffic, most = needs.traffic, needs.max_load
    rooms = _rooms(needs)
    found = Deployment(
        brokers=needs.copies, copies=needs.copies, partitions=needs.copies, tick=needs.tick,
        gateways=rooms, clients=needs.clients,
    )  # fmt: skip

    def enough(station: str, name: str, least: int = 1, limit: int = _MOST) -> int:
        def load(parts: int) -> float:
            return capacity(traffic, replace(found, **{name: parts}), costs)[station].load

        return _least(load, most, least, limit, name)

    limit = min(_MOST, needs.sources)
    found = replace(found, publishers=enough("publisher", "publishers"))
    found = replace(found, gateways=enough("gateway", "gateways", rooms, _GATEWAYS))
    found = replace(found, shards=enough("shard", "shards", limit=limit))
    consumers = enough("consumer", "consumers", limit=limit)

    def brokers_load(brokers: int, own: int = _OWN) -> float:
        own = max(own, math.ceil(consumers / brokers))
        made = replace(found, brokers=brokers, partitions=brokers * own)
        # Where there are fewer sources than brokers, the others have copies only.
        return capacity(traffic, made, costs)["broker"].load * brokers / min(brokers, needs.sources)

    brokers = _least(brokers_load, most, needs.copies, max(limit, needs.copies), "brokers")
    own = math.ceil(consumers / brokers)
    while own < _OWN and brokers_load(brokers, own) > most:
        own += 1
    return arranged(found, brokers, own, consumers)


def _least(load: Callable[[int], float], most: float, least: int, limit: int, name: str) -> int:
    """The smallest number, from ``least`` to ``limit``, whose load is at most ``most``. Raises _Short."""
    most *= 1 + 1e-9
    parts = least  # a load falls no faster than parts grow, so that no step leads beyond the smallest
    while (now := load(parts)) > most:
        if parts >= limit:
            raise _Short(f"{name} than {limit:,}, {'the most there can be' if limit >= _MOST else _SPREAD}")
        parts = min(limit, max(parts + 1, math.ceil(parts * min(now / most, 100.0))))
    return parts
