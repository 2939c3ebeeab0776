"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["brokers"]


def brokers(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where."""
    for option in (
        click.option("--topic", help="Kafka topic (DUALSTREAM_TOPIC).  [default: events]"),
        click.option("--redis", "redis_url", help="redis://host:port (DUALSTREAM_REDIS_URL)."),
        click.option("--kafka", "kafka_url", help="host:port[,…] (DUALSTREAM_KAFKA_URL)."),
    ):
        command = option(command)
    return command
