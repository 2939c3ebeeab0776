"""``dualstream tail``: out of the streams."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import click

from dualstream_lab.cli.console import Duration, say
from dualstream_lab.cli.options import brokers
from dualstream_lab.config import Settings
from dualstream_lab.lab.streams import notifications, stored_events
from dualstream_lab.replay import Start
from dualstream_lab.stack.where import find_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["tail"]


@click.command(epilog="Example:  dualstream tail --pattern 'repo:*' --from-kafka --since 10m")
@click.argument("source")
@click.option("--pattern", is_flag=True, help="SOURCE is a glob, such as 'repo:*' or '*'.")
@click.option("--from-kafka", is_flag=True, help="The whole events from the log, instead of notifications.")
@click.option("--since", type=Duration(), help="With --from-kafka: begin this long ago, such as 10m.")
@click.option("--offset", type=int, help="With --from-kafka: begin there; -5: five before the end.")
@click.option("--no-follow", is_flag=True, help="With --from-kafka: stop at the end of the log.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@brokers
def tail(
    source: str,
    pattern: bool,
    from_kafka: bool,
    since: float | None,
    offset: int | None,
    no_follow: bool,
    limit: int | None,
    **where: str,
) -> int:
    """Watch SOURCE (type:id) live: notifications from Redis as they come, one JSON a line.

    With --from-kafka the whole events, each as it is in the log.
    """
    if (since is not None or offset is not None or no_follow) and not from_kafka:
        raise click.UsageError("--since, --offset and --no-follow need --from-kafka: Redis keeps no history")
    if since is not None and offset is not None:
        raise click.UsageError("--since and --offset exclude each other")
    settings = find_settings(Settings, **where)
    if from_kafka:
        begin = None if since is None else round((time.time() - since) * 1000)
        lines = stored_events(
            settings, source, Start(offset=offset, timestamp=begin), pattern=pattern, follow=not no_follow
        )
    else:
        lines = _heard(settings, source, pattern=pattern)
    with suppress(KeyboardInterrupt):
        asyncio.run(_print(lines, limit))
    return 0


async def _heard(settings: Settings, source: str, *, pattern: bool) -> AsyncGenerator[bytes, None]:
    subscribed = False
    async for channel, message in notifications(settings, source, pattern=pattern):
        if message:
            yield message
        else:
            say(
                "connection made anew: something may have been missed"
                if subscribed
                else f"listening on {channel}"
            )
            subscribed = True


async def _print(lines: AsyncGenerator[bytes, None], limit: int | None) -> None:
    count = 0
    async with aclosing(lines):
        async for line in lines:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
            count += 1
            if count == limit:
                break
