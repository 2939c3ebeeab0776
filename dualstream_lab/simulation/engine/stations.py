"""The stations, one after the other, each on the whole of what the one before it gave. What comes later never
holds up what was before, except within publishing, which is one station here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dualstream_lab.simulation.engine.broker import Brokers, deliver
from dualstream_lab.simulation.engine.consumer import poll
from dualstream_lab.simulation.engine.event_loop import loops
from dualstream_lab.simulation.engine.gateway import hand_out
from dualstream_lab.simulation.engine.notifier import notifiers, notify
from dualstream_lab.simulation.engine.publisher_queue import Calls, Ways, held
from dualstream_lab.simulation.engine.redis_shard import Joined, Shard

if TYPE_CHECKING:
    import numpy.typing as npt

    from dualstream_lab.simulation.outages import Outages, Spans
    from dualstream_lab.simulation.parameters import Costs, Deployment
    from dualstream_lab.simulation.random_draws import Draws

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = [
    "Circumstances",
    "Heard",
    "Notified",
    "Published",
    "Told",
    "consume",
    "fan_out",
    "joined_of",
    "notify_shard",
    "publish",
    "repaired",
    "tell",
]


class Circumstances(NamedTuple):
    """All that is decided before the first event. ``seconds``: how long levels are kept."""

    deployment: Deployment
    costs: Costs
    outages: Outages
    draws: Draws
    seconds: int


class Published(NamedTuple):
    """By event. ``sent``: when its call's service began. ``busy``: of publishers, of brokers."""

    sent: Floats
    ways: Ways
    busy: tuple[Floats, Floats]


class Told(NamedTuple):
    """Of a shard. By second: ``busy``; ``queued``, the longest queue of a notifier."""

    resyncs: int
    busy: Floats
    queued: Integers


class Heard(NamedTuple):
    """By event. ``live``: when clients have it; ``back``: when a gateway that lost it, as it was late, is
    connected again. NaN for never. ``busy``: of a gateway.
    """

    live: Floats
    back: Floats
    busy: Floats


class Notified(NamedTuple):
    """By event of the shard, in the order given."""

    heard: Floats
    late: Floats
    dropped: Floats
    reason: npt.NDArray[np.int8]
    told: Told


def publish(
    where: Circumstances, intended: Floats, batch: int, partition: Integers, size: Integers
) -> Published:
    """Calls of ``batch`` events; ``intended``: of each call; ``partition`` and ``size``: of each event."""
    its, costs, draws = where.deployment, where.costs, where.draws
    busy = np.zeros((its.publishers, where.seconds)), np.zeros((its.brokers, where.seconds))
    loop = loops(
        intended, its.publishers, service=float(costs.call + costs.event * batch), turn=float(costs.turn),
        callers=its.callers or len(intended), busy=busy[0],
    )  # fmt: skip
    calls = Calls(
        partition=partition, size=size, batch=batch, publishers=its.publishers,
        brokers=its.brokers, partitions=its.partitions, batch_bytes=its.batch_bytes,
        buffer_events=its.buffer_events,
    )  # fmt: skip
    count = len(partition)
    ways = Ways(
        entered=np.full(count, np.nan), settled=np.full(count, np.nan), acked=np.full(count, np.nan),
        logged=np.full(count, np.nan), outcome=np.zeros(count, np.int8),
        offset=np.full(count, -1, np.int64), taken=np.zeros(count, np.bool_),
    )  # fmt: skip
    down, others = _columns(where.outages.first_broker.down), _columns(where.outages.brokers.down)
    moved = _columns(where.outages.moved)
    stops = _columns(np.concatenate(draws.stops))
    brokers = Brokers(
        request=float(costs.request), batch=float(costs.batch), record=float(its.copies * costs.record),
        byte=float(its.copies * costs.record_byte), way=costs.kafka_trip / 2,
        replica=float(costs.until_copied(its.copies)),
        table=draws.requests.table, starts=draws.requests.starts,
        stop_begins=stops[0], stop_ends=stops[1],
        bounds=np.cumsum([0, *map(len, draws.stops)]),
        down_begins=down[0], down_ends=down[1], others_begins=others[0], others_ends=others[1],
        moved_begins=moved[0], moved_ends=moved[1],
        slow=where.outages.brokers.slow, free=np.zeros(its.brokers),
        served=np.zeros(its.brokers, np.int64), ends=np.zeros(its.partitions, np.int64), busy=busy[1],
    )  # fmt: skip
    deliver(calls, loop, ways, held(calls), brokers, float(its.buffer_timeout), float(its.delivery_timeout))
    return Published(sent=np.repeat(loop.sent, batch), ways=ways, busy=busy)


