"""``dualstream run`` and ``smoke``: load with a verdict."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn

from dualstream_lab.cli import INTERRUPTED, MISSED
from dualstream_lab.cli.console import say, stderr, stdout
from dualstream_lab.cli.options import check_writable
from dualstream_lab.cli.summary import tell, write_junit
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import Scenario, shipped_scenarios
from dualstream_lab.load.measures import MEASURES, is_time
from dualstream_lab.load.thresholds import Threshold
from dualstream_lab.stack import LocalStack

if TYPE_CHECKING:
    from dualstream_lab.lab.progress import Progress as RunProgress
    from dualstream_lab.lab.result import Run

__all__ = ["ended_in_order", "options", "prepared", "run", "run_and_tell", "smoke", "told", "verdict_options"]

_Command = Callable[..., Any]


def options(command: _Command) -> _Command:
    """What run, smoke, find-rate and chaos share."""
    for option in reversed(
        (
            click.option("--rate", type=float, help="Events/s, instead of the scenario's."),
            click.option("--duration", type=float, help="Seconds, instead of the scenario's."),
            click.option("--seed", type=int, help="Another plan of the same kind."),
            click.option("--kafka", metavar="URL", help="Your Kafka; left out, a local stack is started."),
            click.option("--redis", metavar="URL", help="Your Redis."),
            click.option("--topic", help="The topic, which must exist."),
            click.option(
                "--runs", "root", type=click.Path(path_type=Path), default="runs", show_default=True,
                help="Where run directories go.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def verdict_options(command: _Command) -> _Command:
    """What run, smoke and chaos share."""
    for option in reversed(
        (
            click.option("--threshold", multiple=True, metavar="TEXT", help="One more: live.latency.p99<5ms"),
            click.option("--junit", type=click.Path(path_type=Path), help="Write the verdict as JUnit XML."),
            click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write it as JSON."),
        )
    ):
        command = option(command)
    return command


def _print_measures(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        for name in MEASURES:
            stdout.print(f"{name:34} {'time (us, ms, s, m)' if is_time(name) else 'number'}")
        ctx.exit()


def _print_scenarios(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        for name, text in shipped_scenarios().items():
            stdout.print(f"{name:24} {text.splitlines()[0].removeprefix('# ')}")
        ctx.exit()


@click.command(
    epilog="Example:  dualstream run redis_down.toml --threshold 'publish.latency.p99<20ms'"
    "   Faults that a scenario can have: dualstream chaos --list"
)
@click.argument("scenario")
@options
@verdict_options
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_print_scenarios,
              help="Name the shipped scenarios and leave.")  # fmt: skip
@click.option("--measures", is_flag=True, is_eager=True, expose_value=False, callback=_print_measures,
              help="Name what a threshold can measure and leave.")  # fmt: skip
def run(scenario: str, **options: Any) -> int:
    """Run SCENARIO, a TOML file or a shipped one's name, and judge it by its thresholds.

    Exit codes: 0 every threshold held, 99 one was missed, 2 bad arguments, 3 a broker is missing, 130
    interrupted (what was recorded is kept and summarised).
    """
    return run_and_tell(Scenario.read(scenario), **options)


@click.command(epilog="Example:  dualstream smoke --junit smoke.xml --threshold 'live.latency.p99<50ms'")
@options
@verdict_options
def smoke(**options: Any) -> int:
    """Both streams for 30 s at 10,000 events/s, with loose thresholds: for CI.

    Starts a real Kafka and a real Redis, or uses --kafka and --redis. Exit codes as of `dualstream run`.
    """
    return run_and_tell(Scenario.read("smoke.toml"), **options)


def run_and_tell(
    scenario: Scenario,
    *,
    threshold: tuple[str, ...],
    junit: Path | None,
    json_file: Path | None,
    root: Path,
    target_is_mine: bool = False,
    **options: Any,
) -> int:
    """Run it with these options and tell what came of it; the exit code."""
    check_writable(junit, json_file)
    scenario, settings = prepared(scenario, **options)
    scenario = replace(scenario, thresholds=(*scenario.thresholds, *map(Threshold.parse, threshold)))
    work = scenario.workload
    say(f"{scenario.name}: {work.plan} plan, {work.rate:,.0f} events/s for {work.duration:g} s …")
    with ended_in_order():
        result = _with_bar(scenario, settings=settings, root=root, target_is_mine=target_is_mine)
    return told(result, junit=junit, json_file=json_file)


def told(result: Run, *, junit: Path | None, json_file: Path | None) -> int:
    """Show what came of it, and write it where that was asked for; the exit code."""
    tell(result)
    if json_file is not None:
        json_file.write_text(
            json.dumps(result.verdict.as_dict(result.directory), indent=1) + "\n", encoding="utf-8"
        )
    if junit is not None:
        write_junit(result, junit)
    if result.state == "interrupted":
        return INTERRUPTED
    return 0 if result.held else MISSED


def prepared(
    scenario: Scenario,
    *,
    rate: float | None,
    duration: float | None,
    seed: int | None,
    kafka: str | None,
    redis: str | None,
    topic: str | None,
) -> tuple[Scenario, Settings | None]:
    """The scenario with these changes, and where it runs: None for a local stack."""
    changes = {"rate": rate, "duration": duration, "seed": seed}
    workload = replace(scenario.workload, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]
    settings = Settings.load(kafka_url=kafka, redis_url=redis, topic=topic)
    if settings.kafka_url is None:
        if redis is not None:
            raise ConfigError("--redis without --kafka: give both, or neither for a local stack")
        return replace(scenario, workload=workload), None
    return replace(scenario, workload=workload), settings


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM is as Ctrl-C: what was broken is mended, what was recorded is kept.

    Where Ctrl-C was ignored, as by `dualstream run … &` in a script, it is not within this block: asyncio
    would leave it so, and SIGTERM would do nothing either.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_bar(scenario: Scenario, *, settings: Settings | None, root: Path, target_is_mine: bool) -> Run:
    columns = (TextColumn("{task.fields[seconds]:5.1f} s"), BarColumn(), TextColumn("{task.fields[line]}"))
    with (
        LocalStack(brokers=scenario.brokers, progress=say) if settings is None else nullcontext() as stack,
        Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task("", total=scenario.workload.duration, seconds=0.0, line="")

        def show(progress: RunProgress) -> None:
            done = min(progress.seconds, progress.duration)
            bar.update(task, completed=done, seconds=progress.seconds, line=progress.line)

        return asyncio.run(
            run_scenario(
                scenario,
                settings=settings,
                stack=stack,
                root=root,
                target_is_mine=target_is_mine,
                show=show,
                say=say,
            )
        )
