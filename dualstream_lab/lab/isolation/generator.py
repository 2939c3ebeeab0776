"""The generator of a proof, in a process of its own: one warm publisher, block after block.

``python -m dualstream_lab.lab.isolation.generator`` is not for people: see :mod:`dualstream_lab.load.child`.
It is told ``block {…}``, ``start NS``, ``stop``, again and again. Between blocks nothing is sent, so that the
counters of each add up; what was measured is written only then, as the writing would be measured, too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dualstream_lab.config import Settings
from dualstream_lab.lab.isolation.third_party import ThirdPartyPublisher, load_maker
from dualstream_lab.load.child import Orders, say, serve
from dualstream_lab.load.driver import Call, Driver
from dualstream_lab.load.recorder import PublishRecorder
from dualstream_lab.load.warm_up import load_headers, warm_up
from dualstream_lab.publisher import DualPublisher
from dualstream_lab.tasks import beside, end_tasks
from dualstream_lab.workload import RunIds, Workload

if TYPE_CHECKING:
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]

__all__: list[str] = []

_NEVER = 1e9  # s
_ERRORS = 5  # different ones of a block are told
_BEHIND = 15.0  # s that a publisher has to make up for what it is behind


class _Block(PublishRecorder):
    """Keeps a block's rows until it is over."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "sender", period=_NEVER)
        # Arrays and plain numbers: nothing that the garbage collector would look through again and again.
        self._kept: dict[str, list[Any]] = {"seq": []}
        self._errors: set[str] = set()
        self.newest = 0
        self.meter.level("published.rss_begin_mib", self._process.memory_info().rss / 2**20)

    def rows(self, seq: Integers, *, kind: str | None = None, **columns: Any) -> None:  # noqa: ARG002
        for name, column in columns.items():
            self._kept.setdefault(name, []).append(column)
        self._kept["seq"].append(seq)

    def sending(self, seq: Integers, intended: int, in_flight: int) -> None:
        super().sending(seq, intended, in_flight)
        self.newest = intended

    def settled(self, call: Call) -> None:
        super().settled(call)
        if call.error is not None:
            text = str(call.error)[:200]
            if len(self._errors) < _ERRORS:
                self._errors.add(text)
            if text in self._errors:
                self.meter.count(f"error: {text}", len(call))

    def close(self) -> None:
        """Now they are written."""
        if seqs := self._kept["seq"]:
            columns: dict[str, Any] = {
                name: np.concatenate(
                    # a plain number stands for so many of it
                    [np.broadcast_to(np.asarray(one, np.int64), len(seq))
                     for one, seq in zip(kept, seqs, strict=True)]
                )
                for name, kept in self._kept.items()
            }  # fmt: skip
            super().rows(columns.pop("seq"), **columns)
        self._kept = {"seq": []}
        super().close()


async def _block(
    publisher: DualPublisher | ThirdPartyPublisher, task: dict[str, Any], orders: Orders
) -> dict[str, Any] | None:
    """One block, from its warm-up to its rows on the disk; None when the parent has gone."""
    workload = Workload(**task["workload"])
    sent = await warm_up(publisher, workload, task["warm_up"], task["lanes"])
    # Not the generator's own setting, which spares throughput for pauses of 10 ms: Python's, as in most
    # programs, so that a pause is what the publisher's garbage makes of it.
    gc.collect()
    gc.freeze()
    sink = _Block(Path(task["directory"]))
    if isinstance(publisher, DualPublisher):
        sink.watch(publisher)
    driver = Driver(publisher, workload, workload.catalogue(RunIds(task["ids"])), sink)
    say(ready={"warm_up": sent})
    if not (order := await orders.next()):
        sink.close()
        return None
    sink.started = int(order.split()[1])
    driver.start(sink.started)
    watching = asyncio.create_task(sink.run())
    stopping = asyncio.create_task(_stop(driver, sink, workload, orders))
    await beside([watching], driver.run(task["lanes"]))
    await publisher.flush()
    await end_tasks([watching])
    sink.close()
    return {} if await stopping else None


async def _stop(driver: Driver, sink: _Block, workload: Workload, orders: Orders) -> str:
    """When told to, but not before what was due is sent: a publisher that is late is not spared its delay.

    The plan is longer than any block, so that this order comes first.
    """
    order = await orders.next()
    now = time.monotonic_ns()
    while order and sink.newest < now - 2e9 * workload.batch / workload.rate:
        if time.monotonic_ns() > now + _BEHIND * 1e9:
            break
        await asyncio.sleep(0.01)
    driver.stop()
    return order


async def _main(task: dict[str, Any], orders: Orders) -> dict[str, Any]:
    """First the file, then (the brokers have to start) where to publish, then the blocks."""
    sys.stdout = sys.stderr  # what the file prints is for the log
    file = Path(task["publisher"]) if task["publisher"] else None
    maker = load_maker(file) if file else None
    say(loaded=True)
    if not (line := await orders.next()):
        return {}
    first = json.loads(line)
    settings = Settings(**first["settings"])
    async with AsyncExitStack() as exits:
        publisher: DualPublisher | ThirdPartyPublisher
        if maker is None or file is None:
            ours = DualPublisher(settings, headers=load_headers(first["run"]))
            publisher = await exits.enter_async_context(ours)
        else:
            publisher = await ThirdPartyPublisher.make(maker, file, settings)
            exits.push_async_callback(publisher.close)
        sent = await warm_up(publisher, Workload(**first["workload"]), first["warm_up"], first["lanes"])
        say(ready={"warm_up": sent})
        while line := await orders.next():
            if (done := await _block(publisher, json.loads(line), orders)) is None:
                break
            say(block=done)
    return {}


if __name__ == "__main__":
    serve(_main)
