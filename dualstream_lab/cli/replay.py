"""``dualstream replay``: history from Kafka, to look at, into a file, or to another topic."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dualstream_lab.cli import INTERRUPTED, UNAVAILABLE
from dualstream_lab.cli.console import Moment, say, stderr
from dualstream_lab.cli.options import brokers
from dualstream_lab.cli.rejects import Rejects
from dualstream_lab.cli.replay_plan import Plan
from dualstream_lab.cli.replay_sinks import Lines, Table
from dualstream_lab.errors import ConfigError, DualStreamError
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.replay import Player, Republish, find_event, positions_text, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from dualstream_lab.replay import Reject, Sink

__all__ = ["replay"]

_NAMED = 5  # records left out that are spelled out where no file takes them


@click.command(
    epilog="Example:  dualstream replay --since 10m --source repo:owner/name"
    "   or  dualstream replay --offset 0 --type 'issues.*' --to-topic again --rate 500"
)
@click.option("--since", "--from-time", type=Moment(), metavar="WHEN", help="Begin 10m ago, or at a time.")
@click.option("--offset", type=int, help="Begin there in every partition; -5: five before the end.")
@click.option("--id", "event_id", metavar="ID", help="Begin at this event, which is looked for.")
@click.option("--from", "positions", metavar="P:O,…", help="Go on at these positions: 0:123,1:456.")
@click.option("--until", type=Moment(), metavar="WHEN", help="End before this time.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--follow", is_flag=True, help="At the end, go on with what comes.")
@click.option("--source", metavar="TYPE:ID", help="Only of this source.")
@click.option("--pattern", metavar="GLOB", help="Only of sources such as 'repo:octo/*'.")
@click.option("--type", "types", multiple=True, metavar="GLOB", help="Only of this type; may be repeated.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second, at most.")
@click.option("--output", metavar="FILE", help="As JSON Lines into FILE; - is stdout.")
@click.option("--to-topic", metavar="TOPIC", help="Publish them to TOPIC, with the same ids.")
@click.option("--announce", is_flag=True, help="With --to-topic: notify on Redis, too.")
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="For what is left out.  [default: FILE or TOPIC, and .rejects.jsonl]",
)
@brokers
def replay(**options: Any) -> int:
    """Give events of the log again, in the order of time: from --since, --offset, --id or --from on.

    On a terminal a short line an event; into a pipe or FILE the events as they are in the log, one a line.
    --to-topic publishes them to another topic: the same ids, types, sources and data. Redis hears of it only
    with --announce, for subscribers would take the old for new.

    WHEN is so long ago (90s, 10m, 2d) or a time (2025-06-01T12:00:00Z). Nobody's place in the log is moved:
    it reads beside the consumer groups. Ctrl-C ends it and says how to go on. A record that is no event is
    left out and counted. Exit code 0: all that was asked for was given, up to the end as it was at the start;
    1: not all of it, and why; 3: a partition could not be read, the others were given.
    """
    plan = Plan.of(**options)
    with _Refused(plan) as refused:
        try:
            return asyncio.run(_replay(plan, refused))
        except BrokenPipeError:  # the reader of our output has left: `… | head`
            return 0


class _Refused:
    """What was left out: into a file where there is a place for one, else the first few are said."""

    def __init__(self, plan: Plan) -> None:
        path = plan.rejects
        if path is None and plan.target is not None:
            path = Path(f"{plan.target.topic}.rejects.jsonl")
        elif path is None and plan.output not in {None, "-"}:
            path = Path(f"{plan.output}.rejects.jsonl")
        self.file = None if path is None else Rejects(path, append=plan.goes_on)
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    def add(self, reject: Reject) -> None:
        """Count it, and keep it or say it."""
        self.count += 1
        place = f"{reject.partition}:{reject.offset}"
        if self.file is not None:
            self.file.add({"pos": place}, reject.reason, reject.raw)
        elif self.count <= _NAMED:
            say(f"left out {place}: {reject.reason}")


async def _replay(plan: Plan, refused: _Refused) -> int:
    began = time.monotonic()
    failure: DualStreamError | None = None
    async with _Bar(visible=stderr.is_terminal and not plan.for_people) as bar:
        start = plan.start
        if plan.event_id is not None:
            start = await find_event(
                plan.settings, plan.event_id, source=plan.selection.source, watch=bar.look
            )
        async with (
            read(plan.settings, start, until=plan.until, follow=plan.follow) as reading,
            _sink(plan, refused) as sink,
        ):
            if reading.unnamed:
                say(f"not named, and not read: partitions {', '.join(map(str, reading.unnamed))}")
            player = Player(
                reading, plan.selection, sink, on_reject=refused.add, rate=plan.rate, limit=plan.limit
            )
            bar.watch(player)
            with _interruptible(player.stop):
                try:
                    await player.run()
                except DualStreamError as error:
                    failure = error
            shortfall = [] if failure or player.stopped else await reading.shortfall()
            held = 0 if failure else await reading.held()
    _tell(plan, player, refused, time.monotonic() - began)
    if held:
        say(f"{held:,} messages are behind an open transaction, and not given before its end")
    for reason in shortfall:
        say(f"not all of it was given: {reason}")
    if failure is not None:
        say(f"error: {failure}")
    _say_what_next(plan, player, unfinished=failure is not None)
    if failure is not None:
        return UNAVAILABLE
    return INTERRUPTED if player.stopped else 1 if refused.count or shortfall else 0


def _say_what_next(plan: Plan, player: Player, *, unfinished: bool) -> None:
    if not player.reading.is_same_log:
        say("begin anew with --offset 0")
    elif unfinished or player.stopped or player.at_limit:
        say(f"go on with --from {positions_text(player.reading.at)}")
    elif advice := _advice(plan, player):
        say(f"next: {advice}")


@asynccontextmanager
async def _sink(plan: Plan, refused: _Refused) -> AsyncIterator[Sink]:
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
        yield Republish(publisher, plan.target, on_reject=refused.add)
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


class _Bar:
    """Records read, of those between begin and end, and events written; four times a second."""

    def __init__(self, *, visible: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[events]}"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=stderr, disable=not visible, transient=True)
        self._task = self._bar.add_task("reading", total=None, events="")
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._bar.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        self._bar.stop()

    def look(self, read: int, total: int) -> None:
        """The id is still looked for."""
        self._bar.update(self._task, description="looking for the id", completed=read, total=total)

    def watch(self, player: Player) -> None:
        """Show the player from now on."""

        async def show() -> None:
            while True:
                reading = player.reading
                total = max(reading.total, reading.read)
                self._bar.update(
                    self._task,
                    description="reading",
                    completed=reading.read,
                    total=total,
                    events=f"{player.written:,} events",
                )
                await asyncio.sleep(0.25)

        self._watching = asyncio.create_task(show())


def _tell(plan: Plan, player: Player, refused: _Refused, seconds: float) -> None:
    where = plan.target.topic if plan.target is not None else plan.output or "stdout"
    say(
        f"{player.written:,} events to {where}, of {player.reading.read:,} records read in {seconds:.1f} s "
        f"({player.written / seconds:,.0f}/s), {refused.count:,} left out"
    )
    if refused.count and refused.file is not None:
        say(f"what was left out is in {refused.file.path}")


def _advice(plan: Plan, player: Player) -> str | None:
    if not player.written:
        return "nothing was chosen; without --source, --pattern and --type you see all that there is"
    if plan.target is not None:
        return f"dualstream replay --offset 0 --topic {plan.target.topic}"
    if plan.for_people:
        return "one of them whole:  dualstream replay --id ID --limit 1 --output -"
    if plan.output not in {None, "-"}:
        return f"dualstream publish {plan.output} --topic TOPIC"
    return None
