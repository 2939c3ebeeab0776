"""What the Python peers share: the task, the events (made before the clock starts) and the result line."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from dualstream_lab.event import Event, cloudevents_source


@dataclass(frozen=True)
class Task:
    """One run. ``batch`` 0: single events, ``in_flight`` callers. ``hot``: nine of ten are of one source.

    ``varied``: no two events of a batch have the same data; else all have, which compresses to nothing.
    """

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
    varied: bool = False
    compression: str = "none"

    @classmethod
    def read(cls) -> Task:
        return cls(**json.loads(sys.argv[-1]))

    def source(self, number: int) -> str:
        return f"owner/repo-{0 if self.hot and number % 10 else (number * 7) % self.sources}"

    def make(self) -> list[Event]:
        """Events whose whole value has about ``size`` bytes."""
        length = max(1, self.size - 172)
        data = [msgspec.Raw(b'"' + b"x" * length + b'"')]
        if self.varied:
            random = Random(1)
            data = [_pushed(random, length) for _ in range(min(self.events, _POOL // self.size))]
        return [
            Event(
                type="push.created",
                source_type="repo",
                source_id=self.source(number),
                data=data[number % len(data)],
            )
            for number in range(self.events)
        ]


# What a notification says of its log and its publisher, as long as ours.
EPOCH, NONCE = "0123456789ab", "0123456789abcd"

_POOL = 16 * 2**20  # bytes of data that differ; many times what waits for Kafka
_COMMIT = 150  # bytes, about
_WORDS = """
fix the race between close and flush see linked run for failing step bumps parser adds test empty input
removes stale flag handle timeout retry client server config update docs typo release build cache index query
store reader writer batch event stream topic partition offset lag metric trace span merge branch default
""".split()  # noqa: SIM905


def _pushed(random: Random, length: int) -> msgspec.Raw:
    """JSON of about ``length`` bytes, as a webhook tells of a push: names and words repeat, hashes do not."""
    person = f"user{random.randrange(5000)}"
    data: dict[str, Any] = {"ref": "refs/heads/main", "after": _hash(random), "by": person, "commits": []}
    while len(encoded := msgspec.json.encode(data)) + _COMMIT < length:
        data["commits"].append(
            {
                "id": _hash(random),
                "message": " ".join(random.choices(_WORDS, k=random.randrange(3, 15))),
                "author": {"name": person, "email": f"{person}@example.com"},
                "modified": [f"src/{random.choice(_WORDS)}/{random.choice(_WORDS)}.py"],
            }
        )
    return msgspec.Raw(encoded)


def _hash(random: Random) -> str:
    return f"{random.getrandbits(160):040x}"


class Clock:
    """Wall and CPU seconds of sending, from now on: the events are made, and nothing is sent yet."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self.seconds = self.cpu = 0.0

    def stop(self) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._began, time.process_time() - self._cpu

    def report(self, *, acked: int, notified: int = 0, dropped: int = 0) -> None:
        counts = {"acked": acked, "notified": notified, "dropped": dropped}
        print(json.dumps(counts | {"seconds": self.seconds, "cpu": self.cpu}))


async def spend(
    task: Task, one: Callable[[Event], Awaitable[Any]], many: Callable[[list[Event]], Awaitable[Any]]
) -> Clock:
    """Send all events by the task's shape; returns the clock, which still runs."""
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

    clock = Clock()
    await asyncio.gather(*(caller() for _ in range(task.in_flight)))
    return clock


def event_headers(event: Event) -> list[tuple[str, bytes]]:
    """The Kafka headers of an event, CloudEvents 1.0 binary mode, made anew for each."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_type", event.type.encode()),
        ("ce_source", cloudevents_source(event.source_type, event.source_id).encode()),
        ("ce_time", msgspec.json.encode(event.occurred_at)[1:-1]),
        ("content-type", b"application/json"),
    ]
    if isinstance(event.traceparent, str):
        trace = event.traceparent.encode()
        headers += [("traceparent", trace), ("ce_traceparent", trace)]
    return headers
