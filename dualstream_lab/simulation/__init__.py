"""The same pipeline as a model: for sizes that no test machine reaches.

::

    from dualstream_lab.simulation import Deployment, Workload, record, simulate

    outcome = simulate(Workload(rate=20_000, duration=60), Deployment(partitions=12, brokers=3))
    directory = record(outcome, Path("runs"))    # as a real run: every plot and report works on it

What a deployment must be, ``plan`` says; what its steps cost, ``fit`` tells of recorded runs, and
``validate`` compares with others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.lazy import attribute

if TYPE_CHECKING:
    from dualstream_lab.simulation.calibration import COSTS
    from dualstream_lab.simulation.engine.outcome import Bins, Case, Outcome
    from dualstream_lab.simulation.engine.simulate import simulate
    from dualstream_lab.simulation.fitting.fit import fit
    from dualstream_lab.simulation.fitting.validate import validate
    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.simulation.planning.plan import plan
    from dualstream_lab.simulation.planning.requirements import Requirements
    from dualstream_lab.simulation.planning.trial_run import for_simulation
    from dualstream_lab.simulation.run_directory import record
    from dualstream_lab.simulation.tables import bill_table, check_table
    from dualstream_lab.workload import Workload

__all__ = [
    "COSTS", "Bins", "Case", "Costs", "Deployment", "Outcome", "Requirements", "Workload", "bill_table",
    "check_table", "fit", "for_simulation", "plan", "record", "simulate", "validate",
]  # fmt: skip

_HOMES = {
    "COSTS": "calibration", "Bins": "engine.outcome", "Case": "engine.outcome", "Costs": "parameters",
    "Deployment": "parameters", "Outcome": "engine.outcome", "Requirements": "planning.requirements",
    "bill_table": "tables", "check_table": "tables", "fit": "fitting.fit",
    "for_simulation": "planning.trial_run", "plan": "planning.plan", "record": "run_directory",
    "simulate": "engine.simulate", "validate": "fitting.validate",
}  # fmt: skip


def __getattr__(name: str) -> object:
    home = f"{__name__}.{_HOMES[name]}" if name in _HOMES else None
    if name == "Workload":
        home = "dualstream_lab.workload"
    return attribute(__name__, name, home, extra="simulation")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
