"""Where a command sends load: never to brokers that nobody named, and never without saying so."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from dualstream_lab.cli.console import say, stderr
from dualstream_lab.errors import ConfigError
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.origin import ambient
from dualstream_lab.stack.settings import TOPIC
from dualstream_lab.stack.where import Destination, find_destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["agree", "destination_options", "open_destination"]


def destination_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where load goes."""
    for option in reversed(
        (
            click.option("--kafka", metavar="URL", help="Your Kafka; left out, a local stack is started."),
            click.option("--redis", metavar="URL", help="Your Redis; left out, nothing is announced."),
            click.option("--topic", help="The topic; on brokers of yours it must exist.  [default: events]"),
            click.option(
                "--use-env",
                is_flag=True,
                help="What is left out is as DUALSTREAM_KAFKA_URL, _REDIS_URL and _TOPIC say.",
            ),
            click.option(
                "--yes",
                is_flag=True,
                help="Send load to brokers that are not the local stack without asking. Where there is no "
                "terminal to ask on, as in CI, they are refused without this.",
            ),
        )
    ):
        command = option(command)
    return command


@contextmanager
def open_destination(
    *, kafka: str | None, redis: str | None, topic: str | None, use_env: bool, yes: bool, brokers: int = 1
) -> Iterator[tuple[Destination, LocalStack | None]]:
    """Where load goes, said and agreed to; a stack of its own, of so many brokers, where nothing was given.

    Raises ConfigError, also for a "no"; StackError.
    """
    found = find_destination(kafka=kafka, redis=redis, topic=topic, use_env=use_env)
    if found is not None:
        agree(found, yes=yes)
        yield found, None
        return
    if ambient("kafka_url") or ambient("redis_url"):
        say("without --use-env load does not go to what DUALSTREAM_KAFKA_URL and DUALSTREAM_REDIS_URL name")
    with LocalStack(brokers=brokers, progress=say, topic=topic or TOPIC) as stack:
        found = Destination.of(stack)
        agree(found, yes=yes)
        yield found, stack


def agree(destination: Destination, *, yes: bool) -> None:
    """Say where load goes; ask, if that may be somebody else's. Raises ConfigError for a "no"."""
    say(f"load goes to {destination}")
    if destination.local or yes:
        return
    if sys.stdin is None or not (sys.stdin.isatty() and stderr.is_terminal):
        raise ConfigError("these are not the brokers of the local stack: give --yes if load may go there")
    if not click.confirm("May it?", default=False, err=True):
        raise ConfigError("nothing was sent")
