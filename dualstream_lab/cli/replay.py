"""``dualstream replay``: history from Kafka, to look at, into a file, or to another topic."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dualstream_lab.cli.console import repeating, say, stderr, stdout
from dualstream_lab.cli.exit_codes import INTERRUPTED, UNAVAILABLE
from dualstream_lab.cli.options import brokers, moment, path
from dualstream_lab.cli.sinks import Lines, Rejects, Table
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, DualStreamError
from dualstream_lab.lab.streams import source_of
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.replay import (
    Player,
    Reject,
    Republish,
    Selection,
    Sink,
    Start,
    find_event,
    parse_positions,
    positions_text,
    read,
)  # fmt: skip
from dualstream_lab.stack.destination import find_settings
from dualstream_lab.units import quantity

_COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[events]}"),
    TimeElapsedColumn(),
)  # fmt: skip


@click.command(
    epilog="Example:  dualstream replay --since 10m --source repo:owner/name"
    "   or  dualstream replay --offset 0 --type 'issues.*' --to-topic again --rate 500"
)
@click.option("--since", "--from-time", type=moment, metavar="WHEN", help="Begin 10m ago, or at a time.")
@click.option("--offset", type=int, help="Begin there in every partition; -5: five before the end.")
@click.option("--id", "event_id", metavar="ID", help="Begin at this event, which is looked for.")
@click.option("--from", "positions", metavar="P:O,…", help="Go on at these positions: 0:123,1:456.")
@click.option("--until", type=moment, metavar="WHEN", help="End before this time.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--follow", is_flag=True, help="At the end, go on with what comes.")
@click.option("--source", metavar="TYPE:ID", help="Give only events of this source.")
@click.option("--pattern", metavar="GLOB", help="Give only events of sources such as 'repo:octo/*'.")
@click.option(
    "--type", "types", multiple=True, metavar="GLOB", help="Give only events of this type; may be repeated."
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Give so many events a second, at most."
)
@click.option("--output", metavar="FILE", help="Write them as JSON Lines into FILE; - is stdout.")
@click.option("--to-topic", metavar="TOPIC", help="Publish them to TOPIC, with the same ids.")
@click.option("--announce", is_flag=True, help="With --to-topic: notify on Redis, too.")
@path(
    "--rejects", help="Write what is left out into this file.  [default: FILE or TOPIC, and .rejects.jsonl]"
)
@brokers
def replay(**options: Any) -> int:
    """Give events of the log again, in the order of time: from --since, --offset, --id or --from on.

    On a terminal a short line an event; into a pipe or FILE the events as they are in the log, one a line.
    --to-topic publishes them to another topic: the same ids, types, sources and data. They are announced on
    Redis only with --announce, for subscribers would take the old for new.

    WHEN is so long ago (90s, 10m, 2d) or a time (2025-06-01T12:00:00Z). Nobody's place in the log is moved:
    it reads beside the consumer groups. Ctrl-C ends it and says how to go on. A record that is no event is
    left out and counted. Exit code 0: all that was asked for was given, up to the end as it was at the start;
    1: not all of it, and why; 3: a partition could not be read, the others were given.
    """
    plan = _planned(**options)
    with Rejects(plan.rejects, append=plan.goes_on) as rejects:
        try:
            return asyncio.run(_replay(plan, rejects))
        except BrokenPipeError:  # the reader of our output has left: `… | head`
            return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is asked for. ``until``: ms since the epoch. ``target``: the publisher's, if there is one."""

    settings: Settings
    start: Start
    selection: Selection
    target: Settings | None
    rejects: Path | None
    until: int | None
    event_id: str | None
    output: str | None
    follow: bool
    limit: int | None
    rate: float | None

    @property
    def goes_on(self) -> bool:
        """Whether this replay is the rest of an earlier one."""
        return self.start.positions is not None

    @property
    def for_people(self) -> bool:
        """Whether events go to a terminal."""
        return self.target is None and self.output is None and stdout.is_terminal


def _planned(
    *, since: float | None, offset: int | None, event_id: str | None, positions: str | None,
    until: float | None, source: str | None, pattern: str | None, types: tuple[str, ...], output: str | None,
    to_topic: str | None, announce: bool, rejects: Path | None, follow: bool, limit: int | None,
    rate: float | None, **urls: str | None,
) -> _Plan:  # fmt: skip
    """Make the plan of the options. Raises UsageError, ConfigError and StackError."""
    if sum(value is not None for value in (since, offset, event_id, positions)) != 1:
        raise click.UsageError(
            "say where to begin: --since 10m, --offset 0 (all that is kept), --id ID or --from P:O,…"
        )
    for one, other, both in (
        ("--source", "--pattern", None not in {source, pattern}),
        ("--output", "--to-topic", None not in {output, to_topic}),
        ("--follow", "--until", follow and until is not None),
    ):
        if both:
            raise click.UsageError(f"{one} and {other} exclude each other")
    if announce and to_topic is None:
        raise click.UsageError("--announce needs --to-topic")
    if source is not None:
        source_of(source)
    placed = None if positions is None else parse_positions(positions)
    settings = find_settings(**urls)
    name = to_topic or (output if output != "-" else None)
    return _Plan(
        settings=settings,
        start=Start(offset=offset, timestamp=_ms(since), positions=placed),
        selection=Selection(source=source, pattern=pattern, types=types),
        target=None if to_topic is None else _target(settings, to_topic, announce=announce),
        rejects=rejects or (Path(f"{name}.rejects.jsonl") if name is not None else None),
        until=_ms(until), event_id=event_id, output=output, follow=follow, limit=limit, rate=rate,
    )  # fmt: skip


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _target(settings: Settings, topic: str, *, announce: bool) -> Settings:
    """Make the settings to publish with: the same Kafka, another topic, and Redis only to announce."""
    if topic == settings.topic:
        raise ConfigError(
            f"--to-topic {topic} is the topic that is read: what is written would be read again"
        )
    if announce and settings.redis_url is None:
        raise ConfigError("--announce: no Redis is given; set --redis (DUALSTREAM_REDIS_URL)")
    there = Settings.load(kafka_url=settings.kafka_url, topic=topic)
    return there.model_copy(update={"redis_url": settings.redis_url if announce else None})


