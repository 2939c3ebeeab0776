"""``dualstream check-gateway``: the handover of any gateway that speaks this project's wire."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop
from rich.table import Table
from rich.text import Text

from dualstream_lab.cli import INTERRUPTED, MISSED, UNAVAILABLE
from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.destination import agree, destination_options
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.options import as_json, check_writable, write_files
from dualstream_lab.cli.progress import progress_bar
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.faults.target import brokers_needed
from dualstream_lab.lab.gateway_check import Plan, check_local
from dualstream_lab.lab.gateway_check import check_gateway as check_it
from dualstream_lab.lab.gateway_check.check import VIAS
from dualstream_lab.lab.gateway_check.judge import Wrong
from dualstream_lab.lab.gateway_check.verdict import SAYS
from dualstream_lab.lab.output.export import Case, write_junit
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.where import Destination, find_destination

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dualstream_lab.lab.gateway_check import Check
    from dualstream_lab.lab.gateway_check import Progress as CheckProgress

    Show = Callable[[CheckProgress], None]

__all__ = ["check_gateway"]

_QUICK = 10.0


@click.command(
    "check-gateway",
    epilog="Example:  dualstream check-gateway http://127.0.0.1:8080 --via sse --quick",
)
@click.argument("url", required=False)
@click.option("--clients", type=int, default=100, show_default=True, help="That come, drop and resume.")
@click.option("--sources", type=int, default=8, show_default=True, help="That they follow.")
@click.option("--rate", type=float, default=2_000, show_default=True, help="Events a second.")
@click.option("--seconds", type=float, default=30, show_default=True, help="Of load; then all comes to rest.")
@click.option("--quick", is_flag=True, help=f"{_QUICK:g} s of load.")
@click.option(
    "--via", type=click.Choice(list(VIAS)), default="both", show_default=True, help="How they connect."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed plans the same clients.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME",
    help="Break the stack meanwhile: redis.kill, … (dualstream chaos --list).",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write the verdict as JUnit XML.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write it as JSON.")
@destination_options
def check_gateway(
    url: str | None,
    clients: int,
    sources: int,
    rate: float,
    seconds: float,
    quick: bool,
    via: str,
    seed: int,
    faults: tuple[str, ...],
    junit: Path | None,
    json_file: Path | None,
    **where: Any,
) -> int:
    """Check the gateway at URL: does it lose, repeat or reorder events while clients come and go?

    Clients connect, drop (politely, at once, in mid-frame), are away for a moment and resume with their
    last cursor, while events are published to the Kafka and the Redis that the gateway reads. What each was
    told is held against the topic, by event id. Which brokers those are say --kafka and --redis, or
    --use-env, else it is the running local stack. Without URL: a local stack and `dualstream serve` are
    started, and that is checked.

    Exit codes: 0 nothing was wrong, 99 something was (the table says what), 2 bad arguments, 3 a broker or
    the gateway is missing, 130 interrupted (what was told until then is judged).
    """
    check_writable(junit, json_file)
    plan = Plan(
        clients=clients, sources=sources, rate=rate, seconds=_QUICK if quick else seconds, via=via, seed=seed
    )
    check = _local(plan, faults, **where) if url is None else _remote(url, plan, faults, **where)
    _tell(check)
    write_files((json_file, as_json(check.as_dict())), (junit, lambda file: _write_junit(check, file)))
    if check.state == "interrupted":
        return INTERRUPTED
    if not check.held:
        return MISSED
    return UNAVAILABLE if check.away else 0


def _remote(url: str, plan: Plan, faults: tuple[str, ...], *, yes: bool, **where: Any) -> Check:
    if faults:
        raise ConfigError("--fault: only the stack that this command starts itself is broken: leave URL out")
    destination = find_destination(**where) or Destination.running(where["topic"])
    if destination is None:
        raise StackError("no local stack runs: give --kafka and --redis of the gateway, or --use-env")
    _announce(url, plan)
    agree(destination, yes=yes)
    settings = destination.settings
    with Interrupts() as interrupts:
        return _checked(interrupts, plan, lambda show: check_it(url, settings, plan, show=show))


def _local(plan: Plan, faults: tuple[str, ...], *, yes: bool, **where: Any) -> Check:
    if given := [name for name, value in where.items() if value]:
        option = given[0].replace("_", "-")
        raise ConfigError(f"--{option} without URL: give the gateway that reads it")
    with Interrupts() as interrupts, LocalStack(brokers=brokers_needed(faults), progress=say) as stack:
        _announce("dualstream serve", plan)
        agree(Destination.of(stack), yes=yes)
        return _checked(
            interrupts, plan, lambda show: check_local(stack, plan, faults=faults, show=show, say=say)
        )


def _announce(what: str, plan: Plan) -> None:
    say(
        f"checking {what}: {plan.clients} clients of {plan.sources} sources, {plan.rate:,.0f} events/s for "
        f"{plan.seconds:g} s …"
    )


def _checked(
    interrupts: Interrupts, plan: Plan, check: Callable[[Show], Coroutine[Any, Any, Check]]
) -> Check:
    """What comes of the check, with its progress shown."""
    with progress_bar(plan.seconds) as bar:

        def show(progress: CheckProgress) -> None:
            bar(progress.seconds, f"{progress.seconds:5.1f} s  {progress.line}")

        return interrupts.run(check(show), uvloop.run)


def _tell(check: Check) -> None:
    verdict = check.verdict
    table = Table(title="Handover, by event id", title_justify="left", title_style="bold", show_header=False)
    for _ in range(3):
        table.add_column()
    for wrong in Wrong:
        count = verdict.wrong[wrong]
        table.add_row(SAYS[wrong], f"{count:,}", Text("WRONG", "bold red") if count else "held")
    count = len(check.garbled)
    table.add_row(
        "messages that are not the wire's", f"{count:,}", Text("WRONG", "bold red") if count else "held"
    )
    table.add_section()
    ends = ", ".join(f"{count:,} {how}" for how, count in check.ends.most_common())
    table.add_row("events in the log", f"{verdict.events:,}", "")
    table.add_row("told to the clients", f"{verdict.told:,}", f"{verdict.old:,} old, {verdict.late:,} late")
    table.add_row("connections", f"{check.connections:,}", f"of {check.clients} clients; ended: {ends}")
    why = ", ".join(f"{count:,} times {reason}" for reason, count in verdict.refusals.items())
    table.add_row("allowed: not told, and said so", f"{verdict.declared:,}", why)
    table.add_row("allowed: told again after a resume", f"{verdict.repeated:,}", "")
    table.add_row("allowed: two publishers' events crossed", f"{verdict.crossed:,}", "")
    if verdict.unsettled:
        table.add_row("not told yet when it ended", f"{verdict.unsettled:,}", "")
    stdout.print(table)
    if verdict.examples:
        stdout.print(
            "\nExamples. Of every message: its offset, [the cursor that came with it], and when.",
        )
    for example in verdict.examples:
        stdout.print(f"\n{example.wrong.replace('_', ' ')}: {example.text}")
    for text in check.garbled[:3]:
        stdout.print(f"\nnot the wire's: {text}")
    for text, count in check.errors.most_common(3):
        say(f"the gateway said {count:,} times: {text}")
    if check.state == "interrupted":
        say("interrupted: what was told until then was judged")
    if check.away:
        say(f"error: {check.away} clients were not connected at the end: {check.trouble or 'no answer'}")
    stdout.print(f"\n{_sentence(check)}")


def _sentence(check: Check) -> str:
    if not check.held:
        return "This gateway does not keep its clients whole."
    if check.verdict.declared:
        return "Nothing was wrong; but not all was told, and the gateway said so."
    return "Nothing was lost, repeated or reordered that should not be."


def _write_junit(check: Check, file: Path) -> None:
    ran = Case(
        name="the check finished",
        classname="dualstream",
        seconds=check.seconds,
        failure=(check.trouble or f"it was {check.state}")
        if check.state != "finished" or check.away
        else None,
    )
    counts = {wrong.value: check.verdict.wrong[wrong] for wrong in Wrong} | {"garbled": len(check.garbled)}
    cases = []
    for name, count in counts.items():
        texts = [example.text for example in check.verdict.examples if example.wrong == name]
        texts += check.garbled if name == "garbled" else []
        cases.append(
            Case(
                name=name,
                classname="dualstream.handover",
                text="\n".join([f"{count:,}", *texts]),
                failure=f"{count:,}" if count else None,
            )
        )
    write_junit(file, "dualstream check-gateway", [ran, *cases], {})
