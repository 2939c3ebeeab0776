"""``dualstream check-gateway``: the handover of any gateway that speaks this project's wire."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.text import Text

from dualstream_lab.cli.console import run_progress, say, show_table, stdout
from dualstream_lab.cli.exit_codes import UNAVAILABLE
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.options import Target, agree, conclude, target_options, verdict_files
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.faults.spec import brokers_needed
from dualstream_lab.lab.gateway_check import Check, Plan, check_local
from dualstream_lab.lab.gateway_check import check_gateway as check_it
from dualstream_lab.lab.gateway_check.check import VIAS, check_delivery
from dualstream_lab.lab.gateway_check.judge import Wrong
from dualstream_lab.lab.gateway_check.verdict import SAYS
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination
from dualstream_lab.units import quantity

_QUICK = 10.0


@click.command(
    "check-gateway",
    epilog="Example:  dualstream check-gateway http://127.0.0.1:8080 --via sse --quick",
)
@click.argument("url", required=False)
@click.option(
    "--clients", type=int, default=100, help="Connect so many clients, which come, drop and resume."
)
@click.option("--sources", type=int, default=8, help="Let them follow so many sources.")
@click.option("--rate", type=float, default=2_000, help="Publish so many events a second.")
@click.option("--seconds", type=float, default=30, help="Publish for so long; then all comes to rest.")
@click.option("--quick", is_flag=True, help=f"Publish for {_QUICK:g} s only.")
@click.option("--via", type=click.Choice(list(VIAS)), default="both", help="Let them connect like this.")
@click.option("--seed", type=int, default=1, help="The same seed plans the same clients.")
@click.option("--fault", "faults", multiple=True, metavar="NAME",
              help="Break the stack meanwhile: redis.kill, … (dualstream chaos --list).")  # fmt: skip
@verdict_files
@target_options
def check_gateway(
    url: str | None, quick: bool, seconds: float, faults: tuple[str, ...], junit: Path | None,
    json_file: Path | None, target: Target, **clients: Any,
) -> int:  # fmt: skip
    """Check the gateway at URL: does it lose, repeat or reorder events while clients come and go?

    Clients connect, drop (politely, at once, in mid-frame), are away for a moment and resume with their
    last cursor, while events are published to the Kafka and the Redis that the gateway reads. What each was
    told is held against the topic, by event id. Which brokers those are say --kafka and --redis, or
    --use-env, else it is the running local stack. Without URL: a local stack and `dualstream serve` are
    started, and that is checked.

    Exit codes: 0 nothing was wrong, 99 something was (the table says what), 2 bad arguments, 3 a broker or
    the gateway is missing, 130 interrupted (what was told until then is judged).
    """
    plan = Plan(seconds=_QUICK if quick else seconds, **clients)
    check = _check(url, plan, faults, target)
    _show(check)
    return conclude(check_delivery, check, junit=junit, json_file=json_file, inconclusive=UNAVAILABLE)


def _check(url: str | None, plan: Plan, faults: tuple[str, ...], target: Target) -> Check:
    if url is not None and faults:
        raise ConfigError("--fault: only the stack that this command starts itself is broken: leave URL out")
    with Interrupts() as interrupts, ExitStack() as exits:
        if url is None:
            if given := [name for name in ("kafka", "redis", "topic", "use_env") if getattr(target, name)]:
                option = given[0].replace("_", "-")
                raise ConfigError(f"--{option} without URL: give the gateway that reads it")
            stack = exits.enter_context(LocalStack(brokers=brokers_needed(faults), progress=say))
            destination = Destination.of(stack)
            check = partial(check_local, stack, plan, faults=faults, say=say)
        else:
            named = target.find() or Destination.running(target.topic)
            if named is None:
                raise StackError("no local stack runs: give --kafka and --redis of the gateway, or --use-env")
            destination = named
            check = partial(check_it, url, destination.settings, plan)
        say(
            f"checking {url or 'dualstream serve'}: {quantity(plan.clients, 'client')} of "
            f"{quantity(plan.sources, 'source')}, "
            f"{plan.rate:,.0f} events/s for {plan.seconds:g} s …"
        )
        agree(destination, yes=target.yes)
        with run_progress(plan.seconds) as show:
            return interrupts.run(check(show=show), uvloop.run)


def _show(check: Check) -> None:
    verdict = check.verdict
    counts = {SAYS[wrong]: verdict.wrong[wrong] for wrong in Wrong}
    counts["messages that are not the wire's"] = len(check.garbled)
    ends = ", ".join(f"{count:,} {how}" for how, count in check.ends.most_common())
    why = ", ".join(f"{quantity(count, 'time')} {reason}" for reason, count in verdict.refusals.items())
    rows = [
        *((name, f"{n:,}", Text("WRONG", "bold red") if n else "held") for name, n in counts.items()),
        None,
        ("events in the log", f"{verdict.events:,}", ""),
        (
            "delivered to the clients",
            f"{verdict.delivered:,}",
            f"{verdict.old:,} old, {verdict.recovered:,} recovered",
        ),
        ("connections", f"{check.connections:,}", f"of {quantity(check.clients, 'client')}; ended: {ends}"),
        ("allowed: not told, and said so", f"{verdict.declared:,}", why),
        ("allowed: told again after a resume", f"{verdict.repeated:,}", ""),
        ("allowed: two publishers' events crossed", f"{verdict.crossed:,}", ""),
    ]
    if verdict.unsettled:
        rows.append(("not told yet when it ended", f"{verdict.unsettled:,}", ""))
    show_table("Handover, by event id", (), rows, show_header=False)
    if verdict.examples:
        stdout.print("\nExamples. Of every message: its offset, [the cursor that came with it], and when.")
    for example in verdict.examples:
        stdout.print(f"\n{example.wrong.replace('_', ' ')}: {example.text}")
    for text in check.garbled[:3]:
        stdout.print(f"\nnot the wire's: {text}")
    for text, count in check.errors.most_common(3):
        say(f"the gateway said {quantity(count, 'time')}: {text}")
    if check.state == "interrupted":
        say("interrupted: what was told until then was judged")
    if check.away:
        away = quantity(check.away, "client was", "clients were")
        say(f"error: {away} not connected at the end: {check.trouble or 'no answer'}")
    stdout.print(f"\n{_sentence(check)}")


def _sentence(check: Check) -> str:
    if not check.held:
        return "This gateway does not keep its clients whole."
    if check.verdict.declared:
        return "Nothing was wrong; but not all was told, and the gateway said so."
    return "Nothing was lost, repeated or reordered that should not be."
