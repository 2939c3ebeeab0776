"""The generator's timer: nobody is woken early, in the order of their times, by a timer file and without."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest
import uvloop

from dualstream_lab.load import timer as module
from dualstream_lab.load.timer import Timer

MS = 1_000_000


@pytest.fixture(params=["timer file", "the loop's timers"])
def timer(request, monkeypatch) -> Timer:
    if request.param != "timer file":
        monkeypatch.setattr(module._TimerFile, "opened", lambda: None)
    return Timer()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_all_are_woken_in_order_and_never_early(timer, run):
    woken: list[tuple[int, int]] = []

    async def wait(at: int) -> None:
        await timer.wait_until(at)
        woken.append((at, time.monotonic_ns()))

    async def main() -> None:
        zero = time.monotonic_ns() + 500 * MS  # when the last of them certainly waits
        times = [zero + n * MS // 5 for n in range(100)]
        Random(1).shuffle(times)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for at in times:
                group.create_task(wait(at))

    run(main())
    assert len(woken) == 100
    assert woken == sorted(woken)
    assert all(now >= at for at, now in woken)


async def test_who_waits_for_long_is_woken_when_the_timer_is_stopped(timer):
    task = asyncio.create_task(timer.wait_until(time.monotonic_ns() + 3600_000 * MS))
    await asyncio.sleep(0)
    assert not task.done()
    timer.wake_all()
    async with asyncio.timeout(30):
        await task


async def test_one_that_no_longer_waits_holds_up_nobody(timer):
    zero = time.monotonic_ns()
    first, second = (asyncio.create_task(timer.wait_until(zero + n * 20 * MS)) for n in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(30):
        await second
    assert first.cancelled()
    async with asyncio.timeout(30):  # and it can be used again
        await timer.wait_until(time.monotonic_ns() + 5 * MS)
