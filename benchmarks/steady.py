"""The whole of it at a steady 10,000 events/s over 500 sources: latency to clients, ``GET /events``."""

from __future__ import annotations

import asyncio
import json
import tempfile

import msgspec

from benchmarks.peer import NotRun
from benchmarks.serving import crowd, fresh_settings, ours, places, run
from dualstream_lab import DualPublisher, Event
from dualstream_lab.config import ServeSettings
from dualstream_lab.stack import LocalStack
from dualstream_lab.store import SqliteStore

__all__ = ["latency_p99", "recent_events"]

_RATE, _SOURCES = 10_000, 500
_BEFORE = 3.0  # s, for every source to have some events
_LONGEST = 120.0  # s of a run


async def _publish(settings: ServeSettings, each: int) -> list[int]:
    """So many events of every source, at the rate. By source: the sum of their offsets."""
    sums = [0] * _SOURCES
    data = msgspec.Raw(b'"' + b"x" * 130 + b'"')

    async def call(first: int, end: int) -> None:
        batch = [
            Event(type="push", source_type="repo", source_id=f"bench/{number % _SOURCES}", data=data)
            for number in range(first, end)
        ]
        receipt = await publisher.publish_batch(batch)
        for number, offset in zip(range(first, end), receipt.offsets, strict=True):
            sums[number % _SOURCES] += offset

    loop = asyncio.get_running_loop()
    async with DualPublisher(settings) as publisher, asyncio.TaskGroup() as calls:
        started, sent = loop.time(), 0
        while sent < each * _SOURCES:
            due = min(each * _SOURCES, int((loop.time() - started) * _RATE))
            if due > sent:
                calls.create_task(call(sent, due))
                sent = due
            await asyncio.sleep(0.001)
    return sums


async def latency_p99(stack: LocalStack, seconds: float) -> float:
    """p99 from the ack to a client, in ms, of the last four fifths."""
    with tempfile.TemporaryDirectory() as directory:
        settings = fresh_settings(stack, directory)
        each = int(_RATE * seconds / _SOURCES)
        async with (
            ours(settings) as server,
            crowd(
                server, stack.redis_url, clients=_SOURCES, partitions=places(_SOURCES), window=1
            ) as clients,
        ):
            clients.say(json.dumps({"each": each, "announce": False, "progress": False}))
            sums = await _publish(settings, each)
            found = json.loads(await clients.line(_LONGEST))
    if found["deliveries"] != found["expected"] or found["sums"] != sums:
        raise NotRun(f"void: {found['deliveries']} of {found['expected']} deliveries")
    return float(found["p99"])


async def recent_events(stack: LocalStack, seconds: float) -> tuple[float, float]:
    """``GET /events`` of a source's newest, by 8 connections: requests/s, and p99 in ms."""
    with tempfile.TemporaryDirectory() as directory:
        settings = fresh_settings(stack, directory)
        async with ours(settings) as server:
            url = f"http://{server.address}/events?source=repo:bench/"
            task = {"url": url, "sources": _SOURCES, "connections": 8, "seconds": seconds}
            each = int(_RATE * (_BEFORE + seconds) / _SOURCES)
            publishing = asyncio.create_task(_publish(settings, each))
            await asyncio.sleep(_BEFORE)
            found = await run("requests", task)
            await publishing
            store = await SqliteStore.open(settings.store, read_only=True)
            try:
                await _applied(store, each * _SOURCES)
            finally:
                await store.close()
    return found["requests"] / found["seconds"], found["p99"]


async def _applied(store: SqliteStore, events: int) -> None:
    """Raises NotRun when the processor is more than two seconds behind."""
    for _ in range(40):
        done = sum(place.position for place in (await store.places()).values())
        if done >= events:
            return
        await asyncio.sleep(0.05)
    raise NotRun(f"void: the store has {done:,} of {events:,} events two seconds later")
