"""One measurement: a generator and those who listen, each a process of its own, into a run directory."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import psutil

from dualstream_lab.lab.result import Run
from dualstream_lab.load.child import Child
from dualstream_lab.load.driver import time_limit
from dualstream_lab.load.measures import totals_of
from dualstream_lab.recording import Clocks, LatencyHistogram, Manifest, RunDirectory
from dualstream_lab.recording.manifest import safe_settings
from dualstream_lab.tasks import until
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dualstream_lab.config import Settings
    from dualstream_lab.workload import Workload

__all__ = ["Loaded", "Measurement", "Session"]

_READY: Final = 60.0
_LEAD: Final = 300_000_000  # ns between the order to start and the plan's zero
_DONE: Final = 60.0
_LANES: Final = 256
_ROWS: Final = 500_000  # of what is heard; of more, a sample is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What to run. ``listener``: the module of those who listen, and ``task`` what they are told besides.

    ``hears``: how often each event is heard. ``beside``: more processes whose CPU counts, by name.
    """

    name: str
    workload: Workload
    settings: Settings
    listener: str
    task: Mapping[str, Any]
    subscribers: int
    hears: int
    warm_up: float
    root: Path
    beside: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What came of the load. ``delays``: Kafka's acknowledgement to heard, of every delivery.

    ``cpu``: of each process, as a share of one core, while the plan ran. ``told``: what those who listened
    say in the end.
    """

    run: Run
    delays: LatencyHistogram
    cpu: Mapping[str, float]
    told: Mapping[str, Any]

    @property
    def machine(self) -> float:
        """The share of all cores that anybody used."""
        busy, idle = (self.run.verdict.counters.get(f"machine.{kind}_ms", 0) for kind in ("busy", "idle"))
        return busy / max(1, busy + idle)


class Session:
    """Entering it starts the processes, warms the publisher, and leaves both idle; leaving it ends them.

    A run that was begun and not finished is kept as ``interrupted``; of one that was not begun nothing is.
    """

    def __init__(self, plan: Measurement) -> None:
        self._plan = plan
        self._exits = AsyncExitStack()
        path = RunDirectory.create(plan.root, plan.name)
        run = uuid4()
        workload = plan.workload
        manifest = Manifest(
            name=plan.name,
            run=str(run),
            ids=RunIds.of_run(run).prefix,
            clocks=Clocks.now(),
            workload=workload.as_dict(),
            settings=safe_settings(plan.settings),
            users={"lanes": _LANES, "subscribers": plan.subscribers},
            sample=max(1, -(-workload.expected * plan.hears // _ROWS)),
        )
        self._directory = RunDirectory(path, manifest)
        self.listener = self._child(plan.listener, "listener", **plan.task)
        self._generator = self._child(
            "dualstream_lab.load.generator", "generator",
            workload=workload.as_dict(), lanes=_LANES, warm_up=plan.warm_up,
        )  # fmt: skip

    def _child(self, module: str, name: str, **more: Any) -> Child:
        manifest, path = self._directory.manifest, self._directory.path
        task = {
            "settings": self._plan.settings.model_dump(),
            "ids": manifest.ids,
            "run": manifest.run,
            "directory": str(path),
            "sample": manifest.sample,
        }
        return Child(module, name, task | more, path)

    async def __aenter__(self) -> Self:
        self._directory.save()
        self._exits.callback(self._keep)
        try:
            for child in (self._generator, self.listener):
                await self._exits.enter_async_context(child)
            await asyncio.gather(
                self._generator.hear("ready", _READY + 2 * self._plan.warm_up),
                self.listener.hear("ready", _READY),
            )
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def _keep(self) -> None:
        manifest = self._directory.manifest
        if not manifest.started:
            shutil.rmtree(self._directory.path, ignore_errors=True)
        elif manifest.state == "running":
            manifest.state, manifest.ended = "interrupted", time.monotonic_ns()
            self._directory.save()

    async def load(self) -> Loaded:
        """The plan, from its zero until all that was sent is settled and heard."""
        plan, directory = self._plan, self._directory
        manifest = directory.manifest
        manifest.clocks = Clocks.now()
        manifest.started = manifest.clocks.monotonic + _LEAD
        directory.save()
        for child in (self.listener, self._generator):
            child.tell(f"start {manifest.started}")
        processes = {"publisher": self._generator.pid, "subscribers": self.listener.pid} | dict(plan.beside)
        await until(manifest.started)
        before, begin = _cpu_seconds(processes), time.monotonic()
        await self._generator.hear("done", time_limit(plan.workload, plan.settings) + _DONE)
        spent, seconds = _cpu_seconds(processes), time.monotonic() - begin
        manifest.state, manifest.ended = "finished", time.monotonic_ns()
        directory.save()
        self.listener.tell("stop")
        told = await self.listener.hear("done", _DONE)
        run = await asyncio.to_thread(Run.of, directory)
        directory.write_verdict(run.verdict.as_dict(directory))
        return Loaded(
            run=run,
            delays=totals_of(directory).histograms.get("live_delay", LatencyHistogram()),
            cpu={name: (spent[name] - before[name]) / seconds for name in spent.keys() & before.keys()},
            told=told,
        )


def _cpu_seconds(processes: Mapping[str, int | None]) -> dict[str, float]:
    """Of those that run."""
    found = {}
    for name, pid in processes.items():
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times() if pid else None
            if times is not None:
                found[name] = times.user + times.system
    return found
