"""What the model is told: how much each step costs, and how many of each part there are. Seconds, bytes."""

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
    """Time that each step takes, in seconds; a step's time is the sum of its parts.

    **Publisher**, one loop: a call takes ``call``, and ``event`` for each of its events (encoding, and later
    its notification); and it takes a ``turn`` for requests that leave together, and one for each answer and
    what it sets off: these hold up the next call, and not the events in them. **Broker**, requests one after
    the other: ``request``, ``batch`` for each partition in it, ``record`` for each event and ``record_byte``
    for each of their bytes; with r copies of a partition the last two count r times, as every broker is the
    follower of others. ``broker_noise``: the coefficient of variation of a request's time (log-normal). A
    broker pauses ``pauses`` times for each second that one publisher works on events (Poisson), for ``pause``
    on average (exponential): stalls of either side, and the more the more events there are. ``kafka_rtt``: a
    request's way there and back; ``replica``: the additional wait for copies, of consumers too. **Redis**,
    one thread: an exchange takes ``exchange``, ``publish`` for each notification, ``deliver`` for each
    subscriber that gets it. ``redis_rtt``: there and back; ``redis_noise``: as ``broker_noise``.
    **Subscriber**: ``receive_delay`` from Redis's write to the read. **Consumer**: a poll takes ``poll``, and
    ``consume`` for each record; ``fetch_delay``: from the log to it. **Gateway**, one loop: ``receive`` for
    each notification, ``write`` for each client that gets one.
    """

    call: float = 40e-6
    event: float = 5e-6
    turn: float = 100e-6
    request: float = 300e-6
    batch: float = 15e-6
    record: float = 0.3e-6
    record_byte: float = 0.4e-9
    broker_noise: float = 0.3
    pauses: float = 0.5
    pause: float = 4e-3
    kafka_rtt: float = 300e-6
    replica: float = 1e-3
    exchange: float = 30e-6
    publish: float = 1.5e-6
    deliver: float = 1e-6
    redis_noise: float = 0.2
    redis_rtt: float = 100e-6
    receive_delay: float = 100e-6
    poll: float = 200e-6
    consume: float = 2e-6
    fetch_delay: float = 300e-6
    receive: float = 5e-6
    write: float = 1e-6

    @property
    def repair(self) -> float:
        """From the moment at which a subscriber knows that it missed something until it has it."""
        return self.redis_rtt + self.fetch_delay

    def until_copied(self, replication_factor: int) -> float:
        """From a record's place in the log until its copies are there: its ack and readers wait for that."""
        return self.replica if replication_factor > 1 else 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            within(field.name, getattr(self, field.name), 0, most_of(field.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How many of each part, and the publisher's bounds (as in ``Settings``).

    ``subscribers``: connections on Redis that receive every event; with gateways it is they. ``clients``: of
    each event, at the gateways together. ``callers``: calls that each publisher may have open, the next one
    begins when one of them ends; 0 for as many as there are. ``cores``: that all parts share; 0 where each
    has its own. ``output_buffer``: notifications that Redis keeps for a gateway that is late; with more it
    closes the connection. (As it comes, 32 MiB.) ``catch_up``: whether subscribers read what they missed
    from Kafka, as it is announced or as they are connected again; gateways always do. Raises ConfigError
    naming the field.
    """

    publishers: int = 1
    brokers: int = 1
    partitions: int = 6
    replication_factor: int = 1
    shards: int = 1
    subscribers: int = 1
    gateways: int = 0
    clients: float = 0.0
    consumers: int = 1
    callers: int = 0
    cores: int = 0
    tick: float = 0.005
    batch_bytes: int = 256 * 1024
    buffer_events: int = 150_000
    buffer_timeout: float = 1.0
    delivery_timeout: float = 15.0
    redis_timeout: float = 0.2
    notify_queue: int = 50_000
    output_buffer: int = 100_000
    catch_up: bool = False

    @property
    def receivers(self) -> int:
        """Of each notification: where there are gateways, it is they who subscribe to Redis."""
        return self.gateways or self.subscribers

    @property
    def repairs(self) -> bool:
        """Whether there is anybody who reads what he missed."""
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
    """What a load with these settings meets. ``concurrency``: of each publisher, its callers. ``parts``: any
    other field of Deployment. Raises ConfigError.
    """
    bounds = {name: getattr(settings, name) for name in _BOUNDS}
    given: dict[str, Any] = {"replication_factor": min(_REPLICATION, brokers)} | parts
    return Deployment(brokers=brokers, callers=concurrency, **bounds | given)


def deployment_of(directory: RunDirectory, intervals: Iterable[Interval]) -> Deployment:
    """How many of each part a run had. The callers of a real one are its concurrency."""
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
