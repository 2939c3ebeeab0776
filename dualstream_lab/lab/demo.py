"""The demonstration: a steady stream of events through both streams, while Redis is killed and comes back."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from dualstream_lab.analysis.latency import Latency, latency
from dualstream_lab.analysis.timeline import Timeline, draw_timeline
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.load.driver import DURABLE, Driver, Rows
from dualstream_lab.load.listener import Listener
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.workload import RunIds, Workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from dualstream_lab.publisher import PublisherStats
    from dualstream_lab.stack import LocalStack

__all__ = ["Demo", "Phase", "Result", "run_demo"]

_WARM_UP = 5.0  # a fresh JVM answers slowly for some seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What to show. ``outage``: Redis is killed at the first second and started at the second one.

    Raises ConfigError for an outage that does not lie within the run.
    """

    workload: Workload
    outage: tuple[float, float] = (8.0, 12.0)

    def __post_init__(self) -> None:
        down, back = self.outage
        if not 0 < down < back < self.workload.duration:
            raise ConfigError(
                f"outage {down:g}:{back:g}: must be from:to with 0 < from < to < duration "
                f"({self.workload.duration:g} s)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Latencies of the events that were intended in one phase, ms from their intended time."""

    name: str
    begin: float
    end: float
    publish: Latency
    kafka: Latency
    redis: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it. Counts are of events; ``achieved``: durable events/s until the last ack."""

    intended: int
    intended_rate: float
    achieved: float
    durable: int
    in_log: int
    twice: int
    heard: int
    stats: PublisherStats
    phases: tuple[Phase, ...]
    directory: Path
    picture: Path

    @property
    def good(self) -> bool:
        """Whether every intended event is durable, and a consumer has read each of them, once."""
        return self.durable == self.in_log == self.intended and not self.twice


@dataclass(slots=True)
class Live:
    """What the progress display shows while it runs."""

    seconds: float = 0.0
    state: str = "starting"
    durable: int = 0
    notified: int = 0
    dropped: int = 0


async def run_demo(demo: Demo, stack: LocalStack, directory: Path, show: Callable[[Live], None]) -> Result:
    """Run it on a started stack and write rows, summary and picture into the existing ``directory``.

    Raises StackError if a part does not start, PublishError never: outcomes are counted.
    """
    workload = demo.workload
    settings = Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=stack.topic)
    ids = RunIds.of_run(uuid4())
    live = Live()
    async with DualPublisher(settings) as publisher:
        live.state = "warming up"
        show(live)
        warm_up = Workload(rate=workload.rate, duration=_WARM_UP, payload=workload.payload, seed=0)
        await Driver(publisher, warm_up, warm_up.catalogue(RunIds.of_run(uuid4()))).run()
        await publisher.flush()
        before = publisher.stats()
        with ExitStack() as listeners:
            redis, kafka = (
                listeners.enter_context(
                    Listener(kind, settings, ids=ids.prefix, file=directory / f"{kind}.npz")
                )
                for kind in ("redis", "kafka")
            )
            for listener in (redis, kafka):
                await asyncio.to_thread(listener.wait_ready)
            driver = Driver(publisher, workload, workload.catalogue(ids))
            outage = await _drive(driver, demo, stack, publisher, live, show, before)
            await publisher.flush()
            stats = publisher.stats()
            count = len(driver.rows)
            heard, _ = await asyncio.to_thread(redis.finish, count)
            read, twice = await asyncio.to_thread(kafka.finish, count)
    return _result(demo, driver, outage, heard, read, twice, _since(stats, before), directory)


async def _drive(
    driver: Driver,
    demo: Demo,
    stack: LocalStack,
    publisher: DualPublisher,
    live: Live,
    show: Callable[[Live], None],
    before: PublisherStats,
) -> tuple[float, float]:
    """Run the driver, the outage and the display side by side; returns when Redis was really away, in s."""
    loop = asyncio.get_running_loop()
    # What was made so far lives as long as the run: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    started = loop.time()

    async def outage() -> tuple[float, float]:
        await asyncio.sleep(demo.outage[0])
        live.state = "Redis is killed"
        await asyncio.to_thread(stack.redis.kill)
        down = loop.time() - started
        await asyncio.sleep(max(0.0, started + demo.outage[1] - loop.time()))
        await asyncio.to_thread(stack.redis.start)
        live.state = "Redis is back"
        return down, loop.time() - started

    async def display() -> None:
        while True:
            stats = _since(publisher.stats(), before)
            live.seconds = loop.time() - started
            live.durable, live.notified = stats.durable, stats.notified
            live.dropped = sum(stats.dropped.values())
            show(live)
            await asyncio.sleep(0.25)

    live.state = "both streams are up"
    displaying = asyncio.create_task(display())
    try:
        async with asyncio.TaskGroup() as group:
            trouble = group.create_task(outage())
            group.create_task(driver.run())
    finally:
        displaying.cancel()
        gc.unfreeze()
    return trouble.result()


def _since(now: PublisherStats, before: PublisherStats) -> PublisherStats:
    """The counters without the warm-up's."""
    import msgspec  # noqa: PLC0415

    changed = {
        name: getattr(now, name) - getattr(before, name)
        for name in ("accepted", "durable", "rejected", "unknown", "late", "refused", "notified", "receivers")
    }
    dropped = {why: n - before.dropped.get(why, 0) for why, n in now.dropped.items()}
    return msgspec.structs.replace(now, **changed, dropped={why: n for why, n in dropped.items() if n})


def _result(
    demo: Demo,
    driver: Driver,
    outage: tuple[float, float],
    heard: npt.NDArray[np.int64],
    read: npt.NDArray[np.int64],
    twice: int,
    stats: PublisherStats,
    directory: Path,
) -> Result:
    rows, zero = driver.rows, driver.started
    arrivals = {"kafka": read, "redis": heard}
    length = demo.workload.duration
    phases = tuple(
        _phase(name, begin, end, rows, arrivals, zero)
        for name, begin, end in (
            ("before", 0.0, outage[0]),
            ("Redis away", *outage),
            ("after", outage[1], length),
        )
    )
    durable = int(np.count_nonzero(rows.outcome == DURABLE))
    result = Result(
        intended=len(rows),
        intended_rate=demo.workload.rate,
        achieved=durable / ((int(rows.acked.max()) - zero) / 1e9),
        durable=durable,
        in_log=int(np.count_nonzero(read)),
        twice=twice,
        heard=int(np.count_nonzero(heard)),
        stats=stats,
        phases=phases,
        directory=directory,
        picture=directory / "timeline.png",
    )
    _write(demo, result, rows, arrivals)
    draw_timeline(
        Timeline(
            title=f"{demo.workload.rate:,.0f} events/s through a Redis outage: "
            f"{durable:,} of {len(rows):,} durable, {result.heard:,} heard live",
            rate=demo.workload.rate,
            length=length,
            outage=outage,
            intended=rows.intended - zero,
            **{
                name: np.where(times > 0, times - zero, 0)
                for name, times in {"acked": rows.acked, **arrivals}.items()
            },
        ),
        result.picture,
    )
    return result


def _phase(
    name: str, begin: float, end: float, rows: Rows, arrivals: dict[str, npt.NDArray[np.int64]], zero: int
) -> Phase:
    at = (rows.intended - zero) / 1e9
    inside = (at >= begin) & (at < end)
    intended = rows.intended[inside]
    return Phase(
        name=name,
        begin=begin,
        end=end,
        publish=latency(intended, rows.acked[inside]),
        kafka=latency(intended, arrivals["kafka"][inside]),
        redis=latency(intended, arrivals["redis"][inside]),
    )


def _write(demo: Demo, result: Result, rows: Rows, arrivals: dict[str, npt.NDArray[np.int64]]) -> None:
    """``events.parquet``: a row an event, times in ns of the monotonic clock; ``summary.json``."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    pq.write_table(pa.table(rows.columns() | arrivals), result.directory / "events.parquet")
    summary = asdict(result) | {
        "workload": demo.workload.as_dict(),
        "made_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "stats": {name: getattr(result.stats, name) for name in result.stats.__struct_fields__},
        "directory": result.directory.name,
        "picture": result.picture.name,
    }
    text = json.dumps(summary, indent=1, default=str)
    (result.directory / "summary.json").write_text(text + "\n", encoding="utf-8")
