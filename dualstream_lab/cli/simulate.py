"""``dualstream simulate``: a scenario on the model, where `dualstream run` has brokers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dualstream_lab.cli.console import say, working
from dualstream_lab.cli.options import conclude, duration, path, runs, together
from dualstream_lab.cli.run import changed, verdict_options
from dualstream_lab.cli.runs import show_run
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.former_names import DEPLOYMENT, before
from dualstream_lab.lab.result import Run, check_run
from dualstream_lab.lab.scenario import Scenario
from dualstream_lab.simulation import Deployment, record
from dualstream_lab.simulation import simulate as model
from dualstream_lab.simulation.calibration import Calibration, load_of
from dualstream_lab.simulation.parameters import deployment_for

_PARTS = (
    ("publishers", int, "1", "Have so many event loops, each with the scenario's concurrency."),
    ("brokers", int, "1", "Have so many Kafka brokers; what the scenario's faults need, at least."),
    ("partitions", int, "6", "Give the topic so many partitions."),
    ("replication_factor", int, "3, or all brokers", "Keep so many replicas of a partition."),
    ("shards", int, "1", "Have so many Redis servers."),
    ("subscribers", int, "the scenario's", "Have so many connections to Redis that receive everything."),
    ("gateways", int, "0", "Have so many gateways, which subscribe to Redis and deliver to clients."),
    ("clients", float, "0", "Give each event so many clients, at all gateways together."),
    ("consumers", int, "1", "Have so many Kafka consumers, in one group."),
    ("cores", int, "0", "Let all parts share so many cores; 0: each has its own."),
    ("tick", duration, "5ms", "Let a gateway wait so long to write several events at once."),
)


@click.command(
    epilog="Example:  dualstream simulate redis_down.toml --rate 100000 --publishers 4 --brokers 3"
)
@click.argument("scenario")
@click.option("--rate", type=float, help="Send so many events/s, instead of the scenario's.")
@click.option("--duration", type=float, help="Run for so many seconds, instead of the scenario's.")
@click.option("--seed", type=int, help="Draw another plan of the same kind, and other chance.")
@together(
    *(
        click.option(
            *dict.fromkeys((f"--{name.replace('_', '-')}", f"--{before(DEPLOYMENT, name)}")),
            type=kind,
            help=f"{words}  [default: {usual}]",
        )
        for name, kind, usual, words in _PARTS
    )
)
@path("--calibration", "file", help="Take the costs of this file, by `dualstream calibrate`.")
@runs
@verdict_options
def simulate(
    scenario: str, *, rate: float | None, duration: float | None, seed: int | None, file: Path | None,
    root: Path, threshold: tuple[str, ...], junit: Path | None, json_file: Path | None, **parts: Any,
) -> int:  # fmt: skip
    """Simulate SCENARIO, a TOML file or a shipped one's name: the same plan, faults and thresholds as
    `dualstream run`, on as many of each part as you like. Nothing is started, nothing is measured.

    The run directory is marked as simulated; `report`, `compare`, `ledger` and notebooks work on it. Above
    ten million events the plan must be constant and faults those of Redis, and rows are a sample. Bounds of
    the publisher are the settings, as DUALSTREAM_REDIS_TIMEOUT.

    Exit codes: 0 every threshold held, 99 one was missed, 2 bad arguments, or a fault that is not modelled.
    """
    asked = changed(Scenario.read(scenario), rate=rate, duration=duration, seed=seed, threshold=threshold)
    calibration = Calibration.load(file) if file else Calibration.shipped()
    deployment = _deployment(asked, parts)
    work = asked.workload
    say(f"{asked.name}: {work.plan} plan, {work.rate:,.0f} events/s for {work.duration:g} s, simulated …")
    with working("simulating …"):
        outcome = model(work, deployment, calibration.costs, asked.faults, seed=work.seed)
        directory = record(
            outcome, root, name=asked.name, thresholds=[limit.text for limit in asked.thresholds]
        )
        result = Run.of(directory, keep=True)
    show_run(result)
    code = conclude(check_run, result, junit=junit, json_file=json_file)
    for line in calibration.caveats(load_of(work, deployment)):
        say(f"note: {line}")
    return code


def _deployment(scenario: Scenario, parts: dict[str, Any]) -> Deployment:
    given = {name: value for name, value in parts.items() if value is not None}
    if (brokers := given.setdefault("brokers", scenario.brokers)) < scenario.brokers:
        raise ConfigError(f"--brokers: the scenario's faults need {scenario.brokers} (are {brokers})")
    if given.get("clients") and not given.get("gateways"):
        raise ConfigError("--clients: are at gateways: give --gateways, too")
    if given.get("gateways") and "subscribers" in given:
        raise ConfigError(
            "--subscribers: with --gateways it is they who subscribe to Redis: leave one of them out"
        )
    usual = {"subscribers": scenario.users.subscribers}
    return deployment_for(Settings.load(), concurrency=scenario.users.concurrency, **usual | given)
