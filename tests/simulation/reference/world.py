"""What the parts of the reference share: a clock, the setup, what is noted of each event, and servers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import simpy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from dualstream_lab.simulation.kernels import Floats, Integers
    from dualstream_lab.simulation.outages import Outages, Spans
    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.simulation.random_draws import Draws, Noise


class Notes:
    """An array for each column of Outcome; ``live``, ``repaired``: delivered in one way or the other."""

    def __init__(self, intended: Floats, source: Integers, size: Integers, draws: Draws) -> None:
        count = len(intended)
        self.intended, self.source, self.size = intended, source, size
        self.partition, self.shard = draws.partition[source], draws.shard[source]
        self.outcome = np.zeros(count, np.int8)
        self.reason = np.full(count, -1, np.int8)
        self.offset = np.full(count, -1)
        self.sent, self.entered, self.settled, self.acked, self.logged = np.full((5, count), np.nan)
        self.consumed, self.live, self.repaired, self.dropped = np.full((4, count), np.nan)
        self.resyncs = 0


@dataclass(frozen=True)
class World:
    """A run's circumstances."""

    env: simpy.Environment
    deployment: Deployment
    costs: Costs
    outages: Outages
    draws: Draws
    notes: Notes

    def lose(self, down: Spans, lost: Callable[[], list[Job]]) -> None:
        """Whenever one of the spans begins, all these jobs are lost."""

        def lose() -> None:
            for job in sorted(lost(), key=attrgetter("owner")):
                job.lost()

        for begin, _ in down.tolist():
            self.after(begin, lose)

    def repair(self, seq: int, now: float) -> None:
        """Subscribers ask for the event now, unless they have it sooner."""
        if self.deployment.repairs:
            self.notes.repaired[seq] = np.fmin(self.notes.repaired[seq], now + self.costs.repair)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do that then."""

        def ring(_: simpy.Event) -> None:
            act()

        self.env.timeout(seconds).callbacks.append(ring)


def within(spans: Spans, now: float) -> bool:
    """Whether one of the spans is now."""
    return any(begin <= now < end for begin, end in spans)


def delay(slow: Spans, now: float) -> float:
    """By how much one way is longer now."""
    return float(sum(extra for begin, end, extra in slow if begin <= now < end))


class Job(NamedTuple):
    """``steps``: seconds of work, and what to do after each. ``lost``: what to do if it is; where several
    are, that of the lowest ``owner`` comes first.
    """

    owner: int
    steps: Sequence[tuple[float, Callable[[], object]]]
    lost: Callable[[], object]


class Station:
    """The work of the k-th job that it begins is multiplied by the k-th factor of its noise. Within ``stops``
    it stands still.
    """

    def __init__(self, env: simpy.Environment, *, number: int, noise: Noise, stops: Spans) -> None:
        self._env = env
        self._number = number
        self._noise = noise
        self._stops = deque(stops.tolist())
        self._jobs: deque[Job] = deque()
        self._begun = 0
        self._wake = env.event()
        self._worker = env.process(self._serve())

    def put(self, job: Job) -> None:
        """It arrives."""
        self._jobs.append(job)
        if not self._wake.triggered:
            self._wake.succeed()

    def lose(self) -> list[Job]:
        """All that it has; what is not done of it never will be."""
        lost = list(self._jobs)
        self._jobs.clear()
        if lost and self._wake.processed:
            self._worker.interrupt()
        return lost

    def _serve(self) -> Generator[simpy.Event, Any, None]:
        while True:
            while not self._jobs:
                self._wake = self._env.event()
                yield self._wake
            table, starts = self._noise
            factor = float(table[(starts[self._number] + self._begun) % len(table)])
            self._begun += 1
            try:
                for seconds, done in self._jobs[0].steps:
                    yield from self._work(seconds * factor)
                    done()
                self._jobs.popleft()
            except simpy.Interrupt:
                continue  # it was lost

    def _work(self, seconds: float) -> Generator[simpy.Event, Any, None]:
        """In a stop time goes on, and work does not."""
        while True:
            now = self._env.now
            while self._stops and self._stops[0][1] <= now:
                self._stops.popleft()
            begin, end = self._stops[0] if self._stops else (float("inf"), float("inf"))
            if begin <= now:
                yield self._env.timeout(end - now)
            elif now + seconds <= begin:
                yield self._env.timeout(seconds)
                return
            else:
                seconds -= begin - now
                yield self._env.timeout(begin - now)
