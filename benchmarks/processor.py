"""How fast the processor applies a log that is full already into a SQLite file."""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from uuid import uuid4

import uvloop

from benchmarks.peer import PEERS, NotRun
from dualstream_lab.config import ServeSettings
from dualstream_lab.processor import Processor
from dualstream_lab.stack import LocalStack
from dualstream_lab.store import SqliteStore

__all__ = ["processor"]

_EVENTS = 1_000_000
_BYTES = 300
_TIMEOUT = 180.0


def _fill(stack: LocalStack, events: int) -> str:
    """A topic of six partitions with events of 500 sources."""
    topic = f"bench-{uuid4().hex[:10]}"
    stack.create_topic(topic, partitions=6)
    task: dict[str, object] = {
        "kafka": stack.kafka_url, "redis": None, "topic": topic, "batch": 1000, "in_flight": 4,
        "sources": 500, "size": _BYTES, "events": events, "hot": False,
    }  # fmt: skip
    PEERS["ours without Redis"].run(task).rate(events, redis=False)
    return topic


async def _apply(stack: LocalStack, topic: str, events: int) -> tuple[float, float]:
    """(events/s from the first poll to the last applied, µs of this process's CPU an event)."""
    with tempfile.TemporaryDirectory() as directory:
        settings = ServeSettings.load(
            kafka_url=stack.kafka_url,
            topic=topic,
            group=f"bench-{uuid4().hex[:10]}",
            store=Path(directory) / "store.db",
            retention_age=10 * 365 * 86_400.0,
            retention_events=2 * events,
        )
        store = await SqliteStore.open(settings.store)
        async with Processor(settings, store) as running:
            task = asyncio.create_task(running.run())
            async with asyncio.timeout(_TIMEOUT):
                while not running.stats().partitions:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                started, cpu = time.time_ns(), time.process_time()
                while running.stats().applied < events and not task.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            cpu = time.process_time() - cpu
            task.cancel()
            await asyncio.wait([task])
            stats = running.stats()
        kept = sum(place.position for place in (await store.places()).values())
        await store.close()
    if not stats.applied == kept == events:
        raise NotRun(f"void: {stats.applied} of {events} applied, positions at {kept}")
    return events / (stats.last_applied - started) * 1e9, cpu / events * 1e6


def processor(stack: LocalStack, *, rounds: int, events: int = _EVENTS) -> str:
    """A table of one line; each round into a new store."""
    topic = _fill(stack, events)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)  # as `dualstream serve` does
    rates: list[float] = []
    costs: list[float] = []
    for turn in range(-1, rounds):  # the first warms the broker and does not count
        rate, cost = uvloop.run(_apply(stack, topic, events))
        print(f"round {turn + 1}  {rate:10,.0f} events/s  {cost:.1f} µs of CPU an event", file=sys.stderr)
        if turn >= 0:
            rates.append(rate)
            costs.append(cost)
    return (
        "| figure | median | spread | target |\n|---|---|---|---|\n"
        f"| processor into SQLite, {_BYTES} B events, events/s | **{median(rates):,.0f}** | "
        f"{min(rates):,.0f} to {max(rates):,.0f} | ≥ 100,000 |\n"
        f"| its CPU an event (both threads), µs | **{median(costs):.1f}** | "
        f"{min(costs):.1f} to {max(costs):.1f} | |"
    )
