"""A proof as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dualstream_lab.analysis import plot_differences
from dualstream_lab.lab.isolation.judgement import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dualstream_lab.lab.isolation.proof import Proof

__all__ = ["plot_proof"]

_PASSES: Final = {Verdict.PASSES: True, Verdict.FAILS: False, Verdict.OPEN: None}


def plot_proof(proof: Proof, ax: Axes | None = None) -> Axes:
    """A row a fault: what each pair says, the interval of all, what is allowed (ms)."""
    return plot_differences(
        [
            (one.fault, [bad - good for bad, good in one.pairs], one.p99, one.margin, _PASSES[one.verdict])
            for one in proof.judgement.faults
        ],
        ax,
    )
