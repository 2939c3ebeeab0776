"""The composition root: settings, workload and parts put together into something to run.

In a notebook::

    from dualstream_lab import lab

    run = await lab.run(rate=10_000, duration=20)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualstream_lab.lazy import attribute
from dualstream_lab.stack import LocalStack

if TYPE_CHECKING:
    from dualstream_lab.faults.spec import FaultSpec as Fault
    from dualstream_lab.lab.notebook import run
    from dualstream_lab.lab.result import Run
    from dualstream_lab.lab.scaling import coalescing, fan_out
    from dualstream_lab.lab.scenario import Scenario, Users

__all__ = ["Fault", "LocalStack", "Run", "Scenario", "Users", "coalescing", "fan_out", "run"]

_HOMES = {
    "Fault": "dualstream_lab.lab.scenario",
    "LocalStack": "dualstream_lab.stack",
    "Run": "dualstream_lab.lab.result",
    "Scenario": "dualstream_lab.lab.scenario",
    "Users": "dualstream_lab.lab.scenario",
    "coalescing": "dualstream_lab.lab.scaling",
    "fan_out": "dualstream_lab.lab.scaling",
    "run": "dualstream_lab.lab.notebook",
}


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _HOMES.get(name), extra="lab")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
