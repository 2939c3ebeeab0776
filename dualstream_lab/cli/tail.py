"""``dualstream tail``: out of the streams."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import click

from dualstream_lab.cli.console import say
from dualstream_lab.cli.options import brokers, duration
from dualstream_lab.cli.sinks import Lines
from dualstream_lab.config import Settings
from dualstream_lab.lab.streams import OwnLog, notifications, source_of
from dualstream_lab.replay import Player, Reject, Selection, Start, read
from dualstream_lab.stack.destination import find_settings
from dualstream_lab.units import quantity


@click.command(epilog="Example:  dualstream tail --pattern 'repo:*' --from-kafka --since 10m")
@click.argument("source")
@click.option("--pattern", is_flag=True, help="SOURCE is a glob, such as 'repo:*' or '*'.")
@click.option("--from-kafka", is_flag=True, help="Show whole events from the log, instead of notifications.")
@click.option("--since", type=duration, help="With --from-kafka: begin this long ago, such as 10m.")
@click.option("--offset", type=int, help="With --from-kafka: begin there; -5: five before the end.")
@click.option("--no-follow", is_flag=True, help="With --from-kafka: stop at the end of the log.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@brokers
def tail(
    source: str, pattern: bool, from_kafka: bool, since: float | None, offset: int | None, no_follow: bool,
    limit: int | None, **urls: str,
) -> int:  # fmt: skip
    """Watch SOURCE (type:id) live: notifications from Redis as they come, one JSON a line.

    Those of other logs that share the Redis are left out, as Kafka says which log the topic is. With
    --from-kafka the whole events, each as it is in the log; exit code 1: some of it was no event, or is gone.
    """
    if (since is not None or offset is not None or no_follow) and not from_kafka:
        raise click.UsageError("--since, --offset and --no-follow need --from-kafka: Redis keeps no history")
    if since is not None and offset is not None:
        raise click.UsageError("--since and --offset exclude each other")
    if not from_kafka:
        return asyncio.run(_watch(source, limit, pattern=pattern, **urls))
    begin = None if since is None else round((time.time() - since) * 1000)
    chosen = Selection(pattern=source) if pattern else Selection(source=":".join(source_of(source)))
    settings, start = find_settings(**urls), Start(offset=offset, timestamp=begin)
    return asyncio.run(_read(settings, start, chosen, limit, follow=not no_follow))


async def _read(
    settings: Settings, start: Start, chosen: Selection, limit: int | None, *, follow: bool
) -> int:
    missing: list[str] = []

    def miss(reason: str) -> None:
        missing.append(reason)
        say(reason)

    def on_reject(reject: Reject) -> None:
        miss(f"partition {reject.partition} offset {reject.offset}: {reject.reason}")

    async with read(settings, start, follow=follow) as reading:
        player = Player(reading, chosen, Lines("-", append=False), on_reject=on_reject, limit=limit)
        await player.run()
        for reason in [] if player.at_limit else await reading.shortfall():
            miss(reason)
    return 1 if missing else 0


async def _watch(source: str, limit: int | None, *, pattern: bool, **urls: str) -> int:
    settings = Settings.load(**urls)
    if settings.redis_url is None:
        settings = find_settings(**urls)
    own = OwnLog(settings, say)

    async def messages() -> AsyncGenerator[bytes, None]:
        lost = "connection made anew: something may have been missed"
        subscribed = False
        async for channel, message in notifications(settings, source, own, pattern=pattern):
            if message:
                yield message
            else:
                say(lost if subscribed else f"listening on {channel}")
                subscribed = True

    try:
        await _print(messages(), limit)
    finally:
        if own.left_out:
            several = "notifications of other logs were"
            say(f"{quantity(own.left_out, 'notification of other logs was', several)} left out")
    return 0


async def _print(lines: AsyncGenerator[bytes, None], limit: int | None) -> None:
    count = 0
    async with aclosing(lines):
        async for line in lines:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
            count += 1
            if count == limit:
                break
