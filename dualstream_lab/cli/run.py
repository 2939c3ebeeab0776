"""``dualstream run`` and ``smoke``: load with a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dualstream_lab.cli import INTERRUPTED, MISSED
from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.destination import destination_options, open_destination
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.options import as_json, check_writable, write_files
from dualstream_lab.cli.progress import progress_bar
from dualstream_lab.cli.summary import tell, write_run_junit
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import Scenario, shipped_scenarios
from dualstream_lab.load.measures import MEASURES, is_time
from dualstream_lab.load.thresholds import Threshold

if TYPE_CHECKING:
    from dualstream_lab.lab.result import Run
    from dualstream_lab.lab.runner import Progress as RunProgress

__all__ = ["changed", "options", "run", "run_and_tell", "smoke", "told", "verdict_options"]

_Command = Callable[..., Any]


def options(command: _Command) -> _Command:
    """What run, smoke, find-rate and chaos share."""
    for option in reversed(
        (
            click.option("--rate", type=float, help="Events/s, instead of the scenario's."),
            click.option("--duration", type=float, help="Seconds, instead of the scenario's."),
            click.option("--seed", type=int, help="Another plan of the same kind."),
            destination_options,
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
        stdout.print("Of a time a threshold gives the unit: us, ms, s or m.\n")
        for name, says in MEASURES.items():
            stdout.print(f"{name:32} {'time' if is_time(name) else 'number':7} {says}", soft_wrap=True)
        ctx.exit()


def _print_scenario(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        if (text := shipped_scenarios().get(value)) is None:
            raise ConfigError(f"--show {value}: must be one of {', '.join(shipped_scenarios())}")
        stdout.print(text.rstrip())
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
@click.option("--show", metavar="NAME", is_eager=True, expose_value=False, callback=_print_scenario,
              help="Print a shipped scenario, to begin a file of yours with, and leave.")  # fmt: skip
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
    rate: float | None,
    duration: float | None,
    seed: int | None,
    yes: bool,
    target_is_mine: bool = False,
    **where: Any,
) -> int:
    """Run it with these options and tell what came of it; the exit code."""
    check_writable(junit, json_file)
    scenario = changed(scenario, rate=rate, duration=duration, seed=seed)
    scenario = replace(scenario, thresholds=(*scenario.thresholds, *map(Threshold.parse, threshold)))
    work = scenario.workload
    say(f"{scenario.name}: {work.plan} plan, {work.rate:,.0f} events/s for {work.duration:g} s …")
    asked = yes or target_is_mine  # whoever says that nobody else needs them has been asked
    with (
        Interrupts() as interrupts,
        open_destination(**where, yes=asked, brokers=scenario.brokers) as (destination, stack),
        progress_bar(work.duration) as bar,
    ):

        def show(progress: RunProgress) -> None:
            bar(progress.seconds, f"{progress.seconds:5.1f} s  {progress.line}")

        result = interrupts.run(
            run_scenario(
                scenario,
                settings=destination.settings,
                stack=stack,
                root=root,
                target_is_mine=target_is_mine or destination.local,
                show=show,
                say=say,
            )
        )
    return told(result, junit=junit, json_file=json_file)


def told(result: Run, *, junit: Path | None, json_file: Path | None) -> int:
    """Show what came of it, and write it where that was asked for; the exit code."""
    tell(result)
    values = result.verdict.as_dict(result.directory)
    write_files((json_file, as_json(values)), (junit, lambda file: write_run_junit(result, file)))
    if result.state == "interrupted":
        return INTERRUPTED
    return 0 if result.held else MISSED


def changed(scenario: Scenario, *, rate: float | None, duration: float | None, seed: int | None) -> Scenario:
    """The scenario with these changes of its workload; None: as it is."""
    changes: dict[str, Any] = {"rate": rate, "duration": duration, "seed": seed}
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(scenario, workload=replace(scenario.workload, **given))
