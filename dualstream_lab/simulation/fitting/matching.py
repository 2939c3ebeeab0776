"""How often stalls come, so that the p99 of runs comes out as it was measured.

Requests show each by itself how long a stall is, but a p99 hangs on how many events are in stalls, around one
in a hundred, and that on their shape, which is only about exponential.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dualstream_lab.recording.joined import join
from dualstream_lab.simulation.engine.simulate import Outcome, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.simulation.fitting.observations import Observed
    from dualstream_lab.simulation.parameters import Costs

__all__ = ["pauses_matched"]

_SHARE: Final = 0.99
_STEPS: Final = np.linspace(-1.2, 1.2, 7)  # of the logarithm, around what is known so far
_TURNS: Final = 3
_FURTHEST: Final = 3.0


def pauses_matched(costs: Costs, seen: Sequence[Observed]) -> float:
    """What ``costs.pauses`` is to be, so that over the setups of ``seen`` the publish p99 is, as a geometric
    mean, neither too high nor too low: where a line through some that are tried has its zero, as each by
    itself is as much chance.
    """
    if not costs.pauses or not costs.pause:
        return costs.pauses
    setups: dict[Any, list[Observed]] = defaultdict(list)
    for run in seen:
        setups[run.setup].append(run)
    measured = {key: np.mean([math.log(_measured(run)) for run in runs]) for key, runs in setups.items()}

    def off(change: float) -> float:
        tried = replace(costs, pauses=costs.pauses * math.exp(change))
        found = [math.log(_predicted(runs[0], tried)) - measured[key] for key, runs in setups.items()]
        return float(np.mean(found))

    middle = 0.0
    for _ in range(_TURNS):
        tried = middle + _STEPS
        slope, value = np.polyfit(tried, [off(float(change)) for change in tried], 1)
        zero = float(-value / slope) if slope > 0 else math.inf
        if tried[0] <= zero <= tried[-1]:
            middle = zero
            break
        middle = float(np.clip(zero, max(tried[0], -_FURTHEST), min(tried[-1], _FURTHEST)))
    return costs.pauses * math.exp(middle)


def _measured(run: Observed) -> float:
    rows = join(run.directory)
    return float(np.quantile((rows.acked - rows.sent)[rows.durable], _SHARE)) / 1e9


def _predicted(run: Observed, costs: Costs) -> float:
    outcome = simulate(run.workload, run.deployment, costs)
    assert isinstance(outcome, Outcome)  # noqa: S101  (with a row an event, as each was recorded)
    return float(np.nanquantile(outcome.acked - outcome.sent, _SHARE))
