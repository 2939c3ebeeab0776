"""The processes of a proof, and its blocks: each a run directory of its own."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dualstream_lab.faults.injector import carry_out
from dualstream_lab.faults.spec import FaultSpec, fault_named
from dualstream_lab.lab.isolation.background_load import Others
from dualstream_lab.load.child import Child
from dualstream_lab.recording import Clocks, IntervalWriter, Manifest, Meter, RunDirectory
from dualstream_lab.recording.manifest import safe_settings
from dualstream_lab.tasks import until
from dualstream_lab.workload import RunIds, Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from dualstream_lab.faults.fault import Target

__all__ = ["HEALTHY", "Session", "Timing", "open_sender"]

HEALTHY = "healthy"

_READY = 60.0
_LEAD = 100_000_000  # ns between the order to start and a plan's zero
_LANES = 256
_LIVE = 10.0  # s after the fault's end within which somebody must have heard something


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


class Session:
    """Makes blocks, one at a time, on a target that is ready for the faults.

    ``warm_up``: events that were sent before each, and are in no block.
    """

    def __init__(self, sender: Child, target: Target, timing: Timing, workload: Workload, root: Path) -> None:
        self._sender = sender
        self._target = target
        self._timing = timing
        self._workload = workload
        self._root = root
        self._witness: Child
        self._count = 0
        self.warm_up = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """With the publisher made and warm, and the witness at work. Raises what they could not do."""
        task = {"settings": self._target.direct.model_dump()}
        async with Child(
            "dualstream_lab.lab.isolation.observer", "witness", task, self._root
        ) as self._witness:
            await self._witness.hear("ready", _READY)
            where = {
                "settings": self._target.settings.model_dump(),
                "workload": self._workload.as_dict(),
                "warm_up": self._timing.first,
                "lanes": _LANES,
                "run": self._root.name,
            }
            self._sender.tell(json.dumps(where))
            await self._warmed(_READY + 3 * self._timing.first)
            yield

    async def block(self, what: str) -> RunDirectory:
        """One block, healthy or with a fault. Raises FaultInert, with the block's state ``void``.

        Cancelled, it ends orderly, and its state is ``interrupted``.
        """
        self._count += 1
        directory = self._directory(what)
        await self._tell_all(directory)
        manifest, timing = directory.manifest, self._timing
        manifest.clocks = Clocks.now()
        manifest.started = manifest.clocks.monotonic + _LEAD
        directory.save()
        self._sender.tell(f"start {manifest.started}")
        others = Others()
        try:
            if what != HEALTHY:
                await self._fault(what, directory)
            await until(manifest.started + round((timing.head + timing.length) * 1e9))
            manifest.state = "finished"
        except asyncio.CancelledError:
            manifest.state = "interrupted"
            raise
        except Exception:
            manifest.state = "void"
            raise
        finally:
            meter = Meter("machine")
            meter.level("machine.others", others.cores())
            await self._end(directory)
            writer = IntervalWriter(directory.path, "machine")
            writer.write(meter.take())
            writer.close()
        return directory

    def _directory(self, what: str) -> RunDirectory:
        path = self._root / f"{self._count:03d}-{what}"
        path.mkdir()
        run = uuid4()
        manifest = Manifest(
            name=what,
            run=str(run),
            ids=RunIds.of_run(run).prefix,
            clocks=Clocks.now(),
            workload=self._workload.as_dict(),
            settings=safe_settings(self._target.direct),
            users={"lanes": _LANES, "subscribers": 1},
            engine="prove",
        )
        directory = RunDirectory(path, manifest)
        directory.save()
        return directory

    async def _tell_all(self, directory: RunDirectory) -> None:
        task: dict[str, Any] = {
            "directory": str(directory.path),
            "ids": directory.manifest.ids,
            "workload": self._workload.as_dict(),
        }
        self._witness.tell(json.dumps(task))
        await self._witness.hear("ready", _READY)
        task |= {"warm_up": self._timing.warm_up, "lanes": _LANES}
        self._sender.tell(json.dumps(task))
        directory.manifest.warm_up = await self._warmed(_READY)

    async def _warmed(self, timeout: float) -> int:
        """Wait until the sender is ready; how many events it sent for it."""
        sent: int = (await self._sender.hear("ready", timeout))["warm_up"]
        self.warm_up += sent
        return sent

    async def _fault(self, what: str, directory: RunDirectory) -> None:
        """From its begin until somebody hears of an event that was published after its end."""
        timing, manifest = self._timing, directory.manifest
        length = 0.0 if fault_named(what).instant else timing.length - timing.after
        spec = FaultSpec(what=what, at=timing.head, length=length)
        await carry_out([spec], self._target, directory, lambda _line: None)
        ended = (manifest.faults[0].end - manifest.started) / 1e9
        batch = self._workload.batch
        first = (int(ended * self._workload.rate / batch) + 1) * batch
        self._witness.tell(f"await {first} {_LIVE:g}")
        await self._witness.hear("live", _LIVE + _READY)

    async def _end(self, directory: RunDirectory) -> None:
        """Let all that is open end, and have it written."""
        self._sender.tell("stop")
        await self._sender.hear("block", 2 * _READY)
        directory.manifest.ended = time.monotonic_ns()
        directory.save()
        self._witness.tell("end")
        await self._witness.hear("block", _READY)
