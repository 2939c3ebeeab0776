"""The brokers' settings: one table for the local stack's processes and for ``compose.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualstream_lab.errors import ConfigError

TOPIC = "events"
PARTITIONS = 6

# Notifications are not kept: a Redis that comes back is empty.
VALKEY_SETTINGS = ("--save", "", "--appendonly", "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """Certificates and the one user of the encrypted listeners.

    The PEM files: ``ca`` (what clients trust), ``certificate`` (the server's chain, valid for
    127.0.0.1), ``key`` (its private key, PKCS #8).
    """

    ca: str
    certificate: str
    key: str
    user: str = "lab"
    password: str = "lab-password"  # noqa: S105  (of a server on loopback)

    def __post_init__(self) -> None:
        if not (self.user.isalnum() and self.password) or set(self.password) & set("\"\\; '\n"):
            raise ConfigError("user must be letters and digits, password without quotes, spaces, ; and \\")


def replication(brokers: int) -> int:
    """Say how many replicas a partition has on so many brokers."""
    return min(3, brokers)


def topic_settings(brokers: int) -> dict[str, str]:
    """Make a topic's settings: with three replicas, two must have a record before it is acknowledged."""
    return {"min.insync.replicas": "2" if replication(brokers) == 3 else "1"}


def broker_settings(brokers: int) -> dict[str, str]:
    """Make what all brokers of a cluster of this size share: all but names, addresses and directories."""
    replication_factor = str(replication(brokers))
    enough = topic_settings(brokers)["min.insync.replicas"]
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "auto.create.topics.enable": "false",
        "num.partitions": str(PARTITIONS),
        "default.replication.factor": replication_factor,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": replication_factor,
        "offsets.topic.num.partitions": "6",
        "transaction.state.log.replication.factor": replication_factor,
        "transaction.state.log.min.isr": enough,
        "transaction.state.log.num.partitions": "6",
        "share.coordinator.state.topic.replication.factor": replication_factor,
        "share.coordinator.state.topic.min.isr": enough,
        "share.coordinator.state.topic.num.partitions": "6",
        # A consumer group of one need not wait for others.
        "group.initial.rebalance.delay.ms": "0",
        # A killed broker may return only when its session has ended (9 s by default).
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
        # Threads for a laptop. Records are flushed by the system, as by default.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(8 * 2**20),
        "log.initial.task.delay.ms": "1000",
    }


def node_settings(
    node: int, *, controllers: Sequence[str], listeners: str, advertised: str, protocols: str, data: str
) -> dict[str, str]:
    """Make what differs from broker to broker; ``controllers``: host and port of each."""
    return {
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{i}@{address}" for i, address in enumerate(controllers, 1)),
        "listeners": listeners,
        "advertised.listeners": advertised,
        "listener.security.protocol.map": protocols,
        "log.dirs": data,
    }
