"""``dualstream plan`` and ``decide``: how many of each part it takes; which stream an event belongs on."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from dualstream_lab.cli.console import say, show_rows, stdout, working
from dualstream_lab.cli.exit_codes import MISSED
from dualstream_lab.cli.options import duration, path
from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.planning.decide import Stream, Wants
from dualstream_lab.simulation.planning.decide import decide as find_stream
from dualstream_lab.simulation.planning.explain import arithmetic
from dualstream_lab.simulation.planning.plan import PUBLISHED, Figure, Goal, Plan, clusters, share_of, way
from dualstream_lab.simulation.planning.plan import plan as make_plan
from dualstream_lab.simulation.planning.requirements import Requirements
from dualstream_lab.units import count, percent, quantity, seconds

_PARTS = {
    "publishers": "event loops, a core each",
    "brokers": "Kafka, {replication_factor} replicas of a partition",
    "partitions": "of the topic",
    "shards": "Redis servers, a core each",
    "gateways": "a core each, at most {max_connections:,} connections; one is spare",
    "consumers": "a core each, in one group",
}
_STATIONS = {"publisher": "publishers", "broker": "brokers", "shard": "shards", "consumer": "consumers",
             "gateway": "gateways"}  # fmt: skip
_FEW: Final = 20  # sources a partition; of more, chance hardly matters
_TITLES = {"shards": "Redis shards"}
_LATENCIES = {
    "publish": "publish: intended → Kafka has it",
    "live": "live: intended → client has it",
    "durable": "durable: intended → consumer has it",
}


@click.command(
    epilog="Example:  dualstream plan --rate 1000000 --sources 5000000 --subscribers 10000000 --live-p99 50ms"
)
@click.option("--rate", type=float, required=True, help="Plan for so many events/s.")
@click.option("--subscribers", type=int, required=True, help="Plan for so many clients, at gateways.")
@click.option("--sources", type=int, default=100_000, help="Spread events over so many sources.")
@click.option(
    "--per-subscriber", type=float, default=1.0, help="Let each client subscribe to so many sources."
)
@click.option("--live-p99", type=duration, help="Hold this p99, from the intended time to the client.")
@click.option("--publish-p99", type=duration, help="Hold this p99, from the intended time to Kafka's ack.")
@click.option("--batch", type=int, default=10, help="Publish so many events in a call.")
@click.option("--payload-bytes", type=int, default=300, help="Give an event so many bytes.")
@click.option(
    "--replication-factor", "--copies", type=int, default=3, help="Keep so many replicas of a partition."
)
@click.option(
    "--max-load", type=float, default=0.6, help="Load a part to this share of its ceiling, at most."
)
@click.option("--max-connections", type=int, default=10_000, help="Let a gateway have so many connections.")
@click.option(
    "--tick",
    type=duration,
    default="5ms",
    help="Let a gateway wait so long to write several events at once.",
)
@click.option("--outage", type=duration, default="90s", help="Take a part away for so long.")
@path("--calibration", "file", help="Take the costs of this file, by `dualstream calibrate`.")
@click.option("--explain", is_flag=True, help="Show the arithmetic.")
def plan(file: Path | None, explain: bool, **options: Any) -> int:
    """How many publishers, brokers, partitions, Redis shards, gateways and consumers it takes.

    Says what saturates first, how long events take, and what an outage of each part does. Goals are tried on
    a simulated moment of the deployment. In brackets: with all costs at the low or the high end of their
    intervals. An asterisk: extrapolated, beyond what was measured.

    Exit codes: 0 the plan holds; 99 a goal cannot be reached (the nearest is shown); 2 bad arguments.
    """
    needs = Requirements(**options)
    calibration = Calibration.load(file) if file else Calibration.shipped()
    with working("trying deployments …"):
        found = make_plan(needs, calibration)
    _bill(found)
    _latency(found)
    _stations(found)
    _outages(found)
    if explain:
        stdout.print("\nThe arithmetic", style="bold")
        for line in arithmetic(found):
            stdout.print(f"  {line}")
    _notes(found)
    return _verdict(found)


def _bill(result: Plan) -> None:
    needs = result.needs
    stdout.print(
        f"For {needs.rate:,.10g} events/s of {quantity(needs.sources, 'source')} to "
        f"{quantity(needs.subscribers, 'subscriber')}",
        style="bold",
    )
    rows = []
    for part, what in _PARTS.items():
        words = what.format(
            replication_factor=needs.replication_factor, max_connections=needs.max_connections
        )
        rows.append((_TITLES.get(part, part), *_cells(result.bill[part], count), words))
    _show(rows)


def _latency(result: Plan) -> None:
    stdout.print("\n[bold]Latency[/]  (simulated)", markup=True)
    goals = {goal.name: goal for goal in result.goals}
    rows = []
    for name, what in _LATENCIES.items():
        for share in (0.5, 0.99):
            goal = goals.get(name) if share == 0.99 else None
            words = ""
            if goal:
                words = f"goal {seconds(goal.limit)}: {'reached' if goal.reached else 'missed'}"
            rows.append((f"{what}, p{share * 100:g}", *_cells(result.latency[name, share], seconds), words))
    _show(rows)


def _stations(result: Plan) -> None:
    stdout.print("\n[bold]What is left[/]  (load: share of the ceiling; at most "
                 f"{percent(result.needs.max_load)} was asked for)", markup=True)  # fmt: skip
    rows = []
    for name, part in _STATIONS.items():
        station = result.stations[name]
        times = f", {count(1 / station.load)} times the rate" if station.load > 0.01 else ""
        words = f"saturates at {count(station.ceiling)} events/s{times}"
        if name == result.bottleneck:
            words += "  ← the first"
        rows.append((_TITLES.get(part, part), *_cells(result.loads[name], percent), words))
    _show(rows)


def _outages(result: Plan) -> None:
    stdout.print(f"\nWhen one is away for {seconds(result.needs.outage)}", style="bold")
    rows, before = [], ""
    for effect, figure in result.effects:
        written = {"s": seconds, "share": percent}.get(effect.unit, count)
        rows.append((effect.part if effect.part != before else "", *_cells(figure, written), effect.quantity))
        before = effect.part
    _show(rows)


def _show(rows: Sequence[tuple[str | Text, ...]]) -> None:
    show_rows(rows, align="lrll", left=2)


def _cells(figure: Figure, written: Callable[[float], str]) -> tuple[Text, Text]:
    """Write the value, and its interval where it has one."""
    ends = [written(figure.low), written(figure.high)]
    interval = "" if ends[0] == ends[1] else f"({ends[0]} to {ends[1]})"
    value = Text(written(figure.value), "bold").append("*" if figure.extrapolated else " ", "not bold")
    return value, Text(interval, "dim")


def _notes(result: Plan) -> None:
    stdout.print()
    say("note: in brackets: with all costs at the low, or all at the high end of their intervals; "
        "* extrapolated")  # fmt: skip
    for line in result.calibration.caveats(result.beyond):
        say(f"note: {line}")
    if result.needs.sources < _FEW * result.deployment.partitions:
        say("note: so few sources are spread unevenly, by chance; latencies are of such a spread, loads of "
            "an even one.")  # fmt: skip
    if result.deployment.shards > 1:
        say("note: a publisher and a gateway of this package talk to one Redis; with several shards, each "
            "source belongs to one of them, and who publishes or serves it to that one, too.")  # fmt: skip


def _way(result: Plan, goal: Goal) -> str:
    """Say why a goal cannot be reached that is below what the steps take."""
    steps = way(result.needs, result.calibration.costs)[: None if goal.name == "live" else PUBLISHED]
    step = max(steps, key=lambda pair: pair[1])
    return f" The way by itself takes {seconds(goal.least)}; the longest step: {step[0]}, {seconds(step[1])}."


def _apart(result: Plan) -> None:
    """Say whether separate, smaller clusters reach the goals."""
    with working("trying separate clusters …"):
        number = clusters(result.needs, result.calibration)
    if number is None:
        stdout.print("Nor do up to 30 separate clusters.")
        return
    part = share_of(result.needs, number)
    stdout.print(
        f"{number} separate clusters reach it, each with its share of the sources: --rate "
        f"{math.ceil(part.rate)} --sources {part.sources} --subscribers {part.subscribers}"
    )


def _verdict(result: Plan) -> int:
    name = result.bottleneck
    station = result.stations[name]
    for goal in result.missed:
        stdout.print(
            f"[bold red]{goal.name} p99 ≤ {seconds(goal.limit)} is not reached[/] with any number of parts "
            f"that was tried. The nearest that works: {seconds(goal.value)}, with the above."
            + (_way(result, goal) if goal.least > goal.limit else ""),
            markup=True,
        )
    if result.missed:
        if all(goal.least <= goal.limit for goal in result.missed):
            _apart(result)
        return MISSED
    part = _TITLES.get(_STATIONS[name], _STATIONS[name])
    stdout.print(
        f"[green]It holds[/] with these costs. As the rate grows, {part} saturate first, at "
        f"{count(station.ceiling)} events/s.",
        markup=True,
    )
    return 0


@click.command(epilog="Example:  dualstream decide --must-not-lose --at-once --rate 50000 --channels 100000")
@click.option("--must-not-lose/--may-be-lost", default=None, help="Say whether each event will be missed.")
@click.option("--at-once/--later", default=None, help="Say whether somebody waits for it now.")
@click.option("--rate", type=float, help="Publish so many events/s.  [default: 100]")
@click.option("--per-channel", type=float, help="Have so many subscribers of a channel.  [default: 1]")
@click.option("--channels", type=int, help="Have so many channels.  [default: 100]")
def decide(**given: Any) -> int:
    """Kafka, Redis, or both: which stream an event belongs on, with the reasons and simulated figures.

    Asks, on a terminal, when no option is given.
    """
    answers = {name: value for name, value in given.items() if value is not None}
    if not answers and sys.stdin.isatty():
        answers = _asked()
    if not {"must_not_lose", "at_once"} <= answers.keys():
        raise ConfigError("say --must-not-lose or --may-be-lost, and --at-once or --later")
    wants = Wants(**answers)
    found = find_stream(wants)
    forms = f": {', '.join(found.forms)}" if found.forms else ""
    stdout.print(f"[bold green]{found.stream}[/][bold]{forms}[/]", markup=True)
    for reason in found.reasons:
        stdout.print(f"  {reason.why}")
        stdout.print(f"      {reason.figure}", style="dim")
    if not found.calibration.measured and found.stream is not Stream.NEITHER:
        say("note: figures are extrapolated, from costs that nobody measured: each may be a tenth or ten "
            "times as much. `dualstream calibrate RUN…` measures yours.")  # fmt: skip
    if found.stream in {Stream.KAFKA, Stream.BOTH}:
        subscribers = max(1, round(wants.per_channel * wants.channels))
        say(f"next: dualstream plan --rate {wants.rate:.10g} --sources {wants.channels} "
            f"--subscribers {subscribers}")  # fmt: skip
    return 0


def _asked() -> dict[str, Any]:
    return {
        "must_not_lose": click.confirm("Will somebody miss an event that is lost?", default=True),
        "at_once": click.confirm("Does somebody wait for it now?", default=True),
        "rate": click.prompt("Events/s", type=float, default=100.0),
        "channels": click.prompt("Channels (what events are about)", type=int, default=100),
        "per_channel": click.prompt("Subscribers of a channel", type=float, default=1.0),
    }
