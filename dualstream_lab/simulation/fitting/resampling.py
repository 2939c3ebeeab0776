"""What is resampled together: seconds of runs, as neighbours within a second are alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dualstream_lab.simulation.fitting.observations import Observed

    Floats = npt.NDArray[np.float64]

__all__ = ["Blocks"]

_LEAST = 8  # blocks of a run: fewer do not show how far they differ


class Blocks:
    """Each second of each run is a block, of a short one each eighth; ``count``: how many. Runs of the same
    settings are repeats.
    """

    def __init__(self, seen: Sequence[Observed]) -> None:
        self._widths = [min(1.0, run.workload.duration / _LEAST) for run in seen]
        self._lengths = [
            math.ceil(run.workload.duration / width) for run, width in zip(seen, self._widths, strict=True)
        ]
        self._begins = np.concatenate([[0], np.cumsum(self._lengths)])
        self.count = int(self._begins[-1])
        setups: dict[object, list[int]] = {}
        for number, run in enumerate(seen):
            setups.setdefault(run.setup, []).append(number)
        self._setups = list(setups.values())

    def of(self, run: int, at: Floats) -> npt.NDArray[np.int64]:
        """The block of each of these times of a run; what is late is in the last one."""
        inside = np.clip((at / self._widths[run]).astype(np.int64), 0, self._lengths[run] - 1)
        return np.asarray(inside + self._begins[run])

    def resampled(self, rng: np.random.Generator) -> Floats:
        """How often each block counts."""
        weights = np.zeros(self.count)
        for repeats in self._setups:
            for run in rng.choice(repeats, len(repeats)).tolist():
                length = self._lengths[run]
                drawn = rng.integers(0, length, length)
                begin = self._begins[run]
                weights[begin : begin + length] += np.bincount(drawn, minlength=length)
        return weights
