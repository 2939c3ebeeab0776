"""What is simulated: how much each step costs, and how many of each part there are. Seconds, bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from dualstream_lab.bounds import within
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.recording import Interval, RunDirectory

_CONCURRENCY: Final = 256
_BOUNDS: Final = (
    "batch_bytes", "buffer_events", "buffer_timeout", "delivery_timeout", "redis_timeout", "notify_queue",
)  # fmt: skip
"""Of a publisher; names as in Settings."""
_LOCAL: Final = "127.0.0.1:"  # of a local stack, whose parts share the machine with the load
_REPLICATION: Final = 3  # as Kafka is mostly set up, and the local stack wherever it has so many brokers


def most_of(cost: str) -> int:
    """The highest that a cost can be: 60 s; ``pauses`` are no time."""
    return 100_000 if cost == "pauses" else 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The time that each step takes, in s; a step's time is the sum of its parts.

    A publisher is one loop; a broker serves one request after the other, and a Redis one exchange. With r
    replicas of a partition, ``record`` and ``record_byte`` count r times, as every broker is the follower of
    others. Noise is log-normal. Stalls of either side of Kafka are ``pauses`` of a broker: they come by
    chance (Poisson), the more the more events there are, and are of exponential length.
    """

    call: float = 40e-6  #: publisher: each call
    event: float = 5e-6  #: publisher: each event of a call, to encode it and later to notify of it
    turn: float = 100e-6  #: publisher: requests that leave together, and each answer; the next call waits
    request: float = 300e-6  #: broker: each request
    batch: float = 15e-6  #: broker: each partition in a request
    record: float = 0.3e-6  #: broker: each event
    record_byte: float = 0.4e-9  #: broker: each byte of an event
    broker_noise: float = 0.3  #: coefficient of variation of a request's time
    pauses: float = 0.5  #: of a broker, for each second that one publisher works on events; no time
    pause: float = 4e-3  #: how long such a pause is, on average
    kafka_rtt: float = 300e-6  #: a request's way there and back
    replica: float = 1e-3  #: how much longer acks and consumers wait where there are replicas
    exchange: float = 30e-6  #: Redis: each exchange
    publish: float = 1.5e-6  #: Redis: each notification
    deliver: float = 1e-6  #: Redis: each subscriber that gets a notification
    redis_noise: float = 0.2  #: coefficient of variation of an exchange's time
    redis_rtt: float = 100e-6  #: an exchange's way there and back
    receive_delay: float = 100e-6  #: from Redis's write to the subscriber's read
    poll: float = 200e-6  #: consumer: each poll
    consume: float = 2e-6  #: consumer: each record
    fetch_delay: float = 300e-6  #: from the log to the consumer
    receive: float = 5e-6  #: gateway: each notification
    write: float = 1e-6  #: gateway: each client that gets a notification

    @property
    def repair(self) -> float:
        """Seconds from the moment at which a subscriber knows that it missed an event until it has it."""
        return self.redis_rtt + self.fetch_delay

    def until_copied(self, replication_factor: int) -> float:
        """Seconds from a record's entry in the log to its copies': its ack and readers wait for that."""
        return self.replica if replication_factor > 1 else 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            within(field.name, getattr(self, field.name), 0, most_of(field.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How many of each part there are, and the publisher's bounds, which are named as in ``Settings``.

    Raises ConfigError naming the field that is out of bounds.
    """

    publishers: int = 1
    brokers: int = 1
    partitions: int = 6
    replication_factor: int = 1
    shards: int = 1
    subscribers: int = 1  #: connections on Redis that receive every event, where there are no gateways
    gateways: int = 0
    clients: float = 0.0  #: of each event, at the gateways together
    consumers: int = 1
    callers: int = 0  #: calls that each publisher may have open, the next one waits; 0: as many as there are
    cores: int = 0  #: that all parts share; 0: each has its own
    tick: float = 0.005  #: s that a gateway waits at most, to write several events at once
    batch_bytes: int = 256 * 1024
    buffer_events: int = 150_000
    buffer_timeout: float = 1.0  #: s
    delivery_timeout: float = 15.0  #: s
    redis_timeout: float = 0.2  #: s
    notify_queue: int = 50_000
    output_buffer: int = 100_000  #: notifications that Redis keeps for a gateway before it closes: 32 MiB
    catch_up: bool = False  #: whether subscribers read from Kafka what they missed; gateways always do

    @property
    def receivers(self) -> int:
        """How many connections get each notification: gateways, where there are some, else subscribers."""
        return self.gateways or self.subscribers

    @property
    def repairs(self) -> bool:
        """Whether anybody reads from Kafka what was missed."""
        return self.receivers > 0 and (self.gateways > 0 or self.catch_up)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("publishers", 1, 10_000), ("brokers", 1, 10_000), ("partitions", 1, 1_000_000),
            ("replication_factor", 1, 5), ("shards", 1, 10_000), ("subscribers", 0, 100_000),
            ("gateways", 0, 100_000),
            ("clients", 0, 1e9), ("consumers", 0, 10_000), ("callers", 0, 10_000_000),
            ("cores", 0, 100_000), ("tick", 0, 10),
            ("batch_bytes", 1024, 2**26), ("buffer_events", 1, 10_000_000), ("buffer_timeout", 0, 60),
            ("delivery_timeout", 0.1, 600), ("redis_timeout", 0.001, 60), ("notify_queue", 1, 10_000_000),
            ("output_buffer", 1, 100_000_000),
        ):  # fmt: skip
            within(name, getattr(self, name), low, high)
        for name, other in (("brokers", "partitions"), ("replication_factor", "brokers")):
            if (value := getattr(self, name)) > (most := getattr(self, other)):
                raise ConfigError(f"{name}: must be at most {other}, {most:,} (is {value:,})")


def deployment_for(
    settings: Settings, *, concurrency: int = _CONCURRENCY, brokers: int = 1, **parts: Any
) -> Deployment:
    """The deployment that a load with these settings meets. ``concurrency``: the callers of each publisher.
    ``parts``: any other field of Deployment. Raises ConfigError.
    """
    bounds = {name: getattr(settings, name) for name in _BOUNDS}
    given: dict[str, Any] = {"replication_factor": min(_REPLICATION, brokers)} | parts
    return Deployment(brokers=brokers, callers=concurrency, **bounds | given)


def deployment_of(directory: RunDirectory, intervals: Iterable[Interval]) -> Deployment:
    """The deployment that a run had. The callers of a real one are its concurrency."""
    manifest = directory.manifest
    settings = manifest.settings
    if manifest.engine == "simulation":
        known = {each.name for each in fields(Deployment)}
        return Deployment(**{name: value for name, value in settings.items() if name in known})
    generators = max(1, len({each.writer for each in intervals if "sent" in each.counters}))
    partitions = directory.rows("consumed").column("partition").to_numpy()
    kafka, users = str(settings.get("kafka_url")), manifest.users
    brokers = kafka.count(",") + 1
    return Deployment(
        publishers=generators, brokers=brokers, replication_factor=min(_REPLICATION, brokers),
        partitions=int(partitions.max(initial=0)) + 1, subscribers=users.get("subscribers", 1),
        callers=max(1, users.get("concurrency", _CONCURRENCY) // generators),
        cores=manifest.machine.get("cores", 0) if _LOCAL in kafka else 0,
        **{name: settings[name] for name in _BOUNDS},
    )  # fmt: skip
