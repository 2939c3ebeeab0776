"""A stretch of a plan, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """A stretch of a plan: one entry an event in every array, all int64.

    ``seq``: the number of the event in the whole plan. ``intended``: ns after the start, never falling; the
    events of one batch have the same. ``source``, ``type``: indices into the catalogue. ``size``: bytes (of
    the value, or of its data).
    """

    seq: npt.NDArray[np.int64]
    intended: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    type: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.seq)
