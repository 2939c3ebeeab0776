"""What calls leave behind for the garbage collector, whose pauses every publish waits for: nothing."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from dualstream_lab import DualPublisher, Event
from dualstream_lab.errors import DualStreamError

from .helpers import events, mute

if TYPE_CHECKING:
    from collections.abc import Iterator

_CALLERS = 50
_FEW = 100  # objects: of timers and reconnections now and then, not of every call


@pytest.fixture
def _uncollected() -> Iterator[None]:
    """Cycles stay where they are until the test looks."""
    gc.disable()
    yield
    gc.enable()


async def call_often(publisher: DualPublisher, calls: int, batches: list[list[Event]]) -> Counter[str]:
    """So many calls by some callers at once; returns how they ended."""
    ends: Counter[str] = Counter()

    async def caller() -> None:
        for number in range(calls // _CALLERS):
            batch = batches[number % len(batches)]
            try:
                if len(batch) == 1:
                    await publisher.publish(batch[0])
                else:
                    await publisher.publish_batch(batch)
            except DualStreamError as error:
                ends[type(error).__name__] += 1
            else:
                ends["durable"] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(caller())
    return ends


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize("size", [1, 10])
async def test_ten_thousand_calls_leave_no_cycles(settings, size):
    batches = [events(size, start=size * number) for number in range(20)]
    async with DualPublisher(settings()) as publisher:
        await call_often(publisher, 500, batches)
        assert await publisher.flush()
        gc.collect()
        assert await call_often(publisher, 10_000, batches) == {"durable": 10_000}
        assert await publisher.flush()
        assert gc.collect() < _FEW


@pytest.mark.usefixtures("_uncollected")
async def test_nor_do_calls_that_fail(stack, settings):
    short = {"buffer_timeout": 0.1, "delivery_timeout": 1, "close_timeout": 0.1}
    small = {"buffer_events": 1000, "batch_bytes": 10_000}
    bad = Event(type="", source_type="repo", source_id="owner/a")
    async with DualPublisher(settings(**short, **small)) as publisher:
        await publisher.publish_batch(events(10))
        gc.collect()
        await mute(stack.brokers[0])
        ends = await call_often(publisher, 200, [events(100)])
        ends += await call_often(publisher, 1000, [events(1001), [bad], [bad, bad]])
        assert gc.collect() < _FEW
        stack.brokers[0].resume()
    assert set(ends) == {"BufferFull", "EventError", "OutcomeUnknown", "PublishRejected"}
