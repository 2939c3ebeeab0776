"""Connections to one server, in the mean: how many events one takes at once, and how long that lasts.

A connection takes all that has come while its last batch was on its way; the server works on one batch after
the other. Kernels.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from dualstream_lab.simulation.kernels import kernel

_STEPS: Final = 60  # of bisection
_ALL: Final = 0.9999  # of the time: nothing but a longer queue comes with more connections


class Work(NamedTuple):
    """What a server has to do for a batch."""

    fixed: float  # s
    part: float  # s for each of the server's parts that the batch has something for
    parts: float  # how many parts the server has
    each: float  # s for each event
    noise: float  # the coefficient of variation of the whole


class Comings(NamedTuple):
    """How batches come to a server."""

    rtt: float  # s that a batch is elsewhere
    connections: int  # how many share the server
    spacing: float  # s from one event to the next that an idle connection would take
    even: float  # 1 where they come evenly, 0 where they come by chance (Poisson)


class Batch(NamedTuple):
    """The batches of a connection, in the mean."""

    events: float
    cycle: float  # s from one batch to the next
    away: float  # the share of that for which a batch is on its way
    utilization: float  # the share of time that the server works


@kernel
def log_other(parts: float) -> float:
    """Log of the chance that an event belongs to another one of so many."""
    return np.log1p(-1 / parts) if parts > 1 else -np.inf


@kernel
def different(events: float, parts: float) -> float:
    """How many of the server's parts so many events belong to, on average."""
    return -parts * math.expm1(events * log_other(parts)) if events else 0.0


@kernel
def idle(comings: Comings, time: float) -> float:
    """The mean wait for something, after a time in which it may have come."""
    by_chance = comings.spacing * math.exp(-time / comings.spacing)
    return (1 - comings.even) * by_chance + comings.even * max(0.0, comings.spacing - time)


@kernel
def cycle(work: float, noise: float, comings: Comings) -> tuple[float, float]:
    """(s from one batch of a connection to the next, s of that on the way), where each batch takes so much
    work; by mean value analysis.
    """
    waiting = at_work = lasts = away = 0.0
    for number in range(1, comings.connections + 1):
        response = work * (1 + waiting - at_work + at_work * (1 + noise**2) / 2)
        away = comings.rtt + response
        lasts = away + idle(comings, away)
        if lasts == 0:
            return 0.0, 0.0
        waiting, at_work = number * response / lasts, number * work / lasts
        if at_work > _ALL:
            return comings.connections * work, comings.connections * work
    return lasts, away


@kernel
def settled(rate: float, most: float, work: Work, comings: Comings) -> Batch:
    """A connection at ``rate`` events/s, with ``most`` in a batch."""
    low, high = 0.0, float(most)
    for _ in range(_STEPS):
        events = (low + high) / 2
        spent = work.fixed + work.part * different(events, work.parts) + work.each * events
        if rate * cycle(spent, work.noise, comings)[0] > events:
            low = events
        else:
            high = events
    spent = work.fixed + work.part * different(high, work.parts) + work.each * high
    lasts, away = cycle(spent, work.noise, comings)
    if lasts == 0:
        return Batch(high, 0.0, 0.0, 0.0)
    return Batch(high, lasts, away / lasts, min(1.0, comings.connections * spent / lasts))
