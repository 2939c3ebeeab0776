"""Options that several commands have, the kinds of option that they declare, and where their load goes."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

from dualstream_lab.cli.console import say, stderr
from dualstream_lab.cli.exit_codes import INCONCLUSIVE, INTERRUPTED, MISSED
from dualstream_lab.errors import ConfigError, RecordingError
from dualstream_lab.lab.output.export import write_junit
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination, ambient, find_destination
from dualstream_lab.stack.settings import TOPIC
from dualstream_lab.verdict.checker import Checker, Validity

if TYPE_CHECKING:
    from dualstream_lab.recording import RunDirectory

    Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


T = TypeVar("T")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}


def duration(text: str) -> float:
    """Seconds, above zero, from ``90s``, ``15m``, ``8h``, ``2d`` or plain seconds: a type of option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", text)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{text!r} is not a duration; allowed: 500ms, 90s, 15m, 8h, 2d")
    return float(match[1]) * _UNITS[match[2]]


def moment(text: str) -> float:
    """Seconds since the epoch, from so long ago (``10m``) or a time (RFC 3339, with its zone): a type of
    option.
    """
    if re.fullmatch(r"[\d.]+\s*[a-z]*", text):
        return time.time() - duration(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise click.BadParameter(f"{text!r} is not a time; allowed: 10m (ago), 2025-06-01T12:00:00Z")
    return found.timestamp()


def assignment(text: str) -> tuple[str, str]:
    """A setting's name and value, from ``NAME=VALUE``: a type of option."""
    name, sign, value = text.partition("=")
    if not (sign and re.fullmatch(r"[\w.-]+", name)):
        raise click.BadParameter(f"{text!r} is not a setting; allowed: NAME=VALUE")
    return name, value


PARTITION_COUNT = click.IntRange(1, 10_000)  # Kafka's controller makes no more at once


def topic_size(text: str) -> tuple[str, int]:
    """A topic's name and how many partitions it has, from ``NAME:PARTITIONS``: a type of option."""
    match = re.fullmatch(r"([\w.-]{1,249}):(\d+)", text, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{text!r} is not NAME:PARTITIONS; a name is of letters, digits, . _ and -")
    return match[1], PARTITION_COUNT(match[2])


def together(*options: Decorator) -> Decorator:
    """Join several options into one decorator, in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def path(*names: str, **more: Any) -> Decorator:
    """Declare an option that is a path."""
    return click.option(*names, type=click.Path(path_type=Path), **more)


class _Output(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        file = Path(str(super().convert(value, param, ctx)))
        if not file.resolve().parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no directory {file.resolve().parent}")
        return file


def output(*names: str, **more: Any) -> Decorator:
    """Declare an option that is a file, written in the end: ConfigError at once where it has no place."""
    return click.option(*names, type=_Output(path_type=Path), **more)


def opened(run: Path) -> RunDirectory:
    """Open the run directory that an argument names. Raises ConfigError where it names none, and
    RecordingError where the manifest cannot be read: the exit codes 2 and 3.
    """
    from dualstream_lab.recording import RunDirectory  # noqa: PLC0415  (not every command's extra has it)

    try:
        return RunDirectory.open(run)
    except RecordingError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ConfigError(str(error)) from error
        raise


def printing(name: str, show: Callable[[], None], text: str) -> Decorator:
    """Declare a flag that prints something, and leaves."""

    def leave(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            show()
            ctx.exit()

    return click.option(name, is_flag=True, is_eager=True, expose_value=False, callback=leave, help=text)


brokers = together(
    click.option("--kafka", "kafka_url", help="Use this Kafka, host:port[,…] (DUALSTREAM_KAFKA_URL)."),
    click.option("--redis", "redis_url", help="Use this Redis, redis://host:port (DUALSTREAM_REDIS_URL)."),
    click.option("--topic", help="Use this Kafka topic (DUALSTREAM_TOPIC).  [default: events]"),
)
runs = path("--runs", "root", default="runs", help="Write run directories into this one.")
verdict_files = together(
    output("--junit", help="Write the verdict as JUnit XML."),
    output("--json", "json_file", help="Write it as JSON."),
)


def conclude(
    checker: Checker[T], experiment: T, *pages: tuple[Path | None, Callable[[Path], object]],
    junit: Path | None, json_file: Path | None, inconclusive: int = INCONCLUSIVE,
) -> int:  # fmt: skip
    """Write what an experiment comes to into the files that were asked for; return the exit code.

    Raises RecordingError naming the file that cannot be written.
    """
    found = checker(experiment)
    writers: list[tuple[Path | None, Callable[[Path], object]]] = [
        (
            json_file,
            lambda file: file.write_text(json.dumps(found.values, indent=1) + "\n", encoding="utf-8"),
        ),
        (junit, lambda file: write_junit(file, found)),
        *pages,
    ]
    for file, write in writers:
        if file is not None:
            try:
                write(file)
            except OSError as error:
                raise RecordingError(f"{file} cannot be written: {error.strerror}") from error
    if found.state == "interrupted":
        return INTERRUPTED
    return {Validity.VALID: 0, Validity.INCONCLUSIVE: inconclusive, Validity.INVALID: MISSED}[found.validity]


_OPTIONS = together(
    click.option("--kafka", metavar="URL", help="Use your Kafka; left out, a local stack is started."),
    click.option("--redis", metavar="URL", help="Use your Redis; left out, nothing is announced."),
    click.option("--topic", help="Use this topic; on brokers of yours it must exist.  [default: events]"),
    click.option("--use-env", is_flag=True,
                 help="Take what is left out from DUALSTREAM_KAFKA_URL, _REDIS_URL and _TOPIC."),
    click.option("--yes", is_flag=True,
                 help="Send load to brokers that are not the local stack without asking. Where there is no "
                 "terminal to ask on, as in CI, they are refused without this."),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the options say of where load goes."""

    kafka: str | None
    redis: str | None
    topic: str | None
    use_env: bool
    yes: bool

    def find(self) -> Destination | None:
        """Find the brokers that they name; None where they name none. Raises ConfigError."""
        return find_destination(kafka=self.kafka, redis=self.redis, topic=self.topic, use_env=self.use_env)

    @contextmanager
    def open(self, brokers: int) -> Iterator[tuple[Destination, LocalStack | None]]:
        """Say where load goes, and have it agreed to; start a stack of so many brokers where none were given.

        Raises ConfigError, also for a "no"; StackError.
        """
        if (found := self.find()) is not None:
            agree(found, yes=self.yes)
            yield found, None
            return
        if ambient("kafka_url") or ambient("redis_url"):
            names = "DUALSTREAM_KAFKA_URL and DUALSTREAM_REDIS_URL"
            say(f"without --use-env load does not go to what {names} name")
        with LocalStack(brokers=brokers, progress=say, topic=self.topic or TOPIC) as stack:
            found = Destination.of(stack)
            agree(found, yes=self.yes)
            yield found, stack


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options that say where load goes, which the command takes as one ``target``."""

    @wraps(command)
    def collected(**given: Any) -> Any:
        target = Target(**{name: given.pop(name) for name in Target.__slots__})
        return command(target=target, **given)

    return _OPTIONS(collected)


def agree(destination: Destination, *, yes: bool = False) -> None:
    """Say where load goes; ask, if that may be somebody else's. Raises ConfigError for a "no"."""
    say(f"load goes to {destination}")
    if not yes:
        destination.agree(asking("May it?"))


def asking(question: str) -> Callable[[], bool] | None:
    """Make what asks at the terminal; None where there is nobody to ask."""
    can_ask = sys.stdin is not None and sys.stdin.isatty() and stderr.is_terminal
    return partial(click.confirm, question, default=False, err=True) if can_ask else None
