"""What the Python peers share: the task, the events (made before the clock starts) and the result line."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from dualstream_lab.event import Event


@dataclass(frozen=True)
class Task:
    """One run. ``batch`` 0: single events, ``in_flight`` callers. ``hot``: nine of ten are of one source."""

    kafka: str
    redis: str | None
    topic: str
    batch: int
    in_flight: int
    size: int
    events: int
    sources: int = 500
    hot: bool = False
    tuned: bool = False

    @classmethod
    def read(cls) -> Task:
        return cls(**json.loads(sys.argv[1]))

    def source(self, number: int) -> str:
        return f"owner/repo-{0 if self.hot and number % 10 else (number * 7) % self.sources}"

    def make(self) -> list[Event]:
        """Events whose whole value has about ``size`` bytes."""
        data = msgspec.Raw(b'"' + b"x" * max(1, self.size - 172) + b'"')
        return [
            Event(type="push.created", source_type="repo", source_id=self.source(number), data=data)
            for number in range(self.events)
        ]


async def spend(
    task: Task, one: Callable[[Event], Awaitable[Any]], many: Callable[[list[Event]], Awaitable[Any]]
) -> float:
    """Send all events by the task's shape; returns when the clock started."""
    import asyncio

    events = task.make()
    work: Iterator[Any]
    if task.batch:
        work = iter([events[i : i + task.batch] for i in range(0, len(events), task.batch)])
        send: Callable[[Any], Awaitable[Any]] = many
    else:
        work, send = iter(events), one

    async def caller() -> None:
        for item in work:
            await send(item)

    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(task.in_flight)))
    return started


def report(*, acked: int, notified: int, dropped: int, seconds: float) -> None:
    print(
        json.dumps(
            {
                "acked": acked,
                "notified": notified,
                "dropped": dropped,
                "seconds": seconds,
                "cpu": time.process_time(),
            }
        )
    )
