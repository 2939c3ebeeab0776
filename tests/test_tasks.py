"""Background tasks end for certain, and one that dies is noticed."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dualstream_lab.tasks import beside, end_tasks, in_thread


class Swallowing:
    """What asyncio.wait_for of Python 3.11 can make of a task: so many cancellations are lost."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.times:
                    raise
                self.times -= 1


async def failing() -> None:
    raise ValueError("no")


async def begun(*works) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.sleep(0)
    return tasks


async def test_tasks_end_also_those_that_swallowed_a_cancellation_or_failed():
    tasks = await begun(asyncio.sleep(60), Swallowing(1).run(), failing())
    began = time.monotonic()
    assert await end_tasks(tasks) == set()
    assert all(task.done() for task in tasks)
    assert time.monotonic() - began < 20
    assert await end_tasks([]) == set()


async def test_a_task_that_never_ends_is_named_and_not_waited_for():
    never = Swallowing(10**6)
    tasks = await begun(asyncio.sleep(60), never.run())
    began = time.monotonic()
    left = await end_tasks(tasks, timeout=0.2)
    assert left == {tasks[1]}
    assert 0.2 <= time.monotonic() - began < 20
    never.times = 0
    await end_tasks(left)


async def test_work_is_done_beside_tasks_that_go_on():
    tasks = await begun(asyncio.sleep(60))
    assert await beside(tasks, asyncio.sleep(0.01, "done")) == "done"
    assert not tasks[0].done()
    await end_tasks(tasks)


async def test_a_task_that_dies_ends_the_work_with_its_error():
    work = asyncio.Event()
    ended = []

    async def wait() -> None:
        try:
            await work.wait()
        finally:
            ended.append(True)

    tasks = await begun(asyncio.sleep(60), failing())
    with pytest.raises(ValueError, match="no"):
        await beside(tasks, wait())
    assert ended, "the work is over before its error is told"
    await end_tasks(tasks)


async def test_a_thread_at_work_is_waited_for_also_when_cancelled_twice():
    go, done = threading.Event(), []

    def work() -> None:
        go.wait(60)
        done.append(True)

    (task,) = await begun(in_thread(work))
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done

    def fail() -> None:
        raise ValueError("no")

    assert await in_thread(len, "abc") == 3
    with pytest.raises(ValueError, match="no"):
        await in_thread(fail)
