"""The same pipeline as a model: for sizes that no test machine reaches.

::

    from dualstream_lab.simulation import Deployment, record, simulate
    from dualstream_lab.workload import Workload

    outcome = simulate(Workload(rate=20_000, duration=60), Deployment(partitions=12, brokers=3))
    directory = record(outcome, Path("runs"))    # as a real run: every plot and report works on it
"""

from __future__ import annotations

from dualstream_lab.simulation.engine.outcome import Bins, Case, Outcome
from dualstream_lab.simulation.engine.simulate import simulate
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.run_directory import record

__all__ = ["Bins", "Case", "Costs", "Deployment", "Outcome", "record", "simulate"]
