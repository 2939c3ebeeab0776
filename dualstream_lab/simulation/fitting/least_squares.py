"""Least squares for costs: none below zero, a weak belief in the defaults, and how much the data say. Pure.

A system has one row an observation: y = rows @ costs, give or take ``error``. Costs that the rows do not tell
apart stay as near to the defaults as their sum allows. What a cost owes to the data and not to the belief is
its *resolution* (Backus and Gilbert): 1 where the data alone decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dualstream_lab.simulation.kernels import Floats, Integers

_BELIEF: Final = 3.0  # a cost is believed to be its default, give or take three times as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """The normal equations of each block."""

    left: Floats  # (blocks, costs, costs)
    right: Floats  # (blocks, costs)
    scale: Floats  # (costs,): the units of both, which are the default costs

    def solve(self, weights: Floats | None = None, belief: Floats | float = 1.0) -> Floats:
        """The costs, when each block counts ``weights`` times (once, if left out), and they are believed to
        be ``belief`` times the defaults.
        """
        used = np.ones(len(self.left)) if weights is None else weights
        left = np.tensordot(used, self.left, 1)
        right = used @ self.right + belief / _BELIEF**2
        left[np.diag_indices_from(left)] += 1 / _BELIEF**2
        return np.asarray(_not_below_zero(left, right) * self.scale)

    def extremes(self, place: int, times: float) -> tuple[float, float]:
        """The lowest and the highest that the cost at ``place`` can be as far as the data say, when all may
        be ``times`` their defaults, either way.
        """
        low, high = np.full(len(self.scale), times), np.full(len(self.scale), 1 / times)
        low[place], high[place] = 1 / times, times
        return float(self.solve(belief=low)[place]), float(self.solve(belief=high)[place])

    def resolution(self) -> Floats:
        """The share of each cost that the data decide, 0 to 1."""
        left = self.left.sum(axis=0)
        believed = left + np.eye(len(left)) / _BELIEF**2
        return np.asarray(np.diag(np.linalg.solve(believed, left)))


def normal(rows: Floats, y: Floats, *, error: Floats, block: Integers, scale: Floats, blocks: int) -> Normal:
    """Sum up a system. ``rows``: (n, costs); ``y``, ``error``: (n,), s; ``block``: what is resampled
    together, from 0 to ``blocks`` - 1; ``scale``: the defaults, > 0.
    """
    rows, y = rows * scale / error[:, None], y / error
    left = np.zeros((blocks, len(scale), len(scale)))
    right = np.zeros((blocks, len(scale)))
    order = np.argsort(block, kind="stable")
    bounds = np.searchsorted(block[order], np.arange(blocks + 1))
    for number in range(blocks):
        members = order[bounds[number] : bounds[number + 1]]
        left[number] = rows[members].T @ rows[members]
        right[number] = rows[members].T @ y[members]
    return Normal(left=left, right=right, scale=scale)


def _not_below_zero(left: Floats, right: Floats) -> Floats:
    """Solve left @ x = right for x >= 0: whatever comes out below is set to zero, the worst first, and may
    come back where that would help.
    """
    free = np.ones(len(right), np.bool_)
    x = np.zeros(len(right))
    for _ in range(3 * len(right)):
        x[:] = 0
        x[free] = np.linalg.solve(left[np.ix_(free, free)], right[free])
        if (x >= 0).all():
            gain = np.where(free, 0.0, right - left @ x)
            if gain.max(initial=0) <= 1e-9 * np.abs(right).max():
                return x
            free[gain.argmax()] = True
        else:
            free[x.argmin()] = False
    return np.maximum(x, 0)
