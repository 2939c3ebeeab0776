"""``dualstream run``, ``smoke`` and ``find-rate``: load with a verdict, or the highest rate that holds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dualstream_lab.cli.console import run_progress, say, stdout
from dualstream_lab.cli.exit_codes import MISSED
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.options import (
    Target,
    conclude,
    printing,
    runs,
    target_options,
    together,
    verdict_files,
)
from dualstream_lab.cli.runs import show_run
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.find_rate import Probe, Search, at_rate, probe_of
from dualstream_lab.lab.find_rate import find_rate as search_rate
from dualstream_lab.lab.result import check_run
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import Scenario, shipped_scenarios
from dualstream_lab.units import quantity
from dualstream_lab.verdict.measures import MEASURES, unit_of
from dualstream_lab.verdict.thresholds import Threshold

run_options = together(
    click.option("--rate", type=float, help="Send so many events/s, instead of the scenario's."),
    click.option("--duration", type=float, help="Run for so many seconds, instead of the scenario's."),
    click.option("--seed", type=int, help="Draw another plan of the same kind."),
    target_options,
    runs,
)
verdict_options = together(
    click.option(
        "--threshold", multiple=True, metavar="TEXT", help="Hold one more threshold: live.latency.p99<5ms"
    ),
    verdict_files,
)


def _print_measures() -> None:
    stdout.print("Of a time a threshold gives the unit: us, ms, s or m.\n")
    for name, says in MEASURES.items():
        stdout.print(f"{name:32} {unit_of(name) or 'number':7} {says}", soft_wrap=True)


def _print_scenarios() -> None:
    for name, text in shipped_scenarios().items():
        stdout.print(f"{name:24} {text.splitlines()[0].removeprefix('# ')}")


def _print_scenario(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        if (text := shipped_scenarios().get(value)) is None:
            raise ConfigError(f"--show {value}: must be one of {', '.join(shipped_scenarios())}")
        stdout.print(text.rstrip())
        ctx.exit()


@click.command(
    epilog="Example:  dualstream run redis_down.toml --threshold 'publish.latency.p99<20ms'"
    "   Faults that a scenario can have: dualstream chaos --list"
)
@click.argument("scenario")
@run_options
@verdict_options
@printing("--list", _print_scenarios, "Name the shipped scenarios and leave.")
@click.option("--show", metavar="NAME", is_eager=True, expose_value=False, callback=_print_scenario,
              help="Print a shipped scenario, to begin a file of yours with, and leave.")  # fmt: skip
@printing("--measures", _print_measures, "Name what a threshold can measure and leave.")
def run(scenario: str, **options: Any) -> int:
    """Run SCENARIO, a TOML file or a shipped one's name, and judge it by its thresholds.

    Exit codes: 0 every threshold held, 99 one was missed, 2 bad arguments, 3 a broker is missing, 130
    interrupted (what was recorded is kept and summarised).
    """
    return run_and_show(Scenario.read(scenario), **options)


@click.command(epilog="Example:  dualstream smoke --junit smoke.xml --threshold 'live.latency.p99<50ms'")
@run_options
@verdict_options
def smoke(**options: Any) -> int:
    """Both streams for 30 s at 10,000 events/s, with loose thresholds: for CI.

    Starts a real Kafka and a real Redis, or uses --kafka and --redis. Exit codes as of `dualstream run`.
    """
    return run_and_show(Scenario.read("smoke.toml"), **options)


def run_and_show(
    scenario: Scenario, *, target: Target, root: Path, junit: Path | None, json_file: Path | None,
    target_is_mine: bool = False, **changes: Any,
) -> int:  # fmt: skip
    """Run a scenario with these options and show what came of it; return the exit code."""
    scenario = changed(scenario, **changes)
    work = scenario.workload
    say(f"{scenario.name}: {work.plan} plan, {work.rate:,.0f} events/s for {work.duration:g} s …")
    # whoever says that nobody else needs the brokers has been asked
    target = replace(target, yes=target.yes or target_is_mine)
    with (
        Interrupts() as interrupts,
        target.open(scenario.brokers) as (destination, stack),
        run_progress(work.duration) as show,
    ):
        mine = target_is_mine or destination.local
        result = interrupts.run(
            run_scenario(
                scenario, settings=destination.settings, stack=stack, root=root, target_is_mine=mine,
                show=show, say=say,
            )
        )  # fmt: skip
    show_run(result)
    return conclude(check_run, result, junit=junit, json_file=json_file)


def changed(scenario: Scenario, *, threshold: tuple[str, ...] = (), **changes: Any) -> Scenario:
    """Add thresholds to a scenario, and change its workload where a value is not None."""
    given = {name: value for name, value in changes.items() if value is not None}
    thresholds = (*scenario.thresholds, *map(Threshold.parse, threshold))
    return replace(scenario, workload=replace(scenario.workload, **given), thresholds=thresholds)


@click.command(
    "find-rate", epilog="Example:  dualstream find-rate --publish-p99 20 --live-p99 20 --repeats 5"
)
@run_options
@click.option(
    "--publish-p99", type=float, default=50, help="Allow publishing this p99, ms from the intended time."
)
@click.option(
    "--live-p99", type=float, default=50, help="Allow live delivery this p99, ms from the intended time."
)
@click.option("--low", type=float, default=2_000, help="Begin with so many events/s.")
@click.option("--high", type=float, default=200_000, help="Stop at so many events/s.")
@click.option("--precision", type=float, default=0.1, help="Find the rate to this share of it.")
@click.option("--repeats", type=int, default=3, help="Search so often; the median counts.")
def find_rate(
    root: Path, rate: float | None, duration: float | None, seed: int | None, target: Target, **limits: Any
) -> int:
    """Find the highest rate at which publishing and live delivery both stay within their limits.

    Every rate is a run of its own (--duration, 6 s if left out); a rate that fails is tried again, and the
    whole search is repeated. Says what saturated.
    """
    if rate is not None:
        raise ConfigError("--rate is what is searched for; give --low and --high")
    search = Search(**limits)
    scenario = changed(Scenario(name="find-rate", warm_up=2.0), duration=duration or 6.0, seed=seed)
    with Interrupts() as interrupts, target.open(scenario.brokers) as (destination, stack):

        async def probe(at: float) -> Probe:
            plan = at_rate(scenario, at)
            result = await run_scenario(plan, settings=destination.settings, stack=stack, root=root)
            found = probe_of(result, search, at)
            state = f"no: {found.reason}" if found.reason else "holds"
            p99 = f"publish p99 {found.publish_p99:8.1f} ms  live p99 {found.live_p99:8.1f} ms"
            say(f"{at:>10,.0f}/s  {p99}  {state}")
            if result.state == "interrupted":
                raise asyncio.CancelledError
            return found

        finding = interrupts.run(search_rate(search, probe))
    if not finding.rate:
        stdout.print(f"Not even {search.low:,.0f} events/s hold: {finding.saturated}")
        return MISSED
    rates = sorted(finding.rates)
    searches = quantity(len(rates), "search", "searches")
    stdout.print(
        f"{finding.rate:,.0f} events/s hold publish p99 ≤ {search.publish_p99:g} ms and live p99 ≤ "
        f"{search.live_p99:g} ms (median of {searches}, {rates[0]:,.0f} to {rates[-1]:,.0f}).\n"
        f"What saturated: {finding.saturated}"
    )
    say(f"next: dualstream smoke --rate {finding.rate * 0.8:.0f}")
    return 0
