"""``dualstream publish`` and ``dualstream tail``: into the streams, and out of them."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dualstream_lab.cli.console import Duration, say, stderr
from dualstream_lab.cli.options import brokers
from dualstream_lab.cli.rejects import Rejects
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, PublishError
from dualstream_lab.ingest import FORMATS, Ingest
from dualstream_lab.lab.streams import line_reader, notifications, stored_events
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.replay import Start
from dualstream_lab.stack.where import find_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from dualstream_lab.ingest import Format, Reject

__all__ = ["publish", "tail"]


@click.command(epilog="Example:  dualstream publish webhooks.jsonl --format github-webhook --rate 1000")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--format", "form", type=click.Choice(FORMATS), default="event", show_default=True)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Lines a second, at most.")
@click.option("--from-line", type=click.IntRange(min=1), default=1, help="Go on at this line.")
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="For refused lines.  [default: FILE.rejects.jsonl]",
)
@brokers
def publish(
    file: str, form: Format, rate: float | None, from_line: int, rejects: Path | None, **where: str
) -> int:
    """Publish FILE (or -), one event a line: to Kafka, which must succeed, then announced on Redis.

    A bad line goes to the rejects file with its number and the reason; the rest goes on (exit code 1).
    Ctrl-C stops cleanly and says up to which line all is durable; --from-line goes on from there.

    \b
    --format event           {"id", "type", "source_type", "source_id", "occurred_at", "data"}
    --format github-webhook  {"event", "payload"}; the payload becomes data, byte for byte
    """
    settings = find_settings(Settings, **where)
    path = rejects or (Path("stdin.rejects.jsonl") if file == "-" else Path(f"{file}.rejects.jsonl"))
    with _opened(file) as lines, Rejects(path) as refused:
        return asyncio.run(_publish(settings, lines, form, rate, from_line, refused))


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


def _opened(file: str) -> BinaryIO | IO[bytes]:
    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigError(f"FILE {file!r} cannot be read: {error.strerror}") from error


async def _publish(
    settings: Settings,
    lines: BinaryIO | IO[bytes],
    form: Format,
    rate: float | None,
    first: int,
    refused: Rejects,
) -> int:
    started = time.monotonic()
    async with DualPublisher(settings) as publisher:

        def on_reject(reject: Reject) -> None:
            refused.add({"line": reject.line}, reject.reason, reject.raw)

        ingest = Ingest(publisher, form=form, on_reject=on_reject, rate=rate, first_line=first)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ingest.stop)
        failure: PublishError | None = None
        async with _shown(ingest):
            try:
                await ingest.run(await line_reader(lines))  # type: ignore[arg-type]
            except PublishError as error:
                failure = error
        await publisher.flush(2)
        stats = publisher.stats()
    progress = ingest.progress
    seconds = time.monotonic() - started
    say(
        f"{progress.durable:,} events durable in {seconds:.1f} s ({progress.durable / seconds:,.0f}/s), "
        f"{stats.notified:,} announced on Redis, {progress.rejected:,} refused"
    )
    if stats.dropped:
        say("notifications dropped: " + ", ".join(f"{n:,} ({why})" for why, n in stats.dropped.items()))
    if refused.count:
        say(f"the refused lines are in {refused.path}")
    if failure is not None:
        say(f"error: {failure}")
    if failure is not None or ingest.stopped:
        say(f"all lines up to {progress.up_to} are done; go on with --from-line {progress.up_to + 1}")
        return 3 if failure is not None else 130
    if not progress.read:
        raise ConfigError("FILE is empty: nothing was published")
    say("see them:  dualstream tail --from-kafka --no-follow --since 10m --pattern '*'")
    return 1 if progress.rejected else 0


@asynccontextmanager
async def _shown(ingest: Ingest) -> AsyncIterator[None]:
    """Progress on a terminal, four times a second."""
    columns = (
        TextColumn("publishing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s  {task.fields[refused]} refused"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None, rate=0, refused=0)
        began = time.monotonic()

        async def show() -> None:
            while True:
                done, seconds = ingest.progress.durable, time.monotonic() - began
                bar.update(
                    task, completed=done, rate=done / max(seconds, 0.001), refused=ingest.progress.rejected
                )
                await asyncio.sleep(0.25)

        showing = asyncio.create_task(show())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait([showing])
