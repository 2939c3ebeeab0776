"""The model's costs on this machine: a sweep to learn from, runs to predict, and what came of it as the
package's calibration.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import Scenario, Users
from dualstream_lab.simulation.fitting.fit import fit
from dualstream_lab.simulation.fitting.validate import validate
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.simulation.fitting.validate import Check
    from dualstream_lab.stack import LocalStack

__all__ = ["calibration"]

_SHIPPED = Path(__file__).parent.parent / "dualstream_lab" / "simulation" / "calibrated.json"
_SECONDS, _WARM_UP, _COLD = 10.0, 3.0, 40.0
_SWEEP = (  # events/s, events a call, bytes, subscribers; no more than leaves cores idle
    (500, 1, 300, 1),
    (4_000, 1, 300, 1),
    (3_000, 10, 300, 1),
    (12_000, 10, 300, 1),
    (16_000, 4, 300, 1),
    (10_000, 50, 300, 1),
    (30_000, 100, 300, 1),
    (40_000, 500, 300, 1),
    (4_000, 10, 300, 16),
    (4_000, 10, 4_000, 1),
    (8_000, 50, 2_000, 1),
)
_HELD_OUT = (
    (6_000, 10, 300, 1),
    (6_000, 10, 300, 4),
    (1_500, 1, 300, 1),
    (16_000, 50, 1_000, 1),
    (9_000, 20, 600, 2),
    (25_000, 250, 300, 1),
)
_OVERLOAD = (250_000, 100, 300, 4.0)  # events/s, events a call, bytes, s
_OUTAGES = (  # events/s, events a call
    (5_000, 10, FaultSpec(name="redis.stop", at=8, length=5)),
    (5_000, 10, FaultSpec(name="kafka.stop", at=8, length=2)),
    (4_000, 4, FaultSpec(name="kafka.stop", at=8, length=3)),
)
_TABLE = "| run | figure | measured | predicted | off by | allowed | |\n|---|---|---|---|---|---|---|"


def calibration(stack: LocalStack, *, rounds: int, quick: bool) -> str:
    """A table of what was predicted. Unless it is quick, the package's calibration is what was learned.

    Runs are kept in runs/calibration: a new fit needs no new runs.
    """
    seconds, rounds = (3.0, 1) if quick else (_SECONDS, rounds)
    root = Path("runs/calibration-quick" if quick else "runs/calibration")
    with tempfile.TemporaryDirectory() as cold:  # a JVM takes its time to compile what is used most
        _run(stack, Path(cold), "warming up", Workload(rate=15_000, batch=20, duration=_COLD), 1, 0)
    learned, held_out = [], []
    for turn in range(rounds):
        for rate, batch, size, subscribers in _SWEEP:
            work = Workload(rate=rate, batch=batch, payload_bytes=size, duration=seconds)
            learned.append(_run(stack, root, "sweep", work, subscribers, turn))
        for rate, batch, size, subscribers in _HELD_OUT:
            work = Workload(rate=rate, batch=batch, payload_bytes=size, duration=seconds)
            held_out.append(_run(stack, root, "held-out", work, subscribers, turn))
        rate, batch, size, length = _OVERLOAD
        work = Workload(rate=rate, batch=batch, payload_bytes=size, duration=length)
        held_out.append(_run(stack, root, "overload", work, 1, turn))
        for rate, batch, fault in _OUTAGES:
            work = Workload(rate=rate, batch=batch, duration=25)
            held_out.append(_run(stack, root, fault.name.replace(".", "-"), work, 1, turn, fault))
    found = fit(learned).calibration
    if not quick:
        found.save(_SHIPPED)
    return _table(validate(held_out, found))


def _run(
    stack: LocalStack, root: Path, name: str, workload: Workload, subscribers: int, turn: int,
    *faults: FaultSpec,
) -> Path:  # fmt: skip
    """The run's directory."""
    print(f"{name}: {workload.rate:,.0f}/s by {workload.batch}", file=sys.stderr)
    scenario = Scenario(
        name=name.replace(" ", "-"), workload=replace(workload, seed=1 + turn), faults=faults,
        warm_up=_WARM_UP, users=Users(subscribers=subscribers),
    )  # fmt: skip
    return asyncio.run(run_scenario(scenario, stack=stack, root=root)).path


def _table(checks: Sequence[Check]) -> str:
    lines = [_TABLE]
    for check in checks:
        measured, predicted = (_text(check.unit, value) for value in check.means)
        verdict = "" if check.within else "**too far**"
        lines.append(
            f"| {check.setup} | {check.figure} | {measured} | {predicted} | {check.error:+.0%} | "
            f"{check.allowed:.0%} | {verdict} |"
        )
    good = sum(check.within for check in checks)
    return "\n".join([*lines, "", f"{good} of {len(checks)} are predicted as well as they must be."])


def _text(unit: str, value: float) -> str:
    return f"{value * 1e3:,.2f} ms" if unit == "s" else f"{value:,.0f}" + ("/s" if unit == "events/s" else "")
