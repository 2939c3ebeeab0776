"""The cardinality lab: a channel a source, aggregate channels or one pattern, for up to 100,000 sources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from dualstream_lab.bounds import within
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.scaling.measurement import Loaded, Measurement, RedisCosts
from dualstream_lab.lab.scaling.table import Table, each_of
from dualstream_lab.load.session import own_stack
from dualstream_lab.stack import LocalStack
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    import pandas as pd


Policy = Literal["source", "aggregate", "pattern"]

_STORM: Final = 180.0  # s
_SETTLED: Final = 0.25  # s after a storm in which Redis lets go of what it needed for it
_FIRST: Final = 3  # times the warm-up: a fresh JVM is slow


async def fan_out(
    *,
    stack: LocalStack | None = None,
    policies: Sequence[Policy] = get_args(Policy),
    channels: Sequence[int] = (100, 1_000, 10_000, 100_000),
    subscribers: int = 16,
    rate: float = 5_000,
    duration: float = 5,
    repeats: int = 1,
    warm_up: float = 1,
    root: Path | str = "runs",
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Measure how channel policies scale with the number of sources.

    The table has a row for each policy, number and repeat, in turns. ``channels`` sources are followed by
    ``subscribers`` gateways, each source by one of them. ``source``: a Redis channel a source. ``aggregate``:
    64 shard channels a source type. ``pattern``: each gateway receives everything by one pattern. First all
    subscribe in one moment, as when Redis comes back (the *storm*); then the publisher sends ``rate``
    events/s, evenly over the sources, for ``duration`` s. Publisher, gateways (one process) and Redis share
    this machine's cores: ``limit`` says who saturated. ``stack``: where; left out, one is made. ``warm_up``:
    s of load before each row.

    Columns: ``policy``, ``channels``, ``repeat``; of the storm ``subscriptions`` (that Redis confirmed),
    ``storm_s`` (until the last confirmation), ``storm_redis_cpu_s``, ``storm_gateway_cpu_s``, ``memory_mib``
    (that Redis has more than before) and ``storm_buffer_kib``; of the delivery ``delay_p50_ms`` and
    ``delay_p99_ms`` (from Kafka's acknowledgement to the gateway), ``live_p99_ms`` (from the intended time),
    ``redis_cpu``, ``gateway_cpu`` (all of them), ``publisher_cpu`` (shares of one core), ``machine`` (share
    of all cores that anybody used), ``messages_per_event`` (messages that all gateways read, with those that
    they throw away), ``delivered``, ``missing`` (events), ``dropped`` (notifications that the publisher gave
    up), ``buffer_kib`` (that waited in Redis for the slowest gateway, at most), ``limit``, ``run`` (its
    directory).

    The stop button ends it: the table has the rows until then. Raises ConfigError, StackError,
    StreamUnavailable.
    """
    workloads = {count: _workload(rate, duration, count) for count in each_of("channels", channels)}
    plans = list(
        product(
            range(1, within("repeats", repeats, 1, 100, whole=True) + 1),
            workloads,
            each_of("policies", policies),
        )
    )
    within("subscribers", subscribers, 1, 64, whole=True)
    for _, count, policy in plans:
        if policy not in get_args(Policy):
            raise ConfigError(f"policies: must be of {', '.join(get_args(Policy))} (is {policy!r})")
        within("channels", count, subscribers, 200_000, whole=True)
    within("warm_up", warm_up, 0, 60)
    table = Table(len(plans), progress)
    with table.stoppable():
        async with own_stack(stack) as brokers:
            for place, (repeat, count, policy) in enumerate(plans):
                table.doing(f"{policy}, {count:,} channels")
                warm = warm_up * (1 if place else _FIRST)
                measurement = _measurement(policy, workloads[count], subscribers, brokers, warm, Path(root))
                figures = await _measured(measurement, brokers.redis_url)
                table.add({"policy": policy, "channels": count, "repeat": repeat} | figures)
    return table.frame()


def _workload(rate: float, duration: float, sources: int) -> Workload:
    """A load that is even over the sources: popular ones would hide how many there are."""
    return Workload(
        rate=within("rate", rate, 10, 1_000_000),
        duration=duration,
        sources=within("channels", sources, 1, 200_000, whole=True),
        zipf=0.0,
        batch=max(1, round(rate / 1000)),
    )


def _measurement(
    policy: Policy, workload: Workload, gateways: int, stack: LocalStack, warm_up: float, root: Path
) -> Measurement:
    settings = Settings.load(
        kafka_url=stack.kafka_url,
        redis_url=stack.redis_url,
        topic=stack.topic,
        channel_policy="shard" if policy == "aggregate" else "source",
    )
    return Measurement(
        name=f"fan-out-{policy}",
        workload=workload,
        settings=settings,
        listener="dualstream_lab.lab.scaling.gateways",
        task={"policy": policy, "sources": workload.sources, "gateways": gateways},
        subscribers=gateways,
        deliveries=1,
        warm_up=warm_up,
        root=root,
        processes={"redis": stack.redis.pid},
    )


async def _measured(measurement: Measurement, redis_url: str) -> dict[str, Any]:
    costs = RedisCosts(redis_url)
    async with measurement:
        storm = await _storm(measurement, costs)
        async with costs.watched() as buffers:
            loaded = await measurement.load()
    return storm | _delivery(loaded, max(buffers))


async def _storm(measurement: Measurement, costs: RedisCosts) -> dict[str, Any]:
    """Let all gateways subscribe in one moment, and measure what that costs."""
    before = await costs.spent()
    async with costs.watched() as buffers:
        measurement.listening.send("subscribe")
        storm = await measurement.listening.expect("subscribed", _STORM)
    after = await costs.spent()
    await asyncio.sleep(_SETTLED)
    settled = await costs.spent()
    return {
        "subscriptions": storm["subscriptions"],
        "storm_s": storm["seconds"],
        "storm_redis_cpu_s": after.cpu - before.cpu,
        "storm_gateway_cpu_s": storm["cpu"],
        "memory_mib": (settled.memory - before.memory) / 2**20,
        "storm_buffer_kib": max(buffers) / 2**10,
    }


def _delivery(loaded: Loaded, buffer: int) -> dict[str, Any]:
    found, delays = loaded.run.measures, loaded.delays
    durable = found["publish.durable"]
    return {
        "delay_p50_ms": delays.quantile(0.5),
        "delay_p99_ms": delays.quantile(0.99),
        "live_p99_ms": found["live.latency.p99"],
        "redis_cpu": loaded.cpu["redis"],
        "gateway_cpu": loaded.cpu["subscribers"],
        "publisher_cpu": loaded.cpu["publisher"],
        "machine": loaded.machine,
        "messages_per_event": loaded.summary["read"] / durable if durable else float("nan"),
        "delivered": int(found["live.delivered"]),
        "missing": int(durable - found["live.delivered"]),
        "dropped": int(found["live.dropped"]),
        "buffer_kib": buffer / 2**10,
        "limit": loaded.run.limit,
        "run": str(loaded.run.path),
    }
