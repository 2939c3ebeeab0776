"""Deliveries to WebSocket clients, our gateway's beside centrifuge's; latency from the ack; ``GET /events``.

Of two cores the server has one; its clients, Redis and Kafka have the other. The clients are the same for
both servers, parse every frame, and announce the events on Redis themselves, a window ahead of the slowest
of them: so the server is never idle and nobody is too slow. centrifuge gets them as its own Redis broker
publishes them: it is fed by the same Redis. Here no event is in Kafka, which a gateway asks only when
somebody comes, and about every second how far the log is: it takes what the store has for that, too. What the
processor would write into the store, this does. Latency and ``GET /events`` have
it all: the publisher, Kafka, ``dualstream serve`` with its processor, on both cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import uvloop

from benchmarks.peer import NotRun
from benchmarks.serving import (
    Child,
    Server,
    all_on,
    binary,
    centrifuge,
    crowd,
    fresh_settings,
    ours,
    places,
)
from benchmarks.steady import latency_p99, recent_events
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.stack import LocalStack
from dualstream_lab.store import SqliteStore, StoredEvent
from dualstream_lab.tasks import end_tasks

__all__ = ["fanout"]

_SERVER, _REST = 0, 1  # cores
_SECONDS = 10
_LONGEST = 120.0  # s of a run
_PARTITIONS = (
    48  # so many that none gets 10,000 events more than a gateway knows of, which it would not believe
)


@dataclass(frozen=True)
class Shape:
    """``each``: events of a source. ``window``: how far they run ahead of a source's slowest client."""

    name: str
    clients: int
    sources: int
    each: int
    window: int
    peer: str
    target: float


# centrifuge drops notifications when more than 4096 wait: 2000 sources may have 2 each. One source has less
# than the 10,000 events beyond Kafka's end that a gateway would ask Kafka about, which has none of them.
SHAPES = (
    Shape("one hot channel, 500 clients", 500, 1, 9_000, 1024, "centrifuge, 5 ms", 1.5),
    Shape("one hot channel, 2000 clients", 2000, 1, 5000, 256, "centrifuge, 5 ms", 1.5),
    Shape("2000 clients on 2000 channels", 2000, 2000, 150, 2, "centrifuge", 1.0),
)


@dataclass
class Figures:
    """By what was measured, and round by round."""

    values: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    busy: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Feed:
    """What stands for the processor: it writes the store of the log with this ``epoch``."""

    store: SqliteStore
    epoch: str

    async def report(self) -> None:
        """That it is alive, until cancelled: else the gateway is not ready."""
        while True:
            await self.store.report("bench", group="bench", partitions=range(_PARTITIONS), troubles={})
            await asyncio.sleep(1)


@asynccontextmanager
async def _gateway(stack: LocalStack) -> AsyncIterator[tuple[Server, Feed]]:
    """A gateway alone, on a topic of its own, and its store, which we write as a processor would.

    It does not look by itself whether it has missed something: there is nothing in Kafka.
    """
    with tempfile.TemporaryDirectory() as directory:
        settings = fresh_settings(stack, directory, partitions=_PARTITIONS, check_interval=3600)
        store = await SqliteStore.open(settings.store)
        feed = Feed(store, (await log_identity(settings)).epoch)
        await store.begin(feed.epoch, dict.fromkeys(range(_PARTITIONS), 0))
        reporting = asyncio.create_task(feed.report())
        try:
            async with ours(settings, "--only", "gateway", core=_SERVER) as server:
                yield server, feed
        finally:
            await end_tasks([reporting])
            await store.close()


async def _deliver(
    stack: LocalStack, server: Server, shape: Shape, feed: Feed | None, scale: float
) -> dict[str, Any]:
    """Every event to every client of its source. Raises NotRun when one is missing or came twice."""
    partitions = places(shape.sources, _PARTITIONS)
    hot = feed is not None and shape.sources == 1
    async with crowd(
        server, stack.redis_url, clients=shape.clients, partitions=partitions, window=shape.window,
        epoch=feed.epoch if feed else "", core=_REST,
    ) as clients:  # fmt: skip
        each = max(10, int(shape.each * scale))
        clients.say(json.dumps({"each": each, "announce": True, "progress": hot}))
        result = await _result(clients, feed, partitions[0])
    if result["complete"] != shape.clients:
        raise NotRun(
            f"void: {result['deliveries']} of {result['expected']} deliveries, "
            f"{result['complete']} clients have all"
        )
    return result


async def _result(clients: Child, feed: Feed | None, partition: int) -> dict[str, Any]:
    """What the clients report in the end. Meanwhile the store gets what all of them have received."""
    done = 0
    while True:
        line = await clients.line(_LONGEST)
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
        received = int(line)
        if feed is not None and received > done:
            events = [_stored(partition, offset) for offset in range(done, received)]
            await feed.store.apply(partition, done, received, events)
            done = received


def _stored(partition: int, offset: int) -> StoredEvent:
    """As the clients announced it."""
    name = f"00000000-0000-7000-8{partition:03x}-{offset:012x}"
    return StoredEvent(partition, offset, name, "push", "repo:bench/0", 0, b'{"data":null}')


