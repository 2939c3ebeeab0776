"""``dualstream demo``: both streams at work, and what is left of them while Redis is dead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dualstream_lab.analysis.statistics import Latency
from dualstream_lab.cli.console import run_progress, say, show_table, stdout
from dualstream_lab.cli.exit_codes import INTERRUPTED
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.options import agree, runs
from dualstream_lab.lab.demo import Demo, Result, run_demo
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination
from dualstream_lab.workload import PAYLOADS, Workload


def _span(text: str) -> tuple[float, float]:
    """From second to second, ``8:12``: a type of option."""
    first, _, second = text.partition(":")
    try:
        return float(first), float(second)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not from:to in seconds, such as 8:12") from None


@click.command(epilog="Example:  dualstream demo --rate 20000 --payload github --outage 5:15")
@click.option("--rate", type=float, default=10_000, help="Publish so many events a second.")
@click.option("--duration", type=float, default=20, help="Publish for so many seconds.")
@click.option(
    "--payload", type=click.Choice(PAYLOADS), default="fixed", help="Send payloads of 300 B, or real ones."
)
@click.option(
    "--outage",
    type=_span,
    default="8:12",
    metavar="FROM:TO",
    help="Take Redis away from and to these seconds.",
)
@click.option("--seed", type=int, default=1, help="The same seed plans the same events.")
@runs
def demo(outage: tuple[float, float], root: Path, **plan: Any) -> int:
    """Publish GitHub-like events through a Redis outage, with a listener on each stream.

    Starts a real Kafka and a real Redis of its own, kills Redis on the way, and shows what that did to
    either stream: a table here, a picture and the rows in the output directory.
    """
    # one call a millisecond, as an application that collects for so long
    workload = Workload(batch=max(1, round(plan["rate"] / 1000)), **plan)
    asked = Demo(workload=workload, outage=outage)
    rate, duration = workload.rate, workload.duration
    with Interrupts() as interrupts, LocalStack(progress=say) as stack:
        agree(Destination.of(stack))
        say(f"publishing {rate:,.0f} events/s for {duration:g} s; Redis is killed at {outage[0]:g} s …")
        with run_progress(duration) as show:
            result = interrupts.run(run_demo(asked, stack, root, show))
    if result.run.state == "interrupted":
        say(f"interrupted; what was recorded: dualstream runs {result.run.path}")
        return INTERRUPTED
    _show(result)
    return 0 if result.good else 1


def _show(result: Result) -> None:
    columns = ("publish p50", "p99", "p99.9", "Kafka consumer p50", "p99", "Redis subscriber p50", "p99")
    phases = [
        (
            phase.name,
            f"{phase.begin:.1f}-{phase.end:.1f}",
            *_cells(phase.publish, "p50", "p99", "p999"),
            *_cells(phase.kafka, "p50", "p99"),
            *_cells(phase.redis, "p50", "p99"),
        )
        for phase in result.phases
    ]
    show_table("Latency from the intended time, ms", ("", "seconds", *columns), phases, align="llr")
    show_table("\nEvents", ("", ""), result.run.verdict.count_table(), align="lr", show_header=False)
    good = "Every event is durable on Kafka and was read there once, whatever Redis missed."
    stdout.print(
        f"\n{good if result.good else 'NOT every event is durable and was read once: see the rows.'}"
    )
    stdout.print(f"\npicture  {result.picture}\nrun      {result.run.path}")
    say("next: see both streams yourself:  dualstream up --detach   then   dualstream tail --pattern '*'")


def _cells(latency: Latency, *names: str) -> list[str]:
    return [f"{getattr(latency, name):.2f}" if latency.count else "none delivered" for name in names]
