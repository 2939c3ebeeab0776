"""Parts that share a machine's cores: what they cost when all of these are used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dualstream_lab.simulation.analytic.capacity import capacity, traffic_of

if TYPE_CHECKING:
    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.workload import Workload

__all__ = ["on_shared_cores"]

_WORK: Final = (
    "call", "event", "turn", "request", "batch", "record", "record_byte", "exchange", "publish", "deliver",
    "poll", "consume", "receive", "write",
)  # fmt: skip
"""Costs that keep a core busy; the others are ways and waits."""


def on_shared_cores(costs: Costs, workload: Workload, deployment: Deployment) -> Costs:
    """What each step costs where all parts together want more than ``deployment.cores``: the same shares of
    them, so that the part that saturates first does so at the rate at which all cores are used. Below that
    rate, and where each part has a core of its own (0), nothing is changed.
    """
    if not deployment.cores:
        return costs
    stations = capacity(traffic_of(workload), deployment, costs).values()
    first = min(station.ceiling for station in stations)
    each = sum((station.fixed + station.most * station.each) / station.most for station in stations)
    together = deployment.cores / each
    if together >= min(first, workload.rate):
        return costs
    return replace(costs, **{name: getattr(costs, name) * first / together for name in _WORK})
