"""``dualstream chaos``: a scenario with faults, the list of faults, and the mending of what a crash left."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from dualstream_lab.cli.console import say, show_table
from dualstream_lab.cli.exit_codes import UNAVAILABLE
from dualstream_lab.cli.options import printing
from dualstream_lab.cli.run import run_and_show, run_options, verdict_options
from dualstream_lab.errors import ConfigError, DualStreamError
from dualstream_lab.faults.fault import Fault
from dualstream_lab.faults.injector import recover
from dualstream_lab.faults.journal import left_behind
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.lab.scenario import Scenario


def _print_faults() -> None:
    rows = [(kind.name, kind.says, _parameters(kind), _place(kind)) for kind in CATALOGUE.values()]
    show_table("", ("fault", "what it does", "parameters", "where"), rows)


def _parameters(kind: type[Fault]) -> str:
    return "\n".join(
        f"{one.name} = {one.default:g}: {one.says} ({one.low:g} to {one.high:g})" for one in kind.parameters
    )


def _place(kind: type[Fault]) -> str:
    if kind.breaks == "gateway":
        return "dualstream check-gateway"
    if kind.needs_stack:
        return f"local stack, {kind.brokers} brokers" if kind.brokers > 1 else "local stack"
    return "anywhere (by a proxy)" if kind.needs_proxy else "--target-is-mine"


@click.command(epilog="Example:  dualstream chaos redis_trouble.toml --rate 5000")
@click.argument("scenario", required=False)
@run_options
@verdict_options
@click.option("--target-is-mine", is_flag=True, help="Let faults change the brokers of --kafka and --redis.")
@printing("--list", _print_faults, "Name the faults and their parameters and leave.")
@click.option("--mend", "recovering", is_flag=True, help="Undo what a crash has left broken, and leave.")
def chaos(scenario: str | None, recovering: bool, **options: Any) -> int:
    """Run SCENARIO, a TOML file or a shipped one's name, break what its [[faults]] say, and judge.

    Every fault proves that it bites and that it is over, and is undone however the run ends. Exit codes as
    of `dualstream run`; 3 also for a fault that does not bite.
    """
    if recovering:
        return _recover()
    if scenario is None:
        raise ConfigError(
            "SCENARIO is missing: a file, or one of `dualstream run --list`; or --list, or --mend"
        )
    plan = Scenario.read(scenario)
    if not plan.faults:
        raise ConfigError(f"{scenario} has no [[faults]]: dualstream chaos --list names what there is")
    for entry in left_behind():
        say(f"{entry.fault} of a run that crashed was not undone: dualstream chaos --mend")
    return run_and_show(plan, **options)


def _recover() -> int:
    entries = left_behind()
    failed = 0
    for entry in entries:
        try:
            say(f"{entry.fault} is over: {asyncio.run(recover(entry))}")
        except DualStreamError as error:
            failed += 1
            say(f"{entry.fault} could not be undone: {error}; it is kept in {entry.path}")
    if not entries:
        say("nothing is broken")
    return UNAVAILABLE if failed else 0