async def _replay(plan: _Plan, rejects: Rejects) -> int:
    began = time.monotonic()
    failure: DualStreamError | None = None

    def on_reject(reject: Reject) -> None:
        rejects.add({"pos": f"{reject.partition}:{reject.offset}"}, reject.reason, reject.raw)

    visible = stderr.is_terminal and not plan.for_people
    with Progress(*_COLUMNS, console=stderr, disable=not visible, transient=True) as bar:
        task = bar.add_task("reading", total=None, events="")

        def look(read: int, total: int) -> None:
            bar.update(task, description="looking for the id", completed=read, total=total)

        def show() -> None:
            done, total = reading.read, max(reading.total, reading.read)
            events = quantity(player.written, "event")
            bar.update(task, description="reading", completed=done, total=total, events=events)

        start = plan.start
        if plan.event_id is not None:
            start = await find_event(plan.settings, plan.event_id, source=plan.selection.source, watch=look)
        async with (
            read(plan.settings, start, until=plan.until, follow=plan.follow) as reading,
            _sink(plan, on_reject) as sink,
        ):
            if reading.unnamed:
                say(f"not named, and not read: partitions {', '.join(map(str, reading.unnamed))}")
            player = Player(
                reading, plan.selection, sink, on_reject=on_reject, rate=plan.rate, limit=plan.limit
            )
            with _interruptible(player.stop):
                async with repeating(show):
                    try:
                        await player.run()
                    except DualStreamError as error:
                        failure = error
            shortfall = [] if failure or player.stopped else await reading.shortfall()
            held = 0 if failure else await reading.held()
    _show(plan, player, rejects, time.monotonic() - began)
    if held:
        messages = quantity(held, "message is", "messages are")
        say(f"{messages} behind an open transaction, and not given before its end")
    for reason in shortfall:
        say(f"not all of it was given: {reason}")
    _say_what_next(plan, player, failure)
    if failure is not None:
        return UNAVAILABLE
    return INTERRUPTED if player.stopped else 1 if rejects.count or shortfall else 0


def _show(plan: _Plan, player: Player, rejects: Rejects, seconds: float) -> None:
    place = plan.target.topic if plan.target is not None else plan.output or "stdout"
    records = quantity(player.reading.read, "record")
    say(
        f"{quantity(player.written, 'event')} to {place}, of {records} read in {seconds:.1f} s "
        f"({player.written / seconds:,.0f}/s), {rejects.count:,} left out"
    )
    if rejects.count and rejects.path is not None:
        say(f"what was left out is in {rejects.path}")


def _say_what_next(plan: _Plan, player: Player, failure: DualStreamError | None) -> None:
    if failure is not None:
        say(f"error: {failure}")
    if not player.reading.is_same_log:
        say("begin anew with --offset 0")
    elif failure or player.stopped or player.at_limit:
        say(f"go on with --from {positions_text(player.reading.at)}")
    elif advice := _advice(plan, player):
        say(f"next: {advice}")


def _advice(plan: _Plan, player: Player) -> str | None:
    if not player.written:
        return "nothing was chosen; without --source, --pattern and --type you see all that there is"
    if plan.target is not None:
        return f"dualstream replay --offset 0 --topic {plan.target.topic}"
    if plan.for_people:
        return "one of them whole:  dualstream replay --id ID --limit 1 --output -"
    if plan.output not in {None, "-"}:
        return f"dualstream publish {plan.output} --topic TOPIC"
    return None


@asynccontextmanager
async def _sink(plan: _Plan, on_reject: Callable[[Reject], None]) -> AsyncIterator[Sink]:
    if plan.target is None:
        with closing(Table() if plan.for_people else Lines(plan.output or "-", append=plan.goes_on)) as sink:
            yield sink
        return
    publisher = DualPublisher(plan.target)
    try:
        await publisher.start()
    except ConfigError as error:
        raise ConfigError(f"--to-topic: {error}") from error
    async with publisher:
        yield Republish(publisher, plan.target, on_reject=on_reject)
        await publisher.flush(2)
        if plan.target.redis_url is not None:
            say(f"{publisher.stats().notified:,} announced on Redis")


@contextmanager
def _interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C asks it to stop; a second one ends it, even while nobody reads our output."""
    loop = asyncio.get_running_loop()
    asked = False

    def interrupt(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        loop.call_soon_threadsafe(stop)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
