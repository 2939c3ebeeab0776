"""The processes of a proof, and its blocks: each a run directory of its own."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from dualstream_lab.faults.injector import carry_out
from dualstream_lab.faults.spec import FaultSpec, fault_named
from dualstream_lab.load.child import Child
from dualstream_lab.load.session import Session, cpu_seconds, new_manifest
from dualstream_lab.recording import IntervalWriter, Meter, RunDirectory
from dualstream_lab.tasks import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dualstream_lab.faults.fault import Target
    from dualstream_lab.workload import Workload

__all__ = ["HEALTHY", "Blocks", "Timing", "open_sender"]

HEALTHY = "healthy"

_READY = 60.0
_LEAD = 100_000_000  # ns between the order to start and a plan's zero
_LANES = 256
_LIVE = 10.0  # s after the fault's end within which somebody must have received something
_KINDS = 8  # of psutil's CPU times; what guests use is within what users use


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a block. ``warm_up``: load before it that is not recorded; ``head``: recorded, not judged;
    ``length``: judged, by intended time. A fault begins with the judged part and ends ``after`` before its
    end, so that the return of Redis is judged, too. ``first``: the warm-up before all blocks.
    """

    length: float = 4.0
    after: float = 1.0
    head: float = 0.1
    warm_up: float = 0.2
    first: float = 40.0


@asynccontextmanager
async def open_sender(publisher: Path | None, directory: Path) -> AsyncIterator[Child]:
    """The sender, before there are brokers. Raises ConfigError for a publisher's file that cannot be used."""
    task = {"publisher": None if publisher is None else str(publisher)}
    async with Child("dualstream_lab.lab.isolation.generator", "sender", task, directory) as sender:
        await sender.hear("loaded", _READY)
        yield sender


@dataclass
class Blocks:
    """Makes blocks, one at a time, on a target that is ready for the faults.

    ``warm_up``: events that were sent before each, and are in no block.
    """

    sender: Child
    target: Target
    timing: Timing
    workload: Workload
    root: Path
    count: int = 0
    warm_up: int = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """With the publisher made and warm, and the observer at work. Raises what they could not do."""
        module, task = "dualstream_lab.lab.isolation.observer", {"settings": self.target.direct.model_dump()}
        async with Child(module, "witness", task, self.root) as self._observer:
            await self._observer.hear("ready", _READY)
            settings, first = self.target.settings.model_dump(), self.timing.first
            await self._warm(_READY + 3 * first, settings=settings, warm_up=first, run=self.root.name)
            yield

    async def _warm(self, timeout: float, **task: Any) -> int:
        """Tell the sender what is next, and wait until it is ready; how many events it sent for it."""
        self.sender.tell(json.dumps(task | {"workload": self.workload.as_dict(), "lanes": _LANES}))
        sent: int = (await self.sender.hear("ready", timeout))["warm_up"]
        self.warm_up += sent
        return sent

    async def block(self, arm: str) -> RunDirectory:
        """One block, healthy or with a fault. Raises FaultInert, with the block's state ``void``.

        Cancelled, it ends orderly, and its state is ``interrupted``.
        """
        self.count += 1
        path = self.root / f"{self.count:03d}-{arm}"
        path.mkdir()
        users = {"lanes": _LANES, "subscribers": 1}
        manifest = new_manifest(self.target.direct, self.workload, name=arm, users=users, engine="prove")
        run = Session(path, manifest)
        task = {"directory": str(path), "ids": manifest.ids}
        self._observer.tell(json.dumps(task | {"workload": self.workload.as_dict()}))
        await self._observer.hear("ready", _READY)
        manifest.warm_up = await self._warm(_READY, warm_up=self.timing.warm_up, **task)
        zero = run.start(self.sender, lead=_LEAD)
        background = _BackgroundLoad()
        state = "void"
        try:
            if arm != HEALTHY:
                await self._fault(arm, run.directory)
            await until(zero + round((self.timing.head + self.timing.length) * 1e9))
            state = "finished"
        except asyncio.CancelledError:
            state = "interrupted"
            raise
        finally:
            meter = Meter("machine")
            meter.level("machine.others", background.cores())
            self.sender.tell("stop")
            await self.sender.hear("block", 2 * _READY)
            run.end(state)
            self._observer.tell("end")
            await self._observer.hear("block", _READY)
            writer = IntervalWriter(path, "machine")
            writer.write(meter.take())
            writer.close()
        return run.directory

    async def _fault(self, name: str, directory: RunDirectory) -> None:
        """From its begin until somebody receives an event that was published after its end."""
        timing, manifest = self.timing, directory.manifest
        length = 0.0 if fault_named(name).instant else timing.length - timing.after
        spec = FaultSpec(what=name, at=timing.head, length=length)
        await carry_out([spec], self.target, directory, lambda _line: None)
        ended = (manifest.faults[0].end - manifest.started) / 1e9
        batch = self.workload.batch
        first = (int(ended * self.workload.rate / batch) + 1) * batch
        self._observer.tell(f"await {first} {_LIVE:g}")
        await self._observer.hear("live", _LIVE + _READY)


class _BackgroundLoad:
    """CPU of programs that are neither this one nor below it: then a block says nothing of the publisher."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all = _cpu_of_all()
        self._own = _cpu_of_own()

    def cores(self) -> float:
        """Until now. What processes of ours that have ended used counts as others': it is little."""
        own = sum(used - self._own.get(pid, 0.0) for pid, used in _cpu_of_own().items())
        seconds = max(1e-3, time.monotonic() - self._began)
        return max(0.0, _cpu_of_all() - self._all - own) / seconds


def _cpu_of_all() -> float:
    """CPU seconds of the machine."""
    times = psutil.cpu_times()
    return float(sum(times[:_KINDS])) - times.idle - getattr(times, "iowait", 0.0)


def _cpu_of_own() -> dict[int, float]:
    """CPU seconds of this process and all below it, by process id."""
    own = psutil.Process()
    pids = [own.pid, *(child.pid for child in own.children(recursive=True))]
    return cpu_seconds(dict(zip(pids, pids, strict=True)))
