"""``compose.yaml``: the local stack for Docker users, written from the same settings.

python -m dualstream_lab.stack.compose > compose.yaml
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from dualstream_lab.stack.jars import KAFKA_VERSION
from dualstream_lab.stack.ports import HOST
from dualstream_lab.stack.settings import (
    PARTITIONS,
    TOPIC,
    VALKEY_SETTINGS,
    broker_settings,
    replication,
    topic_settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["compose_yaml", "environment_name"]

VALKEY_VERSION = "9.1.2"
REDIS_PORT = 6379
# Ports on the host: of the one broker, and of the three.
ONE, THREE = (9092,), (19_092, 29_092, 39_092)

# Ports within every broker's container.
_FOR_HOST, _CONTROLLER, _INTERNAL = 9092, 9093, 9094
_HEAP_MB = {1: 512, 3: 320}
_CLUSTER_IDS = {1: "mQ0fH2cJRt6yVnB3kLw7xA", 3: "T4sYpE8uQbC1dZg5hNo9vw"}

_HEADER = f"""\
# The local stack in Docker. Generated: python -m dualstream_lab.stack.compose > compose.yaml
#
# One broker:      docker compose run --rm topic
# Three brokers:   docker compose run --rm cluster
# End both:        docker compose --profile cluster down --volumes
#
# Each of the first two starts what it needs, waits until that serves, and creates the topic. Then:
#
#   export DUALSTREAM_KAFKA_URL={",".join(f"{HOST}:{port}" for port in ONE)}
#   export DUALSTREAM_REDIS_URL=redis://{HOST}:{REDIS_PORT}
#
# or, with three brokers:
#
#   export DUALSTREAM_KAFKA_URL={",".join(f"{HOST}:{port}" for port in THREE)}
#
# From containers of this project: kafka:{_INTERNAL} (or kafka-1:{_INTERNAL},…) and redis://valkey:{REDIS_PORT}.
"""


@dataclass(frozen=True, slots=True)
class _Anchor:
    """A mapping that others take in by ``<<``."""

    name: str
    content: Mapping[str, _Value]


_Value: TypeAlias = "str | list[str] | int | _Anchor | Mapping[str, _Value]"


def compose_yaml() -> str:
    """The whole file, the same at every call."""
    file: dict[str, _Value] = {
        "name": "dualstream",
        "x-kafka": _Anchor("kafka", _kafka()),
        "x-three": _Anchor("three", _environment(broker_settings(3))),
        "services": {
            "kafka": {
                "<<": "kafka",
                "ports": [f"{HOST}:{ONE[0]}:{_FOR_HOST}"],
                "environment": _environment(broker_settings(1)) | _own(1, ["kafka"], ONE),
            },
            "valkey": _valkey(),
            "topic": _topic(["kafka"], {}),
            **{f"kafka-{node}": _of_three(node) for node in (1, 2, 3)},
            "cluster": _topic([f"kafka-{node}" for node in (1, 2, 3)], {"profiles": ["cluster"]}),
        },
    }
    return _HEADER + "\n" + "\n".join(_lines(file)) + "\n"


def environment_name(setting: str) -> str:
    """The variable from which the image makes a broker's setting."""
    return "KAFKA_" + setting.replace("_", "__").replace("-", "___").replace(".", "_").upper()


def _kafka() -> dict[str, _Value]:
    return {
        "image": f"apache/kafka:{KAFKA_VERSION}",
        # A connection is cheap; Kafka's own tools would start a Java every time. A broker listens
        # for clients only when it has caught up with the cluster.
        "healthcheck": {
            "test": ["CMD", "bash", "-c", f"</dev/tcp/127.0.0.1/{_FOR_HOST}"],
            "interval": "2s",
            "timeout": "2s",
            "retries": 60,
        },
    }


def _of_three(node: int) -> dict[str, _Value]:
    names = [f"kafka-{other}" for other in (1, 2, 3)]
    return {
        "<<": "kafka",
        "profiles": ["cluster"],
        "ports": [f"{HOST}:{THREE[node - 1]}:{_FOR_HOST}"],
        "environment": {"<<": "three"} | _own(node, names, THREE),
    }


def _environment(settings: Mapping[str, str]) -> dict[str, _Value]:
    return {environment_name(name): value for name, value in settings.items()}


def _own(node: int, names: list[str], host_ports: tuple[int, ...]) -> dict[str, _Value]:
    """What differs from broker to broker: names, addresses, directories; and the memory."""
    voters = ",".join(f"{number}@{name}:{_CONTROLLER}" for number, name in enumerate(names, 1))
    internal, host = f"{names[node - 1]}:{_INTERNAL}", f"{HOST}:{host_ports[node - 1]}"
    own = {
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "listeners": f"INTERNAL://:{_INTERNAL},HOST://:{_FOR_HOST},CONTROLLER://:{_CONTROLLER}",
        "advertised.listeners": f"INTERNAL://{internal},HOST://{host}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,HOST:PLAINTEXT",
        "log.dirs": "/var/lib/kafka/data",
    }
    heap = _HEAP_MB[len(names)]
    return _environment(own) | {
        "CLUSTER_ID": _CLUSTER_IDS[len(names)],
        "KAFKA_HEAP_OPTS": f"-Xms{heap // 2}m -Xmx{heap}m",
    }


def _valkey() -> dict[str, _Value]:
    return {
        "image": f"valkey/valkey:{VALKEY_VERSION}",
        "command": ["valkey-server", *VALKEY_SETTINGS],
        "ports": [f"{HOST}:{REDIS_PORT}:6379"],
        "healthcheck": {
            "test": ["CMD", "valkey-cli", "-e", "ping"],
            "interval": "2s",
            "timeout": "2s",
            "retries": 30,
        },
    }


def _topic(brokers: list[str], more: dict[str, _Value]) -> dict[str, _Value]:
    """A container that creates the topic, once all serve, and ends."""
    command = ["/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", f"{brokers[0]}:{_INTERNAL}"]
    command += ["--create", "--if-not-exists", "--topic", TOPIC, "--partitions", str(PARTITIONS)]
    command += ["--replication-factor", str(replication(len(brokers)))]
    for name, value in topic_settings(len(brokers)).items():
        command += ["--config", f"{name}={value}"]
    depends: dict[str, _Value] = {name: {"condition": "service_healthy"} for name in [*brokers, "valkey"]}
    image = f"apache/kafka:{KAFKA_VERSION}"
    return {"image": image, **more, "command": command, "depends_on": depends}


def _lines(mapping: Mapping[str, _Value], indent: str = "") -> Iterator[str]:
    """YAML: nested mappings in block style, all else as JSON, which is YAML too."""
    for key, value in mapping.items():
        if key == "<<":
            yield f"{indent}<<: *{value}"
        elif isinstance(value, _Anchor):
            yield f"{indent}{key}: &{value.name}"
            yield from _lines(value.content, indent + "  ")
        elif isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(value)}"


if __name__ == "__main__":
    sys.stdout.write(compose_yaml())
