"""What the model says, as pandas frames: for notebooks, and for ``analysis.plot_bill`` and its kind."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from dualstream_lab.simulation.fitting.validate import Check
from dualstream_lab.simulation.planning.plan import Plan


def bill_table(plans: Iterable[Plan]) -> pd.DataFrame:
    """A row a plan and part: ``rate`` (events/s), ``subscribers``, ``part``, ``value``, ``low`` and ``high``
    (all costs at the ends of their intervals; infinite where no number carries the rate), ``extrapolated``.
    """
    return pd.DataFrame(
        [
            (plan.needs.rate, plan.needs.subscribers, part, *figure)
            for plan in plans
            for part, figure in plan.bill.items()
        ],
        columns=["rate", "subscribers", "part", "value", "low", "high", "extrapolated"],
    )


def check_table(checks: Iterable[Check]) -> pd.DataFrame:
    """A row a check: ``setup``, ``figure``, ``unit`` (s, events, events/s), ``measured`` and ``predicted``
    (geometric means of repeats), ``error`` and ``allowed`` (shares of the measured), ``within``.
    """
    columns = ["setup", "figure", "unit", "measured", "predicted", "error", "allowed", "within"]
    rows = [(c.setup, c.figure, c.unit, *c.means, c.error, c.allowed, c.within) for c in checks]
    return pd.DataFrame(rows, columns=columns)
