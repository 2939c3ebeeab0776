"""Options that several commands have, and the kinds of option that the commands declare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from dualstream_lab.errors import ConfigError, RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one, in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def path(*names: str, **more: Any) -> Decorator:
    """An option that is a path."""
    return click.option(*names, type=click.Path(path_type=Path), **more)


class _Output(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        file = Path(str(super().convert(value, param, ctx)))
        if not file.resolve().parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no directory {file.resolve().parent}")
        return file


def output(*names: str, **more: Any) -> Decorator:
    """An option that is a file to be written in the end: ConfigError at once where it has no place."""
    return click.option(*names, type=_Output(path_type=Path), **more)


def printing(name: str, show: Callable[[], None], text: str) -> Decorator:
    """A flag that prints something, and leaves."""

    def leave(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            show()
            ctx.exit()

    return click.option(name, is_flag=True, is_eager=True, expose_value=False, callback=leave, help=text)


brokers = together(
    click.option("--kafka", "kafka_url", help="host:port[,…] (DUALSTREAM_KAFKA_URL)."),
    click.option("--redis", "redis_url", help="redis://host:port (DUALSTREAM_REDIS_URL)."),
    click.option("--topic", help="Kafka topic (DUALSTREAM_TOPIC).  [default: events]"),
)
runs = path("--runs", "root", default="runs", help="Where run directories go.")
verdict_files = together(
    output("--junit", help="Write the verdict as JUnit XML."),
    output("--json", "json_file", help="Write it as JSON."),
)


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
