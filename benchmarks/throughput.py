"""Every peer in every shape, interleaved: round by round, one after the other, each on a topic of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from benchmarks.peer import PEERS, NotRun, Peer
from benchmarks.table import Figures, Sample
from dualstream_lab.load.session import cpu_seconds
from dualstream_lab.stack import LocalStack

__all__ = ["SHAPES", "WARM_UPS", "delete_topic", "measure", "side"]


WARM_UPS = 3


@dataclass(frozen=True)
class Shape:
    """``batch`` 0 is single events."""

    name: str
    batch: int
    in_flight: int
    events: int
    size: int = 300
    hot: bool = False


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("batches of 1000", 1000, 4, 400_000),
        Shape("batches of 200", 200, 4, 300_000),
        Shape("singles, 20 callers", 0, 20, 40_000),
        Shape("singles, 100 callers", 0, 100, 100_000),
        Shape("singles, 400 callers", 0, 400, 150_000),
        Shape("8 kB, batches of 1000", 1000, 4, 40_000, size=8000),
        Shape("one hot source", 1000, 4, 300_000, hot=True),
    )
}


@contextmanager
def side(kind: str, url: str) -> Iterator[dict[str, float]]:
    """A process at Redis; its quantiles are in the dictionary after the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.redis_side", kind, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    found: dict[str, float] = {}
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield found
        out, _ = process.communicate(timeout=30)
        found.update(json.loads(out))
    finally:
        process.kill()
        process.communicate()


def measure(
    stack: LocalStack, figures: Figures, *, peers: list[str], shapes: list[str], rounds: int, scale: float
) -> None:
    """Fill ``figures``, round by round, so that what was measured before Ctrl-C counts."""
    # The broker's JVM compiles what it uses; a first round would be measured against a slower broker.
    for _ in range(WARM_UPS):
        with suppress(NotRun):
            _one(stack, PEERS["ours"], SHAPES["batches of 1000"], scale)
    for turn in range(rounds):
        for shape in shapes:
            for name in peers:
                if not (SHAPES[shape].batch or PEERS[name].single):
                    continue
                try:
                    sample = _one(stack, PEERS[name], SHAPES[shape], scale)
                except NotRun as error:
                    figures.reasons[shape, name] = str(error)
                    print(f"round {turn + 1}  {shape:24} {name:32} not run: {error}", file=sys.stderr)
                    continue
                figures.add(shape, name, turn, sample)
                line = f"round {turn + 1}  {shape:24} {name:32} {sample.rate:10,.0f}/s   {sample.cpu_text}"
                print(line, file=sys.stderr)


def _one(stack: LocalStack, peer: Peer, shape: Shape, scale: float) -> Sample:
    topic = f"bench-{uuid4().hex[:10]}"
    stack.create_topic(topic, partitions=6)
    share = scale * (peer.scale if shape.batch else peer.single_scale)
    events = max(1000, int(shape.events * share) // 1000 * 1000)
    task: dict[str, object] = {
        "kafka": stack.kafka_url,
        "redis": stack.redis_url if peer.redis else None,
        "topic": topic,
        "batch": shape.batch,
        "in_flight": shape.in_flight,
        "sources": 500,
        "size": shape.size,
        "events": events,
        "hot": shape.hot,
    }
    servers = {"Kafka": stack.brokers[0].pid, "Redis": stack.redis.pid}
    try:
        peer.command()  # what is to be built or fetched first is not measured
        with side("drain", stack.redis_url), side("ping", stack.redis_url) as ping:
            before = cpu_seconds(servers)
            result = peer.run(task)
            after = cpu_seconds(servers)
    finally:
        asyncio.run(delete_topic(stack.kafka_url, topic))
    rate = result.rate(events, redis=peer.redis)
    spent = {"client": result.cpu} | {name: after[name] - before[name] for name in servers}
    cpu = {name: seconds / events * 1e6 for name, seconds in spent.items()}
    return Sample(rate=rate, cpu=cpu, ping=ping["p99"] if peer.redis else None)


async def delete_topic(url: str, topic: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=url)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()
