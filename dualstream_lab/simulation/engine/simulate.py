"""A simulated run: every event's way through the pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.spec import FaultSpec
from dualstream_lab.simulation.analytic.capacity import at_work, on_shared_cores
from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.engine import stations
from dualstream_lab.simulation.engine.long_run import repeat, tile_length
from dualstream_lab.simulation.engine.long_run_outage import LEAD
from dualstream_lab.simulation.engine.outcome import Bins, Case, Outcome, binned
from dualstream_lab.simulation.outages import outages
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.random_draws import draw
from dualstream_lab.workload import Workload

_AFTER: Final = 60  # s after the plan's end, and the bounds on waiting: until then levels are kept
_MOST: Final = 10_000_000  # events of a run with a row each
_QUEUES: Final = 10_000_000  # of partitions at publishers


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
    setup = setup_of(case)
    if workload.expected > _MOST:
        length = tile_length(case)
        short = replace(case, workload=replace(workload, duration=LEAD + length), faults=())
        return repeat(case, setup, _every_event(short, setup_of(short)), length)
    outcome = _every_event(case, setup)
    return outcome if sample is None else binned(outcome, sample)


def _every_event(case: Case, setup: stations.Setup) -> Outcome:
    workload, deployment, draws = case.workload, case.deployment, setup.draws
    slots = list(workload.slots(chunk=1 << 20))
    if not slots:
        raise ConfigError("rate: by chance the plan has no event: choose a higher one, or a longer duration")
    source, size = (np.concatenate([getattr(one, n) for one in slots]) for n in ("source", "size"))
    intended = np.concatenate([one.intended for one in slots]) / 1e9
    del slots
    calls = intended[:: workload.batch].copy()
    state, brokers = stations.publish(setup, calls, workload.batch, draws.partition[source], size)
    consumed, members = stations.consume(setup, state)
    count = len(source)
    live, recovered, dropped = (np.full(count, np.nan) for _ in range(3))
    reason = np.full(count, -1, np.int8)
    shard, utilization, resyncs = draws.shard[source], [], 0
    for number in range(deployment.shards):
        rows = np.flatnonzero(~np.isnan(state.acked) & (shard == number))
        publisher = rows // workload.batch % deployment.publishers
        order, bounds = stations.by_publisher(publisher, state.acked[rows], deployment.publishers)
        rows = rows[order]
        who, worked = stations.notify_shard(setup, number, state.acked[rows], bounds)
        live[rows], recovered[rows] = who.events.delivered, who.events.recovered
        dropped[rows], reason[rows] = who.events.dropped, who.events.reason
        resyncs += int(who.notifiers["resyncs"].sum())
        utilization.append(worked)
    live, recovered, gateway = stations.receive(setup, state.acked, live, recovered)
    repaired = np.isnan(live) & ~np.isnan(recovered)
    settled = ("entered", "settled", "acked", "outcome", "size", "partition", "offset", "logged")
    return Outcome(
        seq=np.arange(count), intended=intended, sent=np.repeat(state.calls["sent"], workload.batch),
        source=source, **{name: getattr(state, name) for name in settled}, consumed=consumed,
        delivered=np.where(repaired, recovered, live), recovered=repaired, dropped=dropped, reason=reason,
        resyncs=resyncs,
        away=tuple((s, b, e) for s in range(deployment.shards) for b, e in draws.away.tolist()),
        utilization={
            "publisher": state.utilization, "broker": brokers.utilization, "shard": np.array(utilization),
            "consumer": members,
            "gateway": gateway,
        },
        case=case,
    )  # fmt: skip


def setup_of(case: Case) -> stations.Setup:
    """Decide all that is known before the first event. Raises ConfigError as :func:`simulate`."""
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
        outages=broken, seed=case.seed, utilization=at_work(workload, deployment, costs),
    )  # fmt: skip
    seconds = math.ceil(workload.duration + deployment.delivery_timeout + deployment.buffer_timeout) + _AFTER
    return stations.Setup(deployment, costs, broken, draws, seconds)
