"""All that chance decides, drawn beforehand: two models that are handed the same draws must agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dualstream_lab.recording.rows import mixed
from dualstream_lab.simulation.kernels import Floats, Integers
from dualstream_lab.simulation.outages import NEVER, Outages, Spans, united
from dualstream_lab.simulation.parameters import Costs, Deployment

_TABLE = 1 << 16
_PARTITION, _SHARD, _REQUEST, _EXCHANGE, _PAUSES, _RETURN = range(6)  # what a stream of numbers is for
_AFTER = 300.0  # s after the plan's end; by then nothing pauses any more
_MEAN_RETURN = 0.5  # s


class Noise(NamedTuple):
    """Factors of the service times of stations, of mean 1: the k-th that station s begins (k from 0) takes
    ``table[(starts[s] + k) % len(table)]`` times as long as it would.
    """

    table: Floats
    starts: Integers  # by station


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What a seed decides for a deployment."""

    partition: Integers  # by the source's rank
    shard: Integers  # by the source's rank
    requests: Noise  # of brokers
    exchanges: Noise  # of shards
    stops: tuple[Spans, ...]  # by broker, when it stands still: its pauses, and where it is mute
    away: Spans  # when no subscriber is connected to Redis: an outage, and a while after its end


def draw(
    *, sources: int, duration: float, deployment: Deployment, costs: Costs, outages: Outages, seed: int,
    utilization: float = 1.0,
) -> Draws:  # fmt: skip
    """The draws of a run of ``sources`` sources and ``duration`` s, whose publishers work on events for a
    share ``utilization`` of the time.

    What is drawn for a station depends on the seed and its number only, not on how many others there are.
    """
    ranks = np.arange(sources)
    return Draws(
        partition=_hashed(ranks, seed, _PARTITION, deployment.partitions),
        shard=_hashed(ranks, seed, _SHARD, deployment.shards),
        requests=_noise(costs.broker_noise, deployment.brokers, seed, _REQUEST),
        exchanges=_noise(costs.redis_noise, deployment.shards, seed, _EXCHANGE),
        stops=tuple(
            united(
                [*_pauses(costs, utilization, duration + _AFTER, seed, broker), *outages.broker(broker).mute]
            )
            for broker in range(deployment.brokers)
        ),
        away=_away(outages.redis.down, seed),
    )


def _hashed(numbers: Integers, seed: int, purpose: int, most: int) -> Integers:
    """For each number, one from 0 to ``most`` - 1, by the finalizer of SplitMix64."""
    salt = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)
    salted = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salt
    return np.asarray(mixed(salted) % np.uint64(most), dtype=np.int64)


def _noise(variation: float, stations: int, seed: int, purpose: int) -> Noise:
    """Log-normal, with this coefficient of variation; one table for all, which each begins elsewhere."""
    rng = np.random.default_rng([seed, purpose])
    table = np.exp(np.sqrt(np.log1p(variation**2)) * rng.standard_normal(_TABLE))
    starts = _hashed(np.arange(stations), seed, purpose, _TABLE)
    return Noise(table=table / table.mean(), starts=starts)


def _pauses(costs: Costs, utilization: float, until: float, seed: int, broker: int) -> Spans:
    """Poisson begins and exponential lengths; they may overlap."""
    often = costs.pauses * utilization
    if not often or not costs.pause:
        return NEVER
    rng = np.random.default_rng([seed, _PAUSES, broker])
    begins = np.empty(0)
    while not len(begins) or begins[-1] < until:
        last = begins[-1] if len(begins) else 0.0
        begins = np.concatenate([begins, last + np.cumsum(rng.exponential(1 / often, 1024))])
    begins = begins[begins < until]
    lengths = np.random.default_rng([seed, _PAUSES, broker, 1]).exponential(costs.pause, len(begins))
    return np.column_stack([begins, begins + lengths])


def _away(down: Spans, seed: int) -> Spans:
    """Each outage, and up to a second after it: all subscribers come back at the same moment."""
    delays = np.random.default_rng([seed, _RETURN]).uniform(0, 2 * _MEAN_RETURN, len(down))
    return united(down + np.column_stack([np.zeros(len(down)), delays]))
