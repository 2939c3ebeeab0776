"""A server with one queue, first come, first served."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import simpy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from dualstream_lab.simulation.outages import Spans
    from dualstream_lab.simulation.random_draws import Noise

__all__ = ["Job", "Station"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
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
            factor = self._noise.factor(self._number, self._begun)
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
