"""What each codec costs and saves: events that differ as GitHub's do, in batches of 1000.

Bytes are those of the topic's log on the broker, which keeps batches as they were sent.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from uuid import uuid4

from benchmarks.peer import PEERS, NotRun
from benchmarks.throughput import WARM_UPS, delete_topic, side
from dualstream_lab.stack import LocalStack

__all__ = ["CODECS", "Sizes", "compression", "markdown"]

CODECS = ("none", "lz4", "snappy", "zstd", "gzip")
_EVENTS = {300: 200_000, 8000: 20_000}  # by their size in bytes


@dataclass
class Sizes:
    """What was measured of events of one size: by codec, a figure a round."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    bytes: dict[str, list[float]] = field(default_factory=dict)

    def add(self, codec: str, rate: float, size: float) -> None:
        self.rates.setdefault(codec, []).append(rate)
        self.bytes.setdefault(codec, []).append(size)

    def ratio(self, codec: str) -> float:
        """Its events/s to those without a codec, median of the rounds."""
        return median(a / b for a, b in zip(self.rates[codec], self.rates["none"], strict=True))


def compression(stack: LocalStack, *, rounds: int, quick: bool = False) -> str:
    """The table. All codecs in every round, one after the other."""
    found = {size: Sizes() for size in _EVENTS}
    scale = 0.1 if quick else 1.0
    for _ in range(WARM_UPS):
        with suppress(NotRun):
            _one(stack, "none", 300, scale)
    for turn in range(1 if quick else rounds):
        for size, sizes in found.items():
            for codec in CODECS:
                rate, wire = _one(stack, codec, size, scale)
                sizes.add(codec, rate, wire)
                line = f"round {turn + 1}  {size:5} B  {codec:7} {rate:10,.0f}/s {wire:8,.0f} B an event"
                print(line, file=sys.stderr)
    return markdown(found)


def _one(stack: LocalStack, codec: str, size: int, scale: float) -> tuple[float, float]:
    """events/s, and bytes an event."""
    topic = f"bench-{uuid4().hex[:10]}"
    stack.create_topic(topic, partitions=6)
    events = max(2000, int(_EVENTS[size] * scale) // 1000 * 1000)
    task: dict[str, object] = {
        "kafka": stack.kafka_url,
        "redis": stack.redis_url,
        "topic": topic,
        "batch": 1000,
        "in_flight": 4,
        "size": size,
        "events": events,
        "varied": True,
        "compression": codec,
    }
    try:
        with side("drain", stack.redis_url):
            result = PEERS["ours"].run(task)
        logs = stack.directory.glob(f"kafka-*/data/{topic}-*/*.log")
        written = sum(log.stat().st_size for log in logs)
    finally:
        asyncio.run(delete_topic(stack.kafka_url, topic))
    return result.rate(events, redis=True), written / events


def markdown(found: dict[int, Sizes]) -> str:
    """A line a codec."""
    heads = [f"{size} B: bytes an event | events/s | to none" for size in found]
    lines = [f"| codec | {' | '.join(heads)} |", "|---" * (1 + 3 * len(found)) + "|"]
    for codec in CODECS:
        cells = [
            f"{median(sizes.bytes[codec]):,.0f} | {median(sizes.rates[codec]):,.0f} | "
            f"{sizes.ratio(codec):.2f}"
            for sizes in found.values()
        ]
        lines.append(f"| {codec} | {' | '.join(cells)} |")
    return "\n".join(lines)
