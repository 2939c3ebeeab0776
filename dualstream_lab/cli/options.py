"""Options that several commands have."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from dualstream_lab.errors import ConfigError, RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["brokers", "check_writable", "writing"]


def brokers(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where."""
    for option in (
        click.option("--topic", help="Kafka topic (DUALSTREAM_TOPIC).  [default: events]"),
        click.option("--redis", "redis_url", help="redis://host:port (DUALSTREAM_REDIS_URL)."),
        click.option("--kafka", "kafka_url", help="host:port[,…] (DUALSTREAM_KAFKA_URL)."),
    ):
        command = option(command)
    return command


def check_writable(*files: Path | None) -> None:
    """Before long work: whether what comes of it has a place. Raises ConfigError naming the file."""
    for file in files:
        if file is not None and not file.resolve().parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no directory {file.resolve().parent}")


@contextmanager
def writing() -> Iterator[None]:
    """Around the writing of what was asked for. Raises RecordingError naming the file."""
    try:
        yield
    except OSError as error:
        name = f"{error.filename} " if error.filename else "a file that was asked for "
        raise RecordingError(f"{name}cannot be written: {error.strerror}") from error
