"""The subscribers of the load engine on a real Redis: they come, they leave, and they end when told to."""

from __future__ import annotations

import asyncio

import pytest

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.load.subscriber import RedisSubscriber, all_ready
from dualstream_lab.tasks import end_tasks


def subscribers(url: str, count: int, **options) -> list[RedisSubscriber]:
    delivered = lambda number, message, now: None  # noqa: E731
    return [
        RedisSubscriber(url, ["events:*"], delivered, number=n, pattern=True, **options) for n in range(count)
    ]


async def ended(tasks: list[asyncio.Task]) -> bool:
    """Whether one cancellation ends them all."""
    for task in tasks:
        task.cancel()
    _, pending = await asyncio.wait(tasks, timeout=20)
    left = await end_tasks(pending)
    assert not left
    return not pending


async def test_a_subscriber_ends_at_whatever_moment_it_is_cancelled(stack):
    """redis-py's handshake, under a socket_timeout, swallows a cancellation that comes at a bad moment."""
    for moment in range(80):
        tasks = [asyncio.create_task(one.run()) for one in subscribers(stack.redis_url, 10)]
        for _ in range(moment):
            await asyncio.sleep(0)
        assert await ended(tasks), moment


@pytest.mark.parametrize("stay", [None, 30])
async def test_a_subscriber_ends_when_it_is_cancelled_as_its_connection_ends(stack, stay):
    """asyncio.wait_for of Python 3.11 swallows just this cancellation."""
    (one,) = subscribers(stack.redis_url, 1, stay=stay)
    task = asyncio.create_task(one.run())
    await all_ready([one], 30)
    await asyncio.sleep(0.05)
    one.connection_lost(None)
    await asyncio.sleep(0)
    assert await ended([task])


async def test_nobody_there_is_said_with_the_reason():
    made = subscribers("redis://127.0.0.1:1", 3)
    tasks = [asyncio.create_task(one.run()) for one in made]
    with pytest.raises(StreamUnavailable, match=r"3 of 3 subscribers could not .* connecting to 127.0.0.1:1"):
        await all_ready(made, 0.5)
    assert await ended(tasks)
