"""Predicted against measured, on runs that no cost was learned from."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec, fault_named
from dualstream_lab.ledger import Ledger
from dualstream_lab.ledger.recovery import Path as Path_
from dualstream_lab.recording import RunDirectory
from dualstream_lab.recording.joined import join
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.engine.simulate import simulate
from dualstream_lab.simulation.fitting.observations import usable
from dualstream_lab.simulation.parameters import Costs, Deployment, deployment_of
from dualstream_lab.simulation.run_directory import record
from dualstream_lab.workload import Workload

_ALLOWED: Final = 0.15
_ALLOWED_P99: Final = 0.25
_KEPT_UP: Final = 0.95  # of the intended rate; below it the rate that was reached is the highest
_SETTLED: Final = 0.5  # s after the last event was due
_SEEDS: Final = 3  # predictions that are averaged
_NOTICED: Final = 0.1  # s; what is gone sooner was no backlog of a consumer
_PATHS: Final = ("publish", "live", "consumer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure of the repeats of one run."""

    setup: str  # what was run, in words
    figure: str
    unit: str  # s, events or events/s
    measured: tuple[float, ...]  # a value a repeat
    predicted: tuple[float, ...]  # a value a seed
    allowed: float  # how far their means may be apart, as a share of the measured one

    @property
    def means(self) -> tuple[float, float]:
        """(measured, predicted), as geometric means."""
        return _mean(self.measured), _mean(self.predicted)

    @property
    def error(self) -> float:
        """How much too high the prediction is, as a share of what was measured."""
        measured, predicted = self.means
        if measured == predicted:
            return 0.0
        return predicted / measured - 1 if measured else math.inf

    @property
    def within(self) -> bool:
        """Whether the error is no more than is allowed."""
        return abs(self.error) <= self.allowed


def validate(runs: Sequence[RunDirectory | Path | str], calibration: Calibration) -> list[Check]:
    """Each run's figures, as measured and as the model predicts them. Runs of the same settings are repeats.

    Allowed is 15 % (of a p99 25 %), or as much as repeats differ, if that is more. Raises ConfigError for a
    run that cannot be predicted, naming it, and RecordingError for one that cannot be read.
    """
    setups: dict[Any, list[RunDirectory]] = defaultdict(list)
    for run in runs:
        directory = run if isinstance(run, RunDirectory) else RunDirectory.open(run)
        workload = usable(directory, faults=True)
        deployment = deployment_of(directory, directory.intervals())
        faults = directory.manifest.faults
        lengths = tuple((each.name, round((each.end - each.begin) / 1e9)) for each in faults)
        setups[replace(workload, seed=0), deployment, lengths].append(directory)
    checks = []
    for (_, deployment, _), repeats in setups.items():
        measured = [figures(directory) for directory in repeats]
        predicted = [
            _predicted(repeats[0], deployment, calibration.costs, seed) for seed in range(1, _SEEDS + 1)
        ]
        name = _named(repeats, deployment)
        every = dict.fromkeys(figure for found in measured for figure in found)
        checks += [_check(name, figure, measured, predicted) for figure in every]
    return checks


def figures(directory: RunDirectory, *, least: float = _NOTICED) -> dict[str, float]:
    """The figures of a run that are compared, in s, events/s and events; one that it does not have is left
    out.

    Latencies begin at the sending: how late the plan's timers are is nothing of the pipeline. The highest
    rate: of a run that did not keep up. Of a fault, for each path: how long it was unavailable, how many
    events were open at worst, and how long it took until they were not; what was over within ``least`` s says
    more of when it was looked at.
    """
    rows = join(directory)
    durable = rows.durable
    found: dict[str, float] = {}
    sent, acked, delivered = (each[durable] for each in (rows.sent, rows.acked, rows.delivered))
    if not len(sent):
        return found
    first, last = int(rows.intended.min()), int(rows.intended.max())
    spent = (int(acked.max()) - first) / 1e9
    overload = spent > (last - first) / 1e9 / _KEPT_UP + _SETTLED
    faults = bool(directory.manifest.faults)  # then something stands still, and that is all that shows
    if (overload or not durable.all()) and not faults:
        found["max rate"] = len(sent) / spent
    elif not faults:
        found |= _quantiles("publish", acked - sent)
        if (delivered > 0).all():
            found |= _quantiles("live", delivered - sent)
    for recovery in Ledger.of(directory).recoveries if faults else ():
        for name in _PATHS:
            if (path := getattr(recovery, name)) is not None:
                waits = name != "consumer" and fault_named(recovery.fault).breaks == "kafka"
                effects = _outage(path, least, waits=waits)
                found |= {f"{recovery.fault}: {name} {what}": value for what, value in effects.items()}
    return found


