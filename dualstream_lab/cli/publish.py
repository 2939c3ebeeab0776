"""``dualstream publish``: a file of events into both streams."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from dualstream_lab.cli.console import progress_bar, repeating, say
from dualstream_lab.cli.exit_codes import INTERRUPTED, UNAVAILABLE, USAGE
from dualstream_lab.cli.options import brokers, path
from dualstream_lab.cli.sinks import Rejects
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, DualStreamError, EventError
from dualstream_lab.ingest import FORMATS, Format, Ingest, Progress, Reader, Reject
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.stack.destination import find_settings
from dualstream_lab.stack.settings import TOPIC
from dualstream_lab.units import quantity


@click.command(epilog="Example:  dualstream publish webhooks.jsonl.gz --format github-webhook --rate 1000")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--format", "form", type=click.Choice(FORMATS), default="event")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Publish so many lines a second, at most."
)
@click.option(
    "--from-line", type=click.IntRange(min=1), default=1, show_default=False, help="Go on at this line."
)
@path("--rejects", help="Write refused lines into this file.  [default: FILE.rejects.jsonl]")
@brokers
def publish(
    file: str, form: Format, rate: float | None, from_line: int, rejects: Path | None, **urls: str
) -> int:
    """Publish FILE (or -), one event a line: to Kafka, which must succeed, then announced on Redis.

    FILE is JSON Lines in UTF-8, or one JSON array of events, whose elements then count as lines; either may
    be gzipped. A bad line goes to the rejects file with its number and the reason; the rest goes on (exit
    code 1). Ctrl-C stops cleanly and says up to which line all is durable; --from-line goes on from there.

    \b
    --format event           {"id", "type", "source_type", "source_id", "occurred_at", "data"}
    --format github-webhook  {"event", "payload"}; the payload becomes data, byte for byte
    """
    settings = find_settings(**urls)
    rejects = rejects or Path("stdin.rejects.jsonl" if file == "-" else f"{file}.rejects.jsonl")
    if rejects.exists() and Path(file).exists() and rejects.samefile(file):
        raise ConfigError(f"--rejects {rejects} is FILE itself; give another")
    name = "standard input" if file == "-" else file
    with _opened(file) as opened, Rejects(rejects) as refused:
        return asyncio.run(_publish(settings, opened, name, form, rate, from_line, refused))


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        if sys.stdin is None:
            raise ConfigError("FILE is - and there is no standard input")
        yield sys.stdin.buffer
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115  (closed below; other errors are not the opening's)
    except OSError as error:
        raise ConfigError(f"FILE {file!r} cannot be read: {error.strerror}") from error
    with opened:
        yield opened


async def _publish(
    settings: Settings,
    opened: IO[bytes],
    name: str,
    form: Format,
    rate: float | None,
    first: int,
    refused: Rejects,
) -> int:
    reader = Reader(opened)
    started = time.monotonic()
    async with DualPublisher(settings) as publisher:

        def on_reject(reject: Reject) -> None:
            refused.add({reader.unit: reject.line}, reject.reason, reject.raw)

        ingest = Ingest(publisher, form=form, on_reject=on_reject, rate=rate, first_line=first)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ingest.stop)
        progress = ingest.progress
        with progress_bar() as bar:
            async with repeating(lambda: bar(progress.read, _line(progress, started))):
                failure = await _failure(ingest, reader, name)
        await publisher.flush(2)
        stats = publisher.stats()
    if not (progress.durable or progress.rejected or ingest.stopped):
        raise failure or ConfigError(f"{name} has no event: nothing was published")
    say(f"{_line(progress, started)}; {stats.notified:,} announced on Redis")
    if stats.dropped:
        say("notifications dropped: " + ", ".join(f"{n:,} ({why})" for why, n in stats.dropped.items()))
    if refused.count:
        say(f"what was refused is in {refused.path}")
    if failure is not None or ingest.stopped:
        return _broken_off(failure, progress, reader.unit)
    if progress.durable:
        topic = "" if settings.topic == TOPIC else f" --topic {settings.topic}"
        say(f"see them:  dualstream tail --from-kafka --no-follow --since 10m --pattern '*'{topic}")
    return 1 if progress.rejected else 0


async def _failure(ingest: Ingest, reader: Reader, name: str) -> DualStreamError | None:
    """Publish all; return what ended it before its time, if anything did."""
    try:
        await ingest.run(reader.read)
    except EventError as error:
        return ConfigError(f"{name} {error}")
    except OSError as error:
        return ConfigError(f"{name} cannot be read: {error.strerror}")
    except DualStreamError as error:
        return error
    return None


def _broken_off(failure: DualStreamError | None, progress: Progress, unit: str) -> int:
    """Say why it ended, and where to go on; return the exit code."""
    if failure is not None:
        say(f"error: {failure}")
    say(f"all {unit}s up to {progress.up_to} are done; go on with --from-line {progress.up_to + 1}")
    if failure is None:
        return INTERRUPTED
    return USAGE if isinstance(failure, ConfigError) else UNAVAILABLE


def _line(progress: Progress, started: float) -> str:
    seconds = max(time.monotonic() - started, 0.001)
    rate = f"{progress.durable / seconds:,.0f}/s"
    durable = f"{quantity(progress.durable, 'event')} durable in {seconds:.1f} s ({rate})"
    return f"{durable}, {progress.rejected:,} refused"
