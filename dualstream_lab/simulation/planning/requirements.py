"""What somebody wants of the pipeline, before there is any."""

from __future__ import annotations

from dataclasses import dataclass

from dualstream_lab.bounds import within
from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.analytic.capacity import Traffic

_BOUNDS = (
    ("rate", 1, 10_000_000), ("sources", 1, 1_000_000_000), ("subscribers", 1, 1_000_000_000),
    ("per_subscriber", 0.001, 1_000_000), ("batch", 1, 10_000), ("payload_bytes", 256, 900_000),
    ("replication_factor", 1, 5), ("max_load", 0.01, 0.95), ("max_connections", 1, 1_000_000),
    ("tick", 0, 10),
    ("outage", 1, 86_400),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a deployment is to carry. Raises ConfigError naming the field that is out of bounds."""

    rate: float  # events/s
    subscribers: int  # clients at gateways
    sources: int = 100_000  # what events are about, all alike often
    per_subscriber: float = 1.0  # sources that a client subscribes to
    batch: int = 10  # events of a call
    payload_bytes: int = 300
    publish_p99: float | None = None  # s from the intended time to the ack, at most
    live_p99: float | None = None  # s from the intended time to the client, at most
    replication_factor: int = 3
    max_load: float = 0.6  # the share of its ceiling at which a part may work
    max_connections: int = 10_000  # of a gateway
    tick: float = 0.005  # s that a gateway waits at most, to write several events at once
    outage: float = 90.0  # s that a part is away, to say what that does

    def __post_init__(self) -> None:
        if self.subscribers == 0:
            raise ConfigError("subscribers: must be from 1 on: where nobody follows, Redis has no use")
        for name, low, high in _BOUNDS:
            within(name, getattr(self, name), low, high)
        for name in ("publish_p99", "live_p99"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 3600:
                raise ConfigError(f"{name}: must be above 0 and up to 3,600 s (is {value!r})")
        if self.per_subscriber > self.sources:
            raise ConfigError(
                f"per_subscriber: must be at most sources, {self.sources:,} (is {self.per_subscriber:,g})"
            )

    @property
    def clients(self) -> float:
        """How many clients an event has, on average."""
        return self.subscribers * self.per_subscriber / self.sources

    @property
    def traffic(self) -> Traffic:
        """The traffic that the closed forms are asked about."""
        return Traffic(rate=self.rate, batch=self.batch, size=self.payload_bytes, selective=True)