def notify_shard(where: Circumstances, shard: int, acked: Floats, publisher: Integers) -> Notified:
    """``acked``, ``publisher``: of the durable events of this shard, by ``seq``."""
    order = np.lexsort((acked, publisher))
    bounds = np.searchsorted(publisher[order], np.arange(where.deployment.publishers + 1))
    joined = joined_of(acked[order], bounds)
    told = tell(where, shard, joined)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return Notified(joined.heard[back], joined.late[back], joined.dropped[back], joined.reason[back], told)


def joined_of(acked: Floats, bounds: Integers) -> Joined:
    """Events by notifier and ack, of which nothing is known yet."""
    count = len(acked)
    return Joined(
        acked=acked, bounds=bounds, heard=np.full(count, np.nan), late=np.full(count, np.nan),
        dropped=np.full(count, np.nan), reason=np.full(count, -1, np.int8),
    )  # fmt: skip


def tell(where: Circumstances, shard: int, joined: Joined) -> Told:
    """Fill ``joined``, of one shard."""
    its, costs, outages = where.deployment, where.costs, where.outages
    who = notifiers(joined.bounds, its.notify_queue, where.seconds)
    redis = outages.redis
    down, mute, refusing, away = map(_columns, (redis.down, redis.mute, redis.refusing, where.draws.away))
    server = Shard(
        exchange=float(costs.exchange), each=float(costs.publish + costs.deliver * its.receivers),
        way=costs.redis_trip / 2, hear=float(costs.hear), repair=float(costs.repair),
        timeout=float(its.redis_timeout), table=where.draws.exchanges.table,
        start=int(where.draws.exchanges.starts[shard]),
        down_begins=down[0], down_ends=down[1], mute_begins=mute[0], mute_ends=mute[1],
        refusing_begins=refusing[0], refusing_ends=refusing[1], away_begins=away[0], away_ends=away[1],
        slow=outages.redis.slow, free=np.zeros(1), served=np.zeros(1, np.int64),
        busy=np.zeros(where.seconds),
    )  # fmt: skip
    notify(server, joined, who)
    if not its.receivers:
        joined.heard[:] = np.nan
    if not its.repairs:
        joined.late[:] = np.nan
    return Told(int(who.resyncs.sum()), server.busy, who.queued)


def consume(
    where: Circumstances, logged: Floats, partition: Integers, offset: Integers
) -> tuple[Floats, Floats]:
    """(when each event is consumed, busy of members); NaN where it is not in the log, or nobody consumes."""
    its, costs = where.deployment, where.costs
    readable = costs.until_copied(its.copies) + costs.fetch_trip  # behind the high watermark until then
    consumed = np.full(len(logged), np.nan)
    busy = np.zeros((its.consumers, where.seconds))
    for member in range(its.consumers):
        theirs = np.flatnonzero((partition % its.consumers == member) & ~np.isnan(logged))
        theirs = theirs[np.lexsort((offset[theirs], partition[theirs], logged[theirs]))]
        consumed[theirs] = poll(
            logged[theirs] + readable, float(costs.poll), float(costs.consume), busy[member]
        )
    return consumed, busy


def fan_out(where: Circumstances, heard: Floats, stands_for: int = 1) -> Heard:
    """What clients of gateways have of it; as it was where there are none.

    ``stands_for``: events that each of these is instead of.
    """
    its, costs = where.deployment, where.costs
    busy = np.zeros((1 if its.gateways else 0, where.seconds))
    if not its.gateways:
        return Heard(heard, np.full(len(heard), np.nan), busy)
    there = np.flatnonzero(~np.isnan(heard))
    there = there[np.argsort(heard[there], kind="stable")]
    live, back = np.full((2, len(heard)), np.nan)
    service = float(stands_for * (costs.receive + costs.write * its.clients / its.gateways))
    limit = its.output_buffer / stands_for
    live[there], back[there] = hand_out(heard[there], service, float(its.tick), limit, busy[0])
    return Heard(live, back, busy)


def repaired(where: Circumstances, acked: Floats, heard: Heard, late: Floats) -> Floats:
    """When those who did not hear an event have it, NaN for never: as it was announced (``late``), or as they
    are connected again and read what they missed.
    """
    its = where.deployment
    if not its.repairs:
        return late
    returns = np.append(where.draws.away[:, 1], np.nan)
    back = np.fmin(returns[np.searchsorted(returns[:-1], acked)], heard.back)
    missed = np.isnan(heard.live) & ~np.isnan(acked)
    return np.where(missed, np.fmin(late, back + where.costs.repair), late)


def _columns(spans: Spans) -> tuple[Floats, Floats]:
    """(begins, ends)."""
    return np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1])
