"""When each event is intended, in ns after the start. The plan never slips: a late generator sends late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

_SECOND = 1_000_000_000


def arrival_times(
    kind: str, rate: float, duration: float, *, rng: np.random.Generator, chunk: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Intended times in [0, duration), in chunks of at most ``chunk``. The plan is the same for any chunk."""
    end = round(duration * _SECOND)
    times = _poisson(rate, rng, chunk) if kind == "poisson" else _constant(rate, chunk)
    for block in times:
        within = block[: np.searchsorted(block, end)]
        if len(within):
            yield within
        if len(within) < len(block):
            return


def _constant(rate: float, chunk: int) -> Iterator[npt.NDArray[np.int64]]:
    """The n-th at n/rate, each computed from n, so that rounding never adds up."""
    first = 0
    while True:
        numbers = np.arange(first, first + chunk)
        yield (numbers * (_SECOND / rate)).astype(np.int64)
        first += chunk


def _poisson(rate: float, rng: np.random.Generator, chunk: int) -> Iterator[npt.NDArray[np.int64]]:
    """Independent exponential gaps of mean 1/rate, rounded to whole ns before they are summed."""
    last = 0
    while True:
        gaps = rng.exponential(_SECOND / rate, size=chunk).astype(np.int64)
        times = last + np.cumsum(gaps)
        last = int(times[-1])
        yield times
