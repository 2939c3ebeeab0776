"""Latency at a steady rate, with Redis healthy and in trouble; and memory over a long outage."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from uuid import uuid4

import numpy as np
import psutil
import uvloop

from benchmarks.throughput import side
from dualstream_lab import DualPublisher, Event, Settings
from dualstream_lab.analysis.statistics import Latency, latency_ms
from dualstream_lab.load.driver import Call, Driver
from dualstream_lab.stack import LocalStack
from dualstream_lab.workload import RunIds, Workload

__all__ = ["latencies", "memory", "outages"]

_PROXY_DELAY = 0.1
_CONCURRENCY = 1000


async def _publish(settings: Settings, rate: float, seconds: float) -> Latency:
    """Publish latency from the intended time, after two seconds that do not count."""
    async with DualPublisher(settings) as publisher:
        for length in (2.0, seconds):
            workload = Workload(rate=rate, duration=length, batch=max(1, round(rate / 1000)))
            acks = _Acks()
            driver = Driver(publisher, workload, workload.catalogue(RunIds.of_run(uuid4())), acks)
            driver.start()
            await driver.run(_CONCURRENCY)
        await publisher.flush(3)
    count, intended, acked = np.array(acks.calls, np.int64).T
    intended, acked = np.repeat(intended, count), np.repeat(acked, count)
    return latency_ms((acked - intended)[acked > 0] / 1e6)


class _Acks:
    """The driver's sink: only when each call was intended and acknowledged."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []

    def sending(self, seq: object, intended: int, in_flight: int) -> None:
        pass

    def settled(self, call: Call) -> None:
        self.calls.append((len(call), call.intended, call.acked))

    def unsent(self, count: int) -> None:
        raise AssertionError(f"nobody stops it, and {count} events were not sent")


def latencies(stack: LocalStack, *, rate: float, seconds: float, rounds: int) -> str:
    """Publish latency, and live latency: ack to receipt by a subscriber in another process."""
    settings = Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=stack.topic)
    lines = ["| round | publish p50 | p99 | p99.9 | live p50 | p99 | p99.9 |", "|---" * 7 + "|"]
    uvloop.run(_publish(settings, rate, 10))  # the JVM warms up
    for turn in range(rounds):
        with side("keep", stack.redis_url) as live:
            publish = uvloop.run(_publish(settings, rate, seconds))
        values = [publish.p50, publish.p99, publish.p999, live["p50"], live["p99"], live["p999"]]
        lines.append(f"| {turn + 1} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
        print(lines[-1], file=sys.stderr)
    return f"At {rate:,.0f} events/s, ms from the intended time (live: from the ack):\n\n" + "\n".join(lines)


@contextmanager
def _trouble(stack: LocalStack, kind: str) -> Iterator[None]:
    if kind == "refused":
        stack.redis.kill()
    elif kind == "mute":
        stack.redis.pause()
    try:
        yield
    finally:
        stack.redis.resume()
        stack.redis.start()


async def _slow(settings: Settings, stack: LocalStack, rate: float, seconds: float) -> Latency:
    """As ``_publish``, through a proxy that holds every answer of Redis for a while."""
    port = int(stack.redis_url.rpartition(":")[2])

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        while data := await reader.read(1 << 18):
            await asyncio.sleep(delay)
            writer.write(data)
        writer.close()

    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        tasks.add(asyncio.create_task(pipe(reader, back, 0)))
        tasks.add(asyncio.create_task(pipe(there, writer, _PROXY_DELAY)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        return await _publish(settings.model_copy(update={"redis_url": url}), rate, seconds)
    finally:
        server.close()
        for task in tasks:
            task.cancel()


def outages(stack: LocalStack, *, rate: float, seconds: float, rounds: int) -> str:
    """Publish p99 with Redis refused, mute and slow, each next to a healthy run."""
    settings = Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=stack.topic)
    uvloop.run(_publish(settings, rate, 10))
    found: dict[str, list[tuple[float, float]]] = {"refused": [], "mute": [], "slow": []}
    for turn in range(rounds):
        for kind, pairs in found.items():
            # Now one first, then the other: what drifts hits both alike.
            order = ("healthy", kind) if turn % 2 else (kind, "healthy")
            p99: dict[str, float] = {}
            for state in order:
                with _trouble(stack, state):
                    if state == "slow":
                        p99[state] = uvloop.run(_slow(settings, stack, rate, seconds)).p99
                    else:
                        p99[state] = uvloop.run(_publish(settings, rate, seconds)).p99
            pairs.append((p99["healthy"], p99[kind]))
            line = f"round {turn + 1}  healthy {p99['healthy']:6.2f} ms   {kind} {p99[kind]:6.2f} ms"
            print(line, file=sys.stderr)
    lines = [
        "| Redis | publish p99, ms | healthy beside it | difference, median | spread | allowed |",
        "|---" * 6 + "|",
    ]
    for kind, pairs in found.items():
        differences = sorted(bad - good for good, bad in pairs)
        good, bad = median(p[0] for p in pairs), median(p[1] for p in pairs)
        lines.append(
            f"| {kind} | {bad:.2f} | {good:.2f} | **{median(differences):+.2f}** | "
            f"{differences[0]:+.2f} to {differences[-1]:+.2f} | {max(good * 0.1, 1):.2f} |"
        )
    return f"At {rate:,.0f} events/s, paired runs of {seconds:g} s:\n\n" + "\n".join(lines)


async def _memory(stack: LocalStack, rate: float, seconds: float) -> str:
    settings = Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=stack.topic)
    process = psutil.Process()
    samples: list[tuple[float, float]] = []
    calls: set[asyncio.Task[object]] = set()
    warm, quarter = min(60.0, seconds / 5), seconds / 4
    dead = False
    async with DualPublisher(settings) as publisher:
        started = time.monotonic()
        sent, sampled = 0, -1
        while (now := time.monotonic() - started) < seconds:
            due = int(now * rate)
            events = [
                Event(type="push", source_type="repo", source_id=f"owner/r{number % 500}", data="x" * 130)
                for number in range(sent, min(due, sent + 1000))
            ]
            sent += len(events)
            if events:
                call = asyncio.create_task(publisher.publish_batch(events))
                calls.add(call)
                call.add_done_callback(calls.discard)
            if int(now) > sampled:
                sampled = int(now)
                samples.append((now, process.memory_info().rss / 2**20))
                if sampled % 30 == 0:
                    print(f"{now:6.0f} s  {samples[-1][1]:7.1f} MiB  {sent:,} events", file=sys.stderr)
            if not dead and quarter <= now < 3 * quarter:
                dead = True
                await asyncio.to_thread(stack.redis.kill)
            if dead and now >= 3 * quarter:
                dead = False
                await asyncio.to_thread(stack.redis.start)
            await asyncio.sleep(0.001)
        await asyncio.gather(*calls)
        stats = publisher.stats()
    when, size = np.array([sample for sample in samples if sample[0] > warm]).T
    slope = float(np.polyfit(when / 60, size, 1)[0])
    return (
        f"At {rate:,.0f} events/s for {seconds / 60:g} min ({stats.durable:,} durable), "
        f"Redis dead for half of it: {size.min():.0f} to {size.max():.0f} MiB after {warm:.0f} s, "
        f"slope **{slope:+.2f} MiB/min** (target ≤ 1)"
    )


def memory(stack: LocalStack, *, rate: float, minutes: float) -> str:
    """RSS of a publishing process, and its slope after the warm-up."""
    return uvloop.run(_memory(stack, rate, minutes * 60))