def _outage(path: Path_, least: float, *, waits: bool) -> dict[str, float]:
    """What an outage did to a path. ``waits``: events wait for the outage's end, however soon they then get
    through; ``least``: s below which nothing is said.
    """
    found = {}
    drained = path.backlog / path.drain if path.drain else 0.0
    if path.unavailable > least:
        found["unavailable"] = path.unavailable
    if drained > least or (drained and waits and "unavailable" in found):
        found["backlog"] = float(path.backlog)
    if drained > least:
        found["drained in"] = drained
    return found


def _quantiles(name: str, spent: Any) -> dict[str, float]:
    return {f"{name} p{share:.0%}"[:-1]: float(np.quantile(spent, share)) / 1e9 for share in (0.5, 0.99)}


def _predicted(directory: RunDirectory, deployment: Deployment, costs: Costs, seed: int) -> dict[str, float]:
    workload = usable(directory, faults=True)
    try:
        result = simulate(workload, deployment, costs, _faults(directory, workload), seed=seed)
    except ConfigError as error:
        raise ConfigError(f"{directory.path.name} cannot be predicted: {error}") from error
    with tempfile.TemporaryDirectory() as root:
        return figures(record(result, Path(root)), least=0.0)


def _faults(directory: RunDirectory, workload: Workload) -> list[FaultSpec]:
    """The faults of a run, when they really were, with the parameters that were asked for."""
    manifest = directory.manifest
    asked = {spec.name: spec.parameters for spec in map(FaultSpec.load, manifest.asked.get("faults", ()))}
    specs = []
    for each in manifest.faults:
        at = max(0.0, (each.begin - manifest.started) / 1e9)
        length = (each.end - each.begin) / 1e9 if each.end else workload.duration - at
        length = 0.0 if fault_named(each.name).instant else max(length, 1e-3)
        specs.append(FaultSpec(name=each.name, at=at, length=length, parameters=asked.get(each.name, {})))
    return specs


def _named(repeats: Sequence[RunDirectory], deployment: Deployment) -> str:
    manifest = repeats[0].manifest
    work = manifest.workload
    what = f"{manifest.name}: {work['rate']:,.0f}/s by {work['batch']}, {work['payload_bytes']:,} bytes"
    if deployment.subscribers != 1:
        what += f", {deployment.subscribers} subscribers"
    return what + (f", {len(repeats)} runs" if len(repeats) > 1 else "")


def _check(
    setup: str, figure: str, measured: Sequence[dict[str, float]], predicted: Sequence[dict[str, float]]
) -> Check:
    values = tuple(found[figure] for found in measured if figure in found)
    middle = _mean(values)
    spread = max(abs(value / middle - 1) for value in values) if middle else 0.0
    unit = "events/s" if "rate" in figure else "events" if figure.endswith("backlog") else "s"
    return Check(
        setup=setup, figure=figure, unit=unit, measured=values,
        predicted=tuple(found[figure] for found in predicted if figure in found),
        allowed=max(_ALLOWED_P99 if figure.endswith("p99") else _ALLOWED, spread),
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    """NaN of none."""
    if not values:
        return math.nan
    return math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0
