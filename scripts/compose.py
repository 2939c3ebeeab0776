"""``compose.yaml``: the local stack for Docker users, written from the same settings.

python scripts/compose.py > compose.yaml
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from dualstream_lab.stack.jars import KAFKA_VERSION
from dualstream_lab.stack.ports import HOST
from dualstream_lab.stack.settings import (
    PARTITIONS,
    TOPIC,
    VALKEY_SETTINGS,
    broker_settings,
    node_settings,
    replication,
    topic_settings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VALKEY_VERSION = "9.1.2"
REDIS_PORT = 6379
# Ports on the host: of the one broker, and of the three.
ONE, THREE = (9092,), (19_092, 29_092, 39_092)
NODES = ("kafka-1", "kafka-2", "kafka-3")

# Ports within every broker's container.
_FOR_HOST, _CONTROLLER, _INTERNAL = 9092, 9093, 9094
_HEAP_MB = {1: 512, 3: 320}
_CLUSTER_IDS = {1: "mQ0fH2cJRt6yVnB3kLw7xA", 3: "T4sYpE8uQbC1dZg5hNo9vw"}


def compose_yaml() -> str:
    """The whole file, the same at every call."""
    # To look for the port is cheap; Kafka's own tools would start a Java every time. A broker listens for
    # clients only when it has caught up with the cluster.
    return f"""\
# The local stack in Docker. Generated: python scripts/compose.py > compose.yaml
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

name: "dualstream"
x-kafka: &kafka
  image: "apache/kafka:{KAFKA_VERSION}"
  healthcheck:
    test: ["CMD", "bash", "-c", "</dev/tcp/127.0.0.1/{_FOR_HOST}"]
    interval: "2s"
    timeout: "2s"
    retries: 60
x-three: &three
{_environment(broker_settings(3), "  ")}
services:
  kafka:
    <<: *kafka
    ports: ["{HOST}:{ONE[0]}:{_FOR_HOST}"]
    environment:
{_environment(broker_settings(1))}
{_own(1, ["kafka"], ONE)}
  valkey:
    image: "valkey/valkey:{VALKEY_VERSION}"
    command: {json.dumps(["valkey-server", *VALKEY_SETTINGS])}
    ports: ["{HOST}:{REDIS_PORT}:6379"]
    healthcheck:
      test: ["CMD", "valkey-cli", "-e", "ping"]
      interval: "2s"
      timeout: "2s"
      retries: 30
  topic:
{_topic(["kafka"])}
{"".join(_of_three(node, name) for node, name in enumerate(NODES, 1))}\
  cluster:
{_topic(NODES, profiles='    profiles: ["cluster"]')}
"""


def environment_name(setting: str) -> str:
    """The variable from which the image makes a broker's setting."""
    return "KAFKA_" + setting.replace("_", "__").replace("-", "___").replace(".", "_").upper()


def _environment(settings: Mapping[str, str], indent: str = "      ") -> str:
    return "\n".join(f'{indent}{environment_name(name)}: "{value}"' for name, value in settings.items())


def _of_three(node: int, name: str) -> str:
    return f"""\
  {name}:
    <<: *kafka
    profiles: ["cluster"]
    ports: ["{HOST}:{THREE[node - 1]}:{_FOR_HOST}"]
    environment:
      <<: *three
{_own(node, NODES, THREE)}
"""


def _own(node: int, names: Sequence[str], host_ports: Sequence[int]) -> str:
    """What differs from broker to broker: names, addresses, directories; and the memory."""
    settings = node_settings(
        node, controllers=[f"{name}:{_CONTROLLER}" for name in names],
        listeners=f"INTERNAL://:{_INTERNAL},HOST://:{_FOR_HOST},CONTROLLER://:{_CONTROLLER}",
        advertised=f"INTERNAL://{names[node - 1]}:{_INTERNAL},HOST://{HOST}:{host_ports[node - 1]}",
        protocols="CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,HOST:PLAINTEXT", data="/var/lib/kafka/data",
    )  # fmt: skip
    heap = _HEAP_MB[len(names)]
    return f"""\
{_environment(settings)}
      CLUSTER_ID: "{_CLUSTER_IDS[len(names)]}"
      KAFKA_HEAP_OPTS: "-Xms{heap // 2}m -Xmx{heap}m\""""


def _topic(brokers: Sequence[str], profiles: str = "") -> str:
    """A container that creates the topic, once all serve, and ends."""
    command = ["/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", f"{brokers[0]}:{_INTERNAL}"]
    command += ["--create", "--if-not-exists", "--topic", TOPIC, "--partitions", str(PARTITIONS)]
    command += ["--replication-factor", str(replication(len(brokers)))]
    for name, value in topic_settings(len(brokers)).items():
        command += ["--config", f"{name}={value}"]
    lines = [f'    image: "apache/kafka:{KAFKA_VERSION}"', *([profiles] if profiles else [])]
    lines += [f"    command: {json.dumps(command)}", "    depends_on:"]
    for name in (*brokers, "valkey"):
        lines += [f"      {name}:", '        condition: "service_healthy"']
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(compose_yaml())
