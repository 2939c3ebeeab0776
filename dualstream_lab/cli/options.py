"""Options that several commands have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dualstream_lab.errors import ConfigError, RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["as_json", "brokers", "check_writable", "write_files"]


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


def write_files(*files: tuple[Path | None, Callable[[Path], object]]) -> None:
    """What was asked for, each by its writer. Raises RecordingError naming the file."""
    for file, write in files:
        if file is not None:
            try:
                write(file)
            except OSError as error:
                raise RecordingError(f"{file} cannot be written: {error.strerror}") from error


def as_json(values: Mapping[str, Any]) -> Callable[[Path], object]:
    """A writer of these."""
    return lambda file: file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