async def _compared(stack: LocalStack, figures: Figures, turn: int, scale: float) -> None:
    """One round of the shapes, one server after the other."""
    peers: dict[str, Callable[[], AbstractAsyncContextManager[Server]]] = {
        "centrifuge": lambda: centrifuge(stack.redis_url, core=_SERVER),
        "centrifuge, 5 ms": lambda: centrifuge(stack.redis_url, write_delay=5, core=_SERVER),
    }
    for shape in SHAPES:
        for name in ("ours", *peers):
            try:
                if name == "ours":
                    async with _gateway(stack) as (server, feed):
                        found = await _deliver(stack, server, shape, feed, scale)
                else:
                    async with peers[name]() as server:
                        found = await _deliver(stack, server, shape, None, scale)
            except NotRun as error:
                figures.reasons[shape.name, name] = str(error)
                print(f"round {turn + 1}  {shape.name:30} {name:17} not run: {error}", file=sys.stderr)
                continue
            figures.values.setdefault((shape.name, name), {})[turn] = found["rate"]
            busy = found["server_busy"], found["client_busy"]
            figures.busy.setdefault((shape.name, name), []).append(busy)
            line = f"round {turn + 1}  {shape.name:30} {name:17} {found['rate']:12,.0f}/s"
            line += f"   p99 {found['p99']:6.1f} ms   busy: server {busy[0]:.0%}, clients {busy[1]:.0%}"
            print(line, file=sys.stderr)


async def _all(stack: LocalStack, figures: Figures, *, rounds: int, scale: float) -> None:
    seconds = max(2.0, _SECONDS * scale)
    for turn in range(-1, rounds):  # the first round warms what it uses and does not count
        kept = figures if turn >= 0 else Figures()
        with all_on(stack, _REST):
            await _compared(stack, kept, turn, scale if turn >= 0 else scale / 4)
        try:
            kept.values.setdefault(("latency", "p99"), {})[turn] = p99 = await latency_p99(stack, seconds)
            print(f"round {turn + 1}  ack to client p99 {p99:.2f} ms", file=sys.stderr)
        except NotRun as error:
            kept.reasons["latency", "p99"] = str(error)
        try:
            rate, p99 = await recent_events(stack, seconds)
            print(f"round {turn + 1}  GET /events {rate:,.0f}/s, p99 {p99:.2f} ms", file=sys.stderr)
            kept.values.setdefault(("recent", "rate"), {})[turn] = rate
            kept.values.setdefault(("recent", "p99"), {})[turn] = p99
        except NotRun as error:
            kept.reasons["recent", "rate"] = kept.reasons["recent", "p99"] = str(error)


def _row(text: str, values: list[float], form: str, target: str, reason: str) -> str:
    if not values:
        return f"| {text} | not run ({reason}) | | {target} |"
    low, high = min(values), max(values)
    return f"| {text} | **{median(values):{form}}** | {low:{form}} to {high:{form}} | {target} |"


def _markdown(figures: Figures) -> str:
    """The two tables."""
    lines = ["| figure | median | spread | target |", "|---|---|---|---|"]
    for shape in SHAPES:
        upper = figures.values.get((shape.name, "ours"), {})
        lower = figures.values.get((shape.name, shape.peer), {})
        ratios = [upper[turn] / lower[turn] for turn in upper.keys() & lower.keys()]
        reason = figures.reasons.get((shape.name, "ours")) or figures.reasons.get(
            (shape.name, shape.peer), ""
        )
        text = f"deliveries/s, {shape.name}: ours / {shape.peer}"
        lines.append(_row(text, ratios, ".2f", f"≥ {shape.target:g}", reason))
    steady = "10,000 events/s over 500 sources"
    for key, text, form, target in (
        (("latency", "p99"), f"ack to WebSocket client p99, {steady}, 500 clients, ms", ".1f", "≤ 20"),
        (("recent", "rate"), f"`GET /events` while {steady} are applied, requests/s", ",.0f", "≥ 2,000"),
        (("recent", "p99"), "the same, p99, ms", ".1f", "≤ 20"),
    ):
        values = list(figures.values.get(key, {}).values())
        lines.append(_row(text, values, form, target, figures.reasons.get(key, "")))
    names = [shape.name for shape in SHAPES]
    lines += ["", "| deliveries/s, median (busy: server, clients) | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for server in ("ours", "centrifuge", "centrifuge, 5 ms"):
        lines.append(f"| {server} | " + " | ".join(_cell(figures, name, server) for name in names) + " |")
    return "\n".join(lines)


def _cell(figures: Figures, shape: str, server: str) -> str:
    values = figures.values.get((shape, server))
    if not values:
        return f"not run ({figures.reasons.get((shape, server), '')})"
    serving, hearing = (median(busy) for busy in zip(*figures.busy[shape, server], strict=True))
    return f"{median(values.values()):,.0f} ({serving:.0%}, {hearing:.0%})"


def fanout(stack: LocalStack, *, rounds: int, quick: bool) -> str:
    """Every figure, round by round; what was measured before Ctrl-C counts."""
    binary()
    figures = Figures()
    try:
        uvloop.run(_all(stack, figures, rounds=1 if quick else rounds, scale=0.2 if quick else 1.0))
    except KeyboardInterrupt:
        print("interrupted: the table has what was measured", file=sys.stderr)
    return _markdown(figures)
