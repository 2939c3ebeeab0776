"""The same pipeline as a model: for sizes that no test machine reaches."""

from __future__ import annotations

from dualstream_lab.simulation.model import Outcome, simulate
from dualstream_lab.simulation.parameters import Costs, Deployment

__all__ = ["Costs", "Deployment", "Outcome", "simulate"]
