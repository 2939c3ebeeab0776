"""The stations, one after the other, each on the whole of what the one before it gave. What comes later never
holds up what was before, except within publishing, which is one station here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualstream_lab.simulation.engine.broker import Brokers, deliver
from dualstream_lab.simulation.engine.gateway import hand_out, poll
from dualstream_lab.simulation.engine.notifier import Notifiers, notifiers, notify
from dualstream_lab.simulation.engine.publisher import Publishers, publishers_of
from dualstream_lab.simulation.engine.redis_shard import Shard
from dualstream_lab.simulation.kernels import Floats, Integers
from dualstream_lab.simulation.outages import Outages
from dualstream_lab.simulation.parameters import Costs, Deployment
from dualstream_lab.simulation.random_draws import Draws


class Setup(NamedTuple):
    """All that is decided before the first event."""

    deployment: Deployment
    costs: Costs
    outages: Outages
    draws: Draws
    seconds: int  # for how many the stations note what they do


def publish(
    setup: Setup, intended: Floats, batch: int, partition: Integers, size: Integers
) -> tuple[Publishers, Brokers]:
    """Publish calls of ``batch`` events: (publishers, brokers), as they are when everything is settled.
    ``intended``: of each call; ``partition`` and ``size``: of each event.
    """
    deployment, costs, draws = setup.deployment, setup.costs, setup.draws
    state = publishers_of(deployment, costs, intended, batch, partition, size, setup.seconds)
    brokers = Brokers(
        request=float(costs.request), batch=float(costs.batch),
        record=float(deployment.replication_factor * costs.record),
        byte=float(deployment.replication_factor * costs.record_byte),
        way=costs.kafka_rtt / 2, replica=float(costs.until_copied(deployment.replication_factor)),
        noise=draws.requests, outages=setup.outages, stops=np.concatenate(draws.stops),
        bounds=np.cumsum([0, *map(len, draws.stops)]), free=np.zeros(deployment.brokers),
        served=np.zeros(deployment.brokers, np.int64), ends=np.zeros(deployment.partitions, np.int64),
        utilization=np.zeros((deployment.brokers, setup.seconds)),
    )  # fmt: skip
    deliver(state, brokers)
    return state, brokers


def by_publisher(publisher: Integers, acked: Floats, publishers: int) -> tuple[Integers, Integers]:
    """(the order of events by publisher and ack, where each publisher's begin)."""
    order = np.lexsort((acked, publisher))
    return order, np.searchsorted(publisher[order], np.arange(publishers + 1))


def notify_shard(setup: Setup, shard: int, acked: Floats, bounds: Integers) -> tuple[Notifiers, Floats]:
    """(notifiers with what became of the durable events of this shard, its busy seconds). ``acked``: by
    publisher, each of which begins at one of ``bounds``.
    """
    deployment, costs = setup.deployment, setup.costs
    server = Shard(
        number=shard, exchange=float(costs.exchange),
        each=float(costs.publish + costs.deliver * deployment.receivers), way=costs.redis_rtt / 2,
        receive_delay=float(costs.receive_delay), repair=float(costs.repair),
        timeout=float(deployment.redis_timeout),
        noise=setup.draws.exchanges, modes=setup.outages.redis, away=setup.draws.away, free=np.zeros(1),
        served=np.zeros(1, np.int64), utilization=np.zeros(setup.seconds),
    )  # fmt: skip
    who = notifiers(acked, bounds, deployment.notify_queue, setup.seconds)
    notify(server, who)
    if not deployment.receivers:
        who.events.delivered[:] = np.nan
    if not deployment.repairs:
        who.events.recovered[:] = np.nan
    return who, server.utilization


def consume(setup: Setup, state: Publishers) -> tuple[Floats, Floats]:
    """(when each event is consumed, busy of members); NaN where it is not in the log, or nobody consumes."""
    members, costs = setup.deployment.consumers, setup.costs
    logged, partition = state.logged, state.partition
    # Behind the high watermark until then.
    readable = logged + (costs.until_copied(setup.deployment.replication_factor) + costs.fetch_delay)
    consumed = np.full(len(logged), np.nan)
    utilization = np.zeros((members, setup.seconds))
    for member in range(members):
        mine = np.flatnonzero((partition % members == member) & ~np.isnan(logged))
        mine = mine[np.lexsort((state.offset[mine], partition[mine], logged[mine]))]
        consumed[mine] = poll(readable[mine], float(costs.poll), float(costs.consume), utilization[member])
    return consumed, utilization


def receive(
    setup: Setup, acked: Floats, delivered: Floats, recovered: Floats, stands_for: int = 1
) -> tuple[Floats, Floats, Floats]:
    """(when an event is live at the clients of gateways, or at subscribers; when those who missed it have it;
    busy of a gateway): as it was announced (``recovered``), or as they are connected again and read what they
    missed. NaN for never. ``stands_for``: events that each of these is instead of.
    """
    deployment, costs = setup.deployment, setup.costs
    utilization = np.zeros((min(1, deployment.gateways), setup.seconds))
    live, back = delivered, np.full(len(delivered), np.nan)  # when a gateway that lost it is connected again
    if deployment.gateways:
        live, there = back.copy(), np.flatnonzero(~np.isnan(delivered))
        there = there[np.argsort(delivered[there], kind="stable")]
        service = float(stands_for * (costs.receive + costs.write * deployment.clients / deployment.gateways))
        limit = deployment.output_buffer / stands_for
        live[there], back[there] = hand_out(
            delivered[there], service, float(deployment.tick), limit, utilization[0]
        )
    if deployment.repairs:
        returns = np.append(setup.draws.away[:, 1], np.nan)
        back = np.fmin(returns[np.searchsorted(returns[:-1], acked)], back)
        recovered = np.where(
            np.isnan(live) & ~np.isnan(acked), np.fmin(recovered, back + costs.repair), recovered
        )
    return live, recovered, utilization
