"""A simulated run: every event's way through the pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.analytic.capacity import at_work
from dualstream_lab.simulation.analytic.cores import on_shared_cores
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.engine.aggregates import Bins, binned
from dualstream_lab.simulation.engine.long_run import repeat, tile_length
from dualstream_lab.simulation.engine.long_run_outage import LEAD
from dualstream_lab.simulation.engine.stations import (
    Circumstances,
    consume,
    fan_out,
    notify_shard,
    publish,
    repaired,
)
from dualstream_lab.simulation.outages import outages
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.random_draws import draw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from dualstream_lab.faults.spec import FaultSpec
    from dualstream_lab.workload import Workload

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["Case", "Outcome", "circumstances", "simulate"]

_AFTER: Final = 60  # s after the plan's end, and the bounds on waiting: until then levels are kept
_MOST: Final = 10_000_000  # events of a run with a row each
_QUEUES: Final = 10_000_000  # of partitions at publishers


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was simulated."""

    workload: Workload
    deployment: Deployment
    costs: Costs
    faults: tuple[FaultSpec, ...] = ()
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One entry an event, by ascending ``seq``. Times: float64, seconds after the plan's zero, NaN for never.

    ==============  ============================================================================
    ``seq``         int64: its number in the plan
    ``intended``    when the plan wanted it sent
    ``sent``        when its publisher began to serve its call
    ``entered``     when it came into its publisher's buffer (never: no room)
    ``settled``     when its outcome was known: its ack, its deadline, or the end of its wait for room
    ``acked``       its ack; never, unless it is durable
    ``outcome``     int8: a ``recording.Outcome``, never PENDING
    ``source``      int64: the rank of its source
    ``size``        int64: bytes
    ``partition``   int64
    ``offset``      int64: its place in the log of its partition, from 0; -1 where it is not in it
    ``logged``      when it came into the log
    ``consumed``    when the consumer had it
    ``heard``       when subscribers had it: live, else by repair
    ``late``        bool: that was by repair, as its notification was given up or they were not connected
    ``dropped``     when its notification was given up
    ``reason``      int8: why, its place in ``recording.DROPS``; -1 where it was not
    ==============  ============================================================================

    A durable event with neither ``heard`` nor ``dropped`` was published to nobody, or to those who were away
    and do not catch up. ``resyncs``: announcements
    of skipped sources. ``away``: (shard, begin, end) of stretches in which its subscribers were not
    connected. ``busy``: by station (``publisher``, ``broker``, ``shard``, ``consumer``, ``gateway``), the
    share of each second that each of them was at work: float64, (stations, seconds).
    ``case``: what it is of.
    """

    seq: Integers
    intended: Floats
    sent: Floats
    entered: Floats
    settled: Floats
    acked: Floats
    outcome: npt.NDArray[np.int8]
    source: Integers
    size: Integers
    partition: Integers
    offset: Integers
    logged: Floats
    consumed: Floats
    heard: Floats
    late: npt.NDArray[np.bool_]
    dropped: Floats
    reason: npt.NDArray[np.int8]
    resyncs: int = 0
    away: tuple[tuple[int, float, float], ...] = ()
    busy: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    case: Case | None = None

    def __len__(self) -> int:
        return len(self.seq)


def simulate(
    workload: Workload,
    deployment: Deployment | None = None,
    costs: Costs | None = None,
    faults: Sequence[FaultSpec] = (),
    seed: int = 1,
    sample: int | None = None,
) -> Outcome | Bins:
    """A run: every event of it; or, with a ``sample`` (one row in so many) or where it has more than ten
    million, counts and histograms by second, and rows of a sample (of about 50,000 then, whatever ``sample``
    is). The same arguments give the same result. ``costs``: those that were measured and are shipped, if left
    out.

    The long ones have one rate, and faults of Redis only; what is taken for alike then is said in
    :mod:`~dualstream_lab.simulation.engine.long_run`. Raises ConfigError for a closed plan, whose times
    depend on answers, for faults that are not modelled, and for long runs that are not of this kind, or too
    much for the deployment.
    """
    case = Case(
        workload=workload, deployment=deployment or Deployment(), costs=costs or Calibration.shipped().costs,
        faults=tuple(faults), seed=seed,
    )  # fmt: skip
    if sample is not None and sample < 1:
        raise ConfigError(f"sample: must be a whole number from 1, one row in so many (is {sample!r})")
    where = circumstances(case)
    if workload.expected > _MOST:
        length = tile_length(case)
        short = replace(case, workload=replace(workload, duration=LEAD + length), faults=())
        return repeat(case, where, _every_event(short, circumstances(short)), length)
    outcome = _every_event(case, where)
    return outcome if sample is None else binned(outcome, sample)


def _every_event(case: Case, where: Circumstances) -> Outcome:
    workload, deployment = case.workload, case.deployment
    slots = list(workload.slots(chunk=1 << 20))
    if not slots:
        raise ConfigError("rate: by chance the plan has no event: choose a higher one, or a longer duration")
    source, size = (np.concatenate([getattr(one, n) for one in slots]) for n in ("source", "size"))
    intended = np.concatenate([one.intended for one in slots]) / 1e9
    del slots
    partition = where.draws.partition[source]
    published = publish(where, intended[:: workload.batch].copy(), workload.batch, partition, size)
    ways = published.ways
    consumed, members = consume(where, ways.logged, partition, ways.offset)
    count = len(source)
    live, late, dropped = (np.full(count, np.nan) for _ in range(3))
    reason = np.full(count, -1, np.int8)
    shard, busy, resyncs = where.draws.shard[source], [], 0
    durable = ~np.isnan(ways.acked)
    for number in range(deployment.shards):
        its = np.flatnonzero(durable & (shard == number))
        publisher = its // workload.batch % deployment.publishers
        became = notify_shard(where, number, ways.acked[its], publisher)
        live[its], late[its] = became.heard, became.late
        dropped[its], reason[its] = became.dropped, became.reason
        resyncs += became.told.resyncs
        busy.append(became.told.busy)
    told = fan_out(where, live)
    late = repaired(where, ways.acked, told, late)
    by_repair = np.isnan(told.live) & ~np.isnan(late)
    return Outcome(
        seq=np.arange(count), intended=intended, sent=published.sent, entered=ways.entered,
        settled=ways.settled, acked=ways.acked, outcome=ways.outcome, source=source, size=size,
        partition=partition, offset=ways.offset, logged=ways.logged, consumed=consumed,
        heard=np.where(by_repair, late, told.live), late=by_repair, dropped=dropped, reason=reason,
        resyncs=resyncs,
        away=tuple((s, b, e) for s in range(deployment.shards) for b, e in where.draws.away.tolist()),
        busy={
            "publisher": published.busy[0], "broker": published.busy[1], "shard": np.array(busy),
            "consumer": members, "gateway": told.busy,
        },
        case=case,
    )  # fmt: skip


def circumstances(case: Case) -> Circumstances:
    """What is decided before the first event. Raises ConfigError as :func:`simulate`."""
    workload, deployment = case.workload, case.deployment
    costs = on_shared_cores(case.costs, workload, deployment)
    if workload.plan == "closed":
        raise ConfigError("plan: closed is not simulated: its times depend on answers; choose another one")
    if (queues := deployment.publishers * deployment.partitions) > _QUEUES:
        raise ConfigError(
            f"partitions: must be at most {_QUEUES // deployment.publishers:,} with "
            f"{deployment.publishers:,} publishers, as each has a queue for each (are {queues:,})"
        )
    broken = outages(case.faults, deployment)
    draws = draw(
        sources=workload.sources, duration=workload.duration, deployment=deployment, costs=costs,
        outages=broken, seed=case.seed, busy=at_work(workload, deployment, costs),
    )  # fmt: skip
    seconds = math.ceil(workload.duration + deployment.delivery_timeout + deployment.buffer_timeout) + _AFTER
    return Circumstances(deployment, costs, broken, draws, seconds)
