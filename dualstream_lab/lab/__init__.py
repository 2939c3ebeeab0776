"""The composition root: settings, workload and parts put together into something to run.

In a notebook::

    from dualstream_lab import lab

    run = await lab.run(rate=10_000, duration=20)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualstream_lab.lab.fan_out_lab import coalescing, fan_out
    from dualstream_lab.lab.notebook import run
    from dualstream_lab.lab.result import Run
    from dualstream_lab.lab.scenario import Fault, Scenario, Users
    from dualstream_lab.stack import LocalStack

__all__ = ["Fault", "LocalStack", "Run", "Scenario", "Users", "coalescing", "fan_out", "run"]

_WHERE = {
    "Fault": "dualstream_lab.lab.scenario",
    "LocalStack": "dualstream_lab.stack",
    "Run": "dualstream_lab.lab.result",
    "Scenario": "dualstream_lab.lab.scenario",
    "Users": "dualstream_lab.lab.scenario",
    "coalescing": "dualstream_lab.lab.fan_out_lab",
    "fan_out": "dualstream_lab.lab.fan_out_lab",
    "run": "dualstream_lab.lab.notebook",
}


def __getattr__(name: str) -> Any:
    # Commands that need one module of this room must not need the extras of all of them.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
