"""Coalescing: a gateway that waits a tick writes several messages at once; what that costs and gives."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from dualstream_lab.bounds import within
from dualstream_lab.config import Settings
from dualstream_lab.faults.fault import ServedGateway
from dualstream_lab.lab.gateway_check.serving import serving, url_of
from dualstream_lab.lab.scaling.measurement import Loaded, Measurement, gateway_metrics
from dualstream_lab.lab.scaling.table import Table, each_of
from dualstream_lab.load.session import own_stack
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination
from dualstream_lab.tasks import in_thread
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    import pandas as pd


_BUSY: Final = 0.9  # of a core
_DELIVERED: Final = "messaging_client_consumed_messages_total"
_WRITES: Final = "dualstream_delivery_latency_seconds_count"  # one sample a flush


async def coalescing(
    *,
    stack: LocalStack | None = None,
    ticks: Sequence[float] = (0, 0.005, 0.02),
    clients: Sequence[int] = (10, 30, 100),
    rate: float = 400,
    duration: float = 5,
    repeats: int = 1,
    warm_up: float = 1,
    root: Path | str = "runs",
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Measure what a gateway's ``tick`` (s) does for its WebSocket clients.

    The table has a row for each tick, number of clients and repeat. All ``clients`` follow one source, about
    which ``rate`` events/s are published, one a call, for ``duration`` s. ``dualstream serve`` and the
    clients (one process) share this machine's cores with Kafka, Redis and the publisher: ``limit`` says who
    saturated. ``stack``, ``warm_up``: as of :func:`fan_out`.

    Columns: ``clients``, ``tick_ms``, ``repeat``, ``gateway_cpu`` (of `dualstream serve`), ``client_cpu``,
    ``redis_cpu`` (shares of one core), ``machine`` (share of all cores that anybody used),
    ``messages_per_write``, ``writes_per_s`` (to all clients), ``delay_p50_ms`` and ``delay_p99_ms`` (from
    Kafka's acknowledgement to a client, of every delivery), ``deliveries``, ``missing`` (that did not come
    live), ``dropped`` (notifications that the publisher gave up), ``limit``, ``run`` (its directory).

    The stop button ends it: the table has the rows until then. Raises ConfigError, StackError,
    StreamUnavailable.
    """
    workload = Workload(rate=rate, duration=duration, batch=1, sources=1)
    ticks, clients = each_of("ticks", ticks), each_of("clients", clients)
    rounds = list(product(range(1, within("repeats", repeats, 1, 100, whole=True) + 1), ticks))
    for tick in ticks:
        within("ticks", tick, 0, 0.1)
    for count in clients:
        within("clients", count, 1, 5000, whole=True)
    within("warm_up", warm_up, 0, 60)
    table = Table(len(rounds) * len(clients), progress)
    with table.stoppable():
        async with own_stack(stack) as brokers:
            for repeat, tick in rounds:
                async with _gateway(brokers, tick) as (settings, gateway):
                    for count in clients:
                        table.doing(f"{count:,} clients, a tick of {1e3 * tick:g} ms")
                        measurement = Measurement(
                            name="coalescing",
                            workload=workload,
                            settings=settings,
                            listener="dualstream_lab.load.listener",
                            task={"kind": "gateway", "gateway": url_of(gateway), "clients": count},
                            subscribers=count,
                            deliveries=count,
                            warm_up=warm_up,
                            root=Path(root),
                            processes={"redis": brokers.redis.pid, "gateway": gateway.process.pid},
                        )
                        figures = await _measured(measurement, url_of(gateway))
                        table.add({"clients": count, "tick_ms": 1e3 * tick, "repeat": repeat} | figures)
    return table.frame()


@asynccontextmanager
async def _gateway(stack: LocalStack, tick: float) -> AsyncIterator[tuple[Settings, ServedGateway]]:
    """A gateway with a topic of its own, so that its fresh store need not read what others left."""
    topic = f"coalescing-{uuid4().hex[:10]}"
    await in_thread(stack.create_topic, topic)
    settings = Destination.of(stack, topic).settings
    with tempfile.TemporaryDirectory(prefix="dualstream-", ignore_cleanup_errors=True) as directory:
        async with serving(settings, Path(directory), DUALSTREAM_TICK=tick) as gateway:
            yield settings, gateway


async def _measured(measurement: Measurement, url: str) -> dict[str, Any]:
    async with measurement:
        before = await gateway_metrics(url)
        loaded = await measurement.load()
        after = await gateway_metrics(url)
    messages, writes = (after[name] - before[name] for name in (_DELIVERED, _WRITES))
    return _figures(loaded, measurement.subscribers, messages, writes)


def _figures(loaded: Loaded, clients: int, messages: float, writes: float) -> dict[str, Any]:
    run, cpu, delays = loaded.run, loaded.cpu, loaded.delays
    duration = float(run.directory.manifest.workload["duration"])
    limit = run.limit
    if cpu["gateway"] >= _BUSY:
        busy = f"the gateway was busy: {cpu['gateway']:.2f} of one core"
        limit = busy if limit.startswith("nothing") else f"{limit}; {busy}"
    return {
        "gateway_cpu": cpu["gateway"],
        "client_cpu": cpu["subscribers"],
        "redis_cpu": cpu["redis"],
        "machine": loaded.machine,
        "messages_per_write": messages / max(1, writes),
        "writes_per_s": writes * clients / duration,
        "delay_p50_ms": delays.quantile(0.5),
        "delay_p99_ms": delays.quantile(0.99),
        "deliveries": delays.arrived,
        "missing": int(run.measures["publish.durable"]) * clients - delays.arrived,
        "dropped": int(run.measures["live.dropped"]),
        "limit": limit,
        "run": str(run.path),
    }
