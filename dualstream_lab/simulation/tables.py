"""What the model says, as pandas frames: for notebooks, and for ``analysis.plot_bill`` and its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dualstream_lab.simulation.fitting.validate import Check
    from dualstream_lab.simulation.planning.plan import Plan

__all__ = ["bill_table", "check_table"]


def bill_table(plans: Iterable[Plan]) -> pd.DataFrame:
    """A row a plan and part: ``rate`` (events/s), ``subscribers``, ``part``, ``value``, ``low`` and ``high``
    (all costs at the ends of their intervals; infinite where no number carries the rate), ``extrapolated``.
    """
    return pd.DataFrame(
        [
            {"rate": plan.needs.rate, "subscribers": plan.needs.subscribers, "part": part, **figure._asdict()}
            for plan in plans
            for part, figure in plan.bill.items()
        ],
        columns=["rate", "subscribers", "part", "value", "low", "high", "extrapolated"],
    )


def check_table(checks: Iterable[Check]) -> pd.DataFrame:
    """A row a check: ``setup``, ``figure``, ``unit`` (s, events, events/s), ``measured`` and ``predicted``
    (geometric means of repeats), ``error`` and ``allowed`` (shares of the measured), ``within``.
    """
    return pd.DataFrame(
        [
            {
                "setup": check.setup, "figure": check.figure, "unit": check.unit,
                "measured": check.means[0], "predicted": check.means[1], "error": check.error,
                "allowed": check.allowed, "within": check.within,
            }
            for check in checks
        ],
        columns=["setup", "figure", "unit", "measured", "predicted", "error", "allowed", "within"],
    )  # fmt: skip
