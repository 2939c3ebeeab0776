"""What the parts of the reference share: a clock, the circumstances, and what is noted of each event."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import simpy

    from dualstream_lab.simulation.outages import Outages, Spans
    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.simulation.random_draws import Draws
    from dualstream_lab.simulation.reference.station import Job

__all__ = ["Notes", "World", "delay", "within"]


class Notes:
    """An array for each column of Outcome; ``live``, ``repaired``: heard in one way or the other."""

    def __init__(
        self,
        intended: npt.NDArray[np.float64],
        source: npt.NDArray[np.int64],
        size: npt.NDArray[np.int64],
        draws: Draws,
    ) -> None:
        count = len(intended)
        self.intended, self.source, self.size = intended, source, size
        self.partition, self.shard = draws.partition[source], draws.shard[source]
        self.outcome = np.zeros(count, np.int8)
        self.reason = np.full(count, -1, np.int8)
        self.offset = np.full(count, -1)
        self.sent, self.entered, self.settled, self.acked, self.logged = np.full((5, count), np.nan)
        self.consumed, self.live, self.repaired, self.dropped = np.full((4, count), np.nan)
        self.resyncs = 0


class World:
    """A run's circumstances."""

    def __init__(
        self,
        env: simpy.Environment,
        deployment: Deployment,
        costs: Costs,
        outages: Outages,
        draws: Draws,
        notes: Notes,
    ) -> None:
        self.env = env
        self.deployment = deployment
        self.costs = costs
        self.outages = outages
        self.draws = draws
        self.notes = notes

    def lose(self, down: Spans, lost: Callable[[], list[Job]]) -> None:
        """Whenever one of the spans begins, all these jobs are lost."""
        for begin, _ in down.tolist():
            self.after(begin, lambda: _lose(lost()))

    def repair(self, seq: int, now: float) -> None:
        """Subscribers ask for the event now, unless they have it sooner."""
        if self.deployment.repairs:
            self.notes.repaired[seq] = np.fmin(self.notes.repaired[seq], now + self.costs.repair)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do that then."""

        def ring(_: simpy.Event) -> None:
            act()

        self.env.timeout(seconds).callbacks.append(ring)


def _lose(jobs: list[Job]) -> None:
    for job in sorted(jobs, key=attrgetter("owner")):
        job.lost()


def within(spans: Spans, now: float) -> bool:
    """Whether one of the spans is now."""
    return any(begin <= now < end for begin, end in spans)


def delay(slow: Spans, now: float) -> float:
    """By how much one way is longer now."""
    return float(sum(extra for begin, end, extra in slow if begin <= now < end))
