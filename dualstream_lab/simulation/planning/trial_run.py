"""A moment of a deployment, event by event: how long events take."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from dualstream_lab.simulation.analytic.capacity import listening
from dualstream_lab.simulation.engine.gateway import hand_out
from dualstream_lab.simulation.engine.outcome import Outcome
from dualstream_lab.simulation.engine.simulate import simulate
from dualstream_lab.simulation.kernels import Floats, Integers
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.planning.requirements import Requirements
from dualstream_lab.workload import Workload

_EVENTS: Final = 200_000  # about
_LEAST, _LONGEST = 0.25, 600.0  # s
_SETTLED: Final = 0.2  # the share of it after which it counts
_GATEWAYS: Final = 64  # so many are looked at
_ENOUGH: Final = 1000  # events that each of them has at least, so that there is something to see


class Rehearsal(NamedTuple):
    """How long events take, s; those that have no end are infinite."""

    publish: Floats  # from the intended time to the ack
    live: Floats  # from the intended time to the client
    durable: Floats  # from the intended time to the consumer
    redis: Floats  # from the ack to the gateway
    gateway: Floats  # from the gateway to the client

    def quantile(self, name: str, share: float) -> float:
        """A quantile of one of the latencies, in s."""
        values = getattr(self, name)
        return float(np.quantile(values, share, method="higher")) if len(values) else float("nan")


def rehearse(needs: Requirements, deployment: Deployment, costs: Costs) -> Rehearsal:
    """Simulate all publishers, brokers and shards for a moment (200,000 events or a quarter of a second,
    whatever is more), and some of the gateways. Calls come by chance (Poisson). The same arguments give the
    same result.
    """
    calls = max(1, round(max(_EVENTS / needs.rate, _LEAST) * needs.rate / needs.batch))
    workload = Workload(
        rate=needs.rate, duration=float(np.clip(calls * needs.batch / needs.rate, 0.1, _LONGEST)),
        batch=needs.batch, sources=min(needs.sources, 1_000_000), zipf=0, payload_bytes=needs.payload_bytes,
        plan="poisson", seed=1,
    )  # fmt: skip
    outcome = simulate(workload, *for_simulation(deployment, costs))
    assert isinstance(outcome, Outcome)  # noqa: S101  (no sample was asked for)
    counts = outcome.intended >= _SETTLED * workload.duration
    intended, acked = outcome.intended[counts], outcome.acked[counts]
    which, read = _through_gateways(outcome.delivered, deployment, costs)
    which, read = which[counts[which]], read[counts[which]]
    ways = (
        (intended, acked), (outcome.intended[which], read), (intended, outcome.consumed[counts]),
        (acked, outcome.delivered[counts]), (outcome.delivered[which], read),
    )  # fmt: skip
    return Rehearsal(*(np.where(np.isnan(end - begin), np.inf, end - begin) for begin, end in ways))


def for_simulation(deployment: Deployment, costs: Costs) -> tuple[Deployment, Costs]:
    """What to give :func:`~dualstream_lab.simulation.simulate`, whose gateways receive everything: no
    gateways, and costs by which each notification is delivered as often as gateways have clients for it.
    """
    if not deployment.gateways:
        return deployment, costs
    delivered = listening(deployment.gateways, deployment.clients)
    return (
        replace(deployment, gateways=0, clients=0, subscribers=1, catch_up=True),
        replace(costs, deliver=min(60.0, costs.deliver * delivered)),
    )


def _through_gateways(delivered: Floats, deployment: Deployment, costs: Costs) -> tuple[Integers, Floats]:
    """(which events they receive: by chance, those that their clients want; when clients have them)."""
    listeners = listening(deployment.gateways, deployment.clients)
    share = max(listeners / deployment.gateways, min(1.0, _ENOUGH / len(delivered)))
    service = float(costs.receive + costs.write * deployment.clients / listeners)
    rng = np.random.default_rng(1)
    order = np.argsort(delivered, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(delivered))]
    tick, limit = float(deployment.tick), float(deployment.output_buffer)
    wholes, reads = [], []
    for _ in range(min(_GATEWAYS, deployment.gateways, max(1, round(1 / share)))):
        wholes.append(order[rng.random(len(order)) < share])
        reads.append(hand_out(delivered[wholes[-1]], service, tick, limit, np.zeros(1))[0])
    return np.concatenate(wholes), np.concatenate(reads)
