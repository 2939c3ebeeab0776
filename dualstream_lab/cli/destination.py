"""Where a command sends load: never to brokers that nobody named, and never without saying so."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

from dualstream_lab.cli.console import say, stderr
from dualstream_lab.cli.options import together
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination, ambient, find_destination
from dualstream_lab.stack.settings import TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_OPTIONS = together(
    click.option("--kafka", metavar="URL", help="Your Kafka; left out, a local stack is started."),
    click.option("--redis", metavar="URL", help="Your Redis; left out, nothing is announced."),
    click.option("--topic", help="The topic; on brokers of yours it must exist.  [default: events]"),
    click.option("--use-env", is_flag=True,
                 help="What is left out is as DUALSTREAM_KAFKA_URL, _REDIS_URL and _TOPIC say."),
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
        """What they name. Raises ConfigError."""
        return find_destination(kafka=self.kafka, redis=self.redis, topic=self.topic, use_env=self.use_env)

    @contextmanager
    def open(self, brokers: int) -> Iterator[tuple[Destination, LocalStack | None]]:
        """Where load goes, said and agreed to; a stack of its own, of so many brokers, where none were given.

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
    """The options that say where load goes, which the command takes as one ``target``."""

    @wraps(command)
    def collected(**given: Any) -> Any:
        target = Target(**{name: given.pop(name) for name in Target.__slots__})
        return command(target=target, **given)

    return _OPTIONS(collected)


def agree(destination: Destination, *, yes: bool = False) -> None:
    """Say where load goes; ask, if that may be somebody else's. Raises ConfigError for a "no"."""
    say(f"load goes to {destination}")
    if not yes:
        can_ask = sys.stdin is not None and sys.stdin.isatty() and stderr.is_terminal
        destination.agree(partial(click.confirm, "May it?", default=False, err=True) if can_ask else None)
