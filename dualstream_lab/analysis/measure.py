"""The measures of a comparison: their values, and how sure a single run can be of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dualstream_lab.analysis.paired import resamples, standard_error
from dualstream_lab.analysis.tally import Tally, quantiles
from dualstream_lab.recording.rows import Floats, Int64

_RESAMPLES: Final = 400
_FEWEST: Final = 5  # blocks of a run whose seconds are resampled


@dataclass(frozen=True, slots=True)
class Measure:
    """What is compared of runs: a quantile of latencies, or a ratio of two counts."""

    unit: str  # ms, events/s or share
    of: tuple[str, ...]  # the latencies of a tally, or two of its counts that are divided
    share: float = 0.0  # how many of the latencies stay within the value; 0 for counts

    @property
    def ratio(self) -> bool:
        """Whether arms are compared by their ratio; shares are by their difference."""
        return self.unit != "share"

    @property
    def more_is_worse(self) -> bool:
        """Whether more of it is worse, as it is of all measures but rates."""
        return self.unit != "events/s"

    def has(self, run: Tally) -> bool:
        """Whether the run was recorded so that it is known."""
        return self.of[0] in (run.latencies if self.share else run.counts)

    def value(self, run: Tally) -> float:
        """The measure of the whole run."""
        return float(self._values(run, np.ones((1, 1)), np.zeros(1, np.int64))[0])

    def scaled(self, values: Sequence[float] | Floats) -> Floats:
        """Values on the scale on which differences count: logarithms; shares are left as they are."""
        with np.errstate(divide="ignore"):
            return np.log(values) if self.ratio else np.asarray(values, np.float64)

    def mean(self, values: Sequence[float]) -> float:
        """The mean of several runs: geometric, of shares arithmetic."""
        mean = self.scaled(values).mean()
        return float(np.exp(mean) if self.ratio else mean)

    def within(self, run: Tally) -> tuple[float, int]:
        """(the standard error of a run's scaled value, as far as its seconds tell; degrees of freedom).

        A bootstrap over blocks of seconds. Few and long ones, so that what is alike in neighbours is mostly
        within a block; that they are few is left to Student's t. Infinite for a run of less than 5 s.
        """
        seconds = len(run.lengths)
        blocks = max(_FEWEST, round(math.sqrt(seconds) / 1.5))
        if seconds < _FEWEST:
            return math.inf, 1
        first = np.arange(blocks) * seconds // blocks
        values = self.scaled(self._values(run, resamples(blocks, _RESAMPLES), first))
        if not np.isfinite(values).all():
            return math.inf, 1
        return standard_error(values, blocks), blocks - 1

    def _values(self, run: Tally, weights: Floats, first: Int64) -> Floats:
        """The measure by each row of ``weights``, of the blocks of slices that begin at ``first``."""
        if self.share:
            return quantiles(np.add.reduceat(run.latencies[self.of[0]], first), self.share, weights)
        counts = {**run.counts, "seconds": run.lengths}
        part, whole = (weights @ np.add.reduceat(counts[name], first) for name in self.of)
        with np.errstate(invalid="ignore"):
            return np.asarray(part / whole)


def _latencies(name: str, of: str, *shares: float) -> dict[str, Measure]:
    return {f"{name}.p{100 * share:g}": Measure("ms", (of,), share) for share in shares}


MEASURES: Final[Mapping[str, Measure]] = {
    "publish.events_per_second": Measure("events/s", ("acked", "seconds")),
    **_latencies("publish.latency", "publish", 0.5, 0.99, 0.999),
    **_latencies("live.latency", "live", 0.5, 0.99, 0.999),
    **_latencies("durable.latency", "durable", 0.5, 0.99),
    **_latencies("durable.lag", "lag", 0.99),
    "publish.missing": Measure("share", ("failed", "intended")),
    "live.missing": Measure("share", ("undelivered", "durable")),
    "live.dropped": Measure("share", ("dropped", "durable")),
}
"""Under the names that thresholds have; ``live.dropped`` is here a share of what is durable."""
