"""``dualstream decide``: which stream an event belongs on."""

from __future__ import annotations

import sys
from typing import Any

import click

from dualstream_lab.cli.console import say, stdout
from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.planning.decide import Stream, Wants
from dualstream_lab.simulation.planning.decide import decide as find_stream


@click.command(epilog="Example:  dualstream decide --must-not-lose --at-once --rate 50000 --channels 100000")
@click.option("--must-not-lose/--may-be-lost", default=None, help="Whether each event will be missed.")
@click.option("--at-once/--later", default=None, help="Whether somebody waits for it now.")
@click.option("--rate", type=float, help="Events/s.  [default: 100]")
@click.option("--per-channel", type=float, help="Subscribers of a channel.  [default: 1]")
@click.option("--channels", type=int, help="How many there are.  [default: 100]")
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
