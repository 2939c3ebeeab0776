"""Carries out a scenario's faults on a local stack, and notes when they really were."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dualstream_lab.load.tasks import in_thread
from dualstream_lab.recording import FaultRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dualstream_lab.lab.scenario import Fault
    from dualstream_lab.recording import RunDirectory
    from dualstream_lab.stack import LocalStack

__all__ = ["carry_out"]


async def carry_out(
    faults: Sequence[Fault], stack: LocalStack, directory: RunDirectory, say: Callable[[str], None]
) -> None:
    """Every fault at its time. However it ends, every server runs again and every fault has its end."""
    try:
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(_one(fault, stack, directory, say))
    finally:
        # also when interrupted: nothing stays killed or paused
        await in_thread(_mend, stack)


async def _one(fault: Fault, stack: LocalStack, directory: RunDirectory, say: Callable[[str], None]) -> None:
    target, _, verb = fault.what.partition(".")
    process = stack.redis if target == "redis" else stack.brokers[0]
    name = "Redis" if target == "redis" else "Kafka"
    zero = directory.manifest.started
    await _until(zero + round(fault.at * 1e9))
    faults = directory.manifest.faults
    place = len(faults)
    faults.append(FaultRecord(what=fault.what, begin=time.monotonic_ns()))
    say(f"{name} is {'stopped' if verb == 'stop' else 'killed'}")
    try:
        await in_thread(process.pause if verb == "stop" else process.kill)
        directory.save()
        await _until(zero + round((fault.at + fault.length) * 1e9))
        await in_thread(process.resume if verb == "stop" else process.start)
    finally:
        faults[place] = replace(faults[place], end=time.monotonic_ns())
        directory.save()
    say(f"{name} is back")


async def _until(at: int) -> None:
    await asyncio.sleep(max(0, at - time.monotonic_ns()) / 1e9)


def _mend(stack: LocalStack) -> None:
    for process in (*stack.brokers, stack.redis):
        if process.paused:
            process.resume()
        process.start()
