"""Coalescing: a gateway that waits a tick writes several messages at once; what that costs and gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from dualstream_lab.config import Settings
from dualstream_lab.lab.fan_out_lab.checks import each_of, number, whole
from dualstream_lab.lab.fan_out_lab.served import served
from dualstream_lab.lab.fan_out_lab.session import Measurement, Session
from dualstream_lab.lab.fan_out_lab.table import Table, stack_or_own
from dualstream_lab.tasks import in_thread
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from dualstream_lab.lab.fan_out_lab.served import Served
    from dualstream_lab.lab.fan_out_lab.session import Loaded
    from dualstream_lab.stack import LocalStack

__all__ = ["coalescing"]

_LISTENER: Final = "dualstream_lab.lab.fan_out_lab.clients"
_BUSY: Final = 0.9  # of a core
_HEARD: Final = "messaging_client_consumed_messages_total"
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
    """What a gateway's ``tick`` (s) does for some number of WebSocket clients: a row each, and repeat.

    All ``clients`` follow one source, about which ``rate`` events/s are published, one a call, for
    ``duration`` s. ``dualstream serve`` and the clients (one process) share this machine's cores with Kafka,
    Redis and the publisher: ``limit`` says who saturated. ``stack``, ``warm_up``: as of :func:`fan_out`.

    Columns: ``clients``, ``tick_ms``, ``repeat``, ``gateway_cpu`` (of `dualstream serve`), ``client_cpu``,
    ``redis_cpu`` (shares of one core), ``machine`` (share of all cores that anybody used),
    ``messages_per_write``, ``writes_per_s`` (to all clients), ``delay_p50_ms`` and ``delay_p99_ms`` (from
    Kafka's acknowledgement to a client, of every delivery), ``deliveries``, ``missing`` (that did not come
    live), ``dropped`` (notifications that the publisher gave up), ``limit``, ``run`` (its directory).

    The stop button ends it: the table has the rows until then. Raises ConfigError, StackError,
    StreamUnavailable.
    """
    workload = Workload(rate=rate, duration=duration, batch=1, sources=1)
    plans = [
        _Plan(repeat=repeat, tick=tick, clients=count)
        for repeat, tick, count in product(
            range(1, whole("repeats", repeats, 1, 100) + 1),
            each_of("ticks", ticks),
            each_of("clients", clients),
        )
    ]
    number("warm_up", warm_up, 0, 60)
    table = Table(len(plans), progress)
    with table.stoppable():
        async with stack_or_own(stack) as where:
            for (_, tick), some in groupby(plans, key=lambda plan: (plan.repeat, plan.tick)):
                settings = await _settings(where)
                async with served(settings, tick=tick) as gateway:
                    for plan in some:
                        table.doing(f"{plan.clients:,} clients, a tick of {1e3 * tick:g} ms")
                        measurement = Measurement(
                            name="coalescing",
                            workload=workload,
                            settings=settings,
                            listener=_LISTENER,
                            task={"gateway": gateway.url, "clients": plan.clients},
                            subscribers=plan.clients,
                            hears=plan.clients,
                            warm_up=warm_up,
                            root=Path(root),
                            beside={"redis": where.redis.pid, "gateway": gateway.process.pid},
                        )
                        table.add(await _measured(plan, measurement, gateway))
    return table.frame()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    repeat: int
    tick: float
    clients: int

    def __post_init__(self) -> None:
        number("ticks", self.tick, 0, 0.1)
        whole("clients", self.clients, 1, 5000)


async def _settings(stack: LocalStack) -> Settings:
    """With a topic of its own: a gateway's fresh store need not read what others left."""
    topic = f"coalescing-{uuid4().hex[:10]}"
    await in_thread(stack.create_topic, topic)
    return Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=topic)


async def _measured(plan: _Plan, measurement: Measurement, gateway: Served) -> dict[str, Any]:
    async with Session(measurement) as session:
        before = await gateway.counters()
        loaded = await session.load()
        after = await gateway.counters()
    about = {"clients": plan.clients, "tick_ms": 1e3 * plan.tick, "repeat": plan.repeat}
    return about | _figures(plan, loaded, {name: after[name] - before[name] for name in (_HEARD, _WRITES)})


def _figures(plan: _Plan, loaded: Loaded, counted: Mapping[str, float]) -> dict[str, Any]:
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
        "messages_per_write": counted[_HEARD] / max(1, counted[_WRITES]),
        "writes_per_s": counted[_WRITES] * plan.clients / duration,
        "delay_p50_ms": delays.quantile(0.5),
        "delay_p99_ms": delays.quantile(0.99),
        "deliveries": delays.arrived,
        "missing": int(run.measures["publish.durable"]) * plan.clients - delays.arrived,
        "dropped": int(run.measures["live.dropped"]),
        "limit": limit,
        "run": str(run.path),
    }
