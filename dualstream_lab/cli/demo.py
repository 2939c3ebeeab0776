"""``dualstream demo``: both streams at work, and what is left of them while Redis is dead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from dualstream_lab.cli import INTERRUPTED
from dualstream_lab.cli.console import say, stdout
from dualstream_lab.cli.destination import agree
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.progress import progress_bar
from dualstream_lab.lab.demo import Demo, run_demo
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.where import Destination
from dualstream_lab.workload import PAYLOADS, Workload

if TYPE_CHECKING:
    from dualstream_lab.analysis.latency import Latency
    from dualstream_lab.lab.demo import Result
    from dualstream_lab.lab.runner import Progress as RunProgress

__all__ = ["demo"]


class _Span(click.ParamType[tuple[float, float]]):
    """``8:12``: from second to second."""

    name = "from:to"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Two numbers."""
        first, _, second = str(value).partition(":")
        try:
            return float(first), float(second)
        except ValueError:
            self.fail(f"{value!r} is not from:to in seconds, such as 8:12", param, ctx)


@click.command(epilog="Example:  dualstream demo --rate 20000 --payload github --outage 5:15")
@click.option("--rate", type=float, default=10_000, show_default=True, help="Events a second.")
@click.option("--duration", type=float, default=20, show_default=True, help="Seconds.")
@click.option(
    "--payload", type=click.Choice(PAYLOADS), default="fixed", show_default=True, help="300 B or real."
)
@click.option("--outage", type=_Span(), default="8:12", show_default=True, help="Redis is away.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed plans the same events.")
@click.option(
    "--runs", "root", type=click.Path(path_type=Path), default="runs", show_default=True, help="Where to."
)
def demo(
    rate: float, duration: float, payload: str, outage: tuple[float, float], seed: int, root: Path
) -> int:
    """Publish GitHub-like events through a Redis outage, with a listener on each stream.

    Starts a real Kafka and a real Redis of its own, kills Redis on the way, and shows what that did to
    either stream: a table here, a picture and the rows in the output directory.
    """
    # one call a millisecond, as an application that collects for so long
    batch = max(1, round(rate / 1000))
    workload = Workload(rate=rate, duration=duration, payload=payload, batch=batch, seed=seed)  # type: ignore[arg-type]
    plan = Demo(workload=workload, outage=outage)
    with Interrupts() as interrupts, LocalStack(progress=say) as stack:
        agree(Destination.of(stack), yes=False)
        say(f"publishing {rate:,.0f} events/s for {duration:g} s; Redis is killed at {outage[0]:g} s …")
        with progress_bar(duration) as bar:

            def show(progress: RunProgress) -> None:
                bar(progress.seconds, f"{progress.seconds:5.1f} s  {progress.line}")

            result = interrupts.run(run_demo(plan, stack, root, show))
    if result.run.state == "interrupted":
        say(f"interrupted; what was recorded: dualstream runs {result.run.path}")
        return INTERRUPTED
    _tell(result)
    return 0 if result.good else 1


def _tell(result: Result) -> None:
    stdout.print(_latencies(result))
    stdout.print(_counts(result))
    stdout.print(f"\n{_verdict(result)}")
    stdout.print(f"\npicture  {result.picture}\nrun      {result.run.path}")
    say("next: see both streams yourself:  dualstream up --detach   then   dualstream tail --pattern '*'")


def _verdict(result: Result) -> str:
    if result.good:
        return "Every event is durable on Kafka and was read there once, whatever Redis missed."
    return "NOT every event is durable and was read once: see the rows."


def _latencies(result: Result) -> Table:
    """Quantiles by phase."""
    table = Table(title="Latency from the intended time, ms", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("seconds")
    for name in ("publish p50", "p99", "p99.9", "Kafka consumer p50", "p99", "Redis subscriber p50", "p99"):
        table.add_column(name, justify="right")
    for phase in result.phases:
        table.add_row(
            phase.name,
            f"{phase.begin:.1f}-{phase.end:.1f}",
            *_cells(phase.publish, "p50", "p99", "p999"),
            *_cells(phase.kafka, "p50", "p99"),
            *_cells(phase.redis, "p50", "p99"),
        )
    return table


def _cells(latency: Latency, *names: str) -> list[str]:
    return [f"{getattr(latency, name):.2f}" if latency.count else "none heard" for name in names]


def _counts(result: Result) -> Table:
    """What became of the events."""
    table = Table(title="\nEvents", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column(justify="right")
    for row in result.run.verdict.count_table():
        table.add_row(*row)
    return table
