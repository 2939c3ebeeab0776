"""One measurement: a generator and those who listen, each a process of its own, into a run directory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import psutil

from dualstream_lab.lab.result import Run
from dualstream_lab.load.driver import time_limit
from dualstream_lab.load.measures import totals_of
from dualstream_lab.load.session import Session, new_manifest
from dualstream_lab.recording import LatencyHistogram, RunDirectory
from dualstream_lab.tasks import until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dualstream_lab.config import Settings
    from dualstream_lab.workload import Workload

__all__ = ["Loaded", "Measurement"]

_READY: Final = 60.0
_LEAD: Final = 300_000_000  # ns between the order to start and the plan's zero
_DONE: Final = 60.0
_LANES: Final = 256
_ROWS: Final = 500_000  # of what is delivered; of more, a sample is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What came of the load. ``delays``: Kafka's acknowledgement to delivered, of every delivery.

    ``cpu``: of each process, as a share of one core, while the plan ran. ``summary``: what those who listened
    say in the end.
    """

    run: Run
    delays: LatencyHistogram
    cpu: Mapping[str, float]
    summary: Mapping[str, Any]

    @property
    def machine(self) -> float:
        """The share of all cores that anybody used."""
        busy, idle = (self.run.verdict.counters.get(f"machine.{kind}_ms", 0) for kind in ("busy", "idle"))
        return busy / max(1, busy + idle)


@dataclass(kw_only=True)
class Measurement:
    """What to run. ``listener``: the module of those who listen, and ``task`` what they are told besides.

    ``deliveries``: of each event. ``processes``: more whose CPU counts, by name.

    Entering it starts the processes, warms the publisher, and leaves both idle; leaving it ends them. A run
    that was begun and not finished is kept as ``interrupted``; of one that was not begun nothing is.
    """

    name: str
    workload: Workload
    settings: Settings
    listener: str
    task: Mapping[str, Any]
    subscribers: int
    deliveries: int
    warm_up: float
    root: Path
    processes: Mapping[str, int | None] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        sample = max(1, -(-self.workload.expected * self.deliveries // _ROWS))
        users = {"lanes": _LANES, "subscribers": self.subscribers}
        manifest = new_manifest(self.settings, self.workload, name=self.name, users=users, sample=sample)
        self._session = Session(RunDirectory.create(self.root, self.name), manifest)
        self.listening = self._session.child(self.listener, "listener", self.settings, **self.task)
        self._generator = self._session.child(
            "dualstream_lab.load.generator", "generator", self.settings,
            workload=self.workload.as_dict(), lanes=_LANES, warm_up=self.warm_up,
        )  # fmt: skip
        async with AsyncExitStack() as exits:
            exits.callback(self._keep)
            for child in (self._generator, self.listening):
                await exits.enter_async_context(child)
            await asyncio.gather(
                self._generator.hear("ready", _READY + 2 * self.warm_up),
                self.listening.hear("ready", _READY),
            )
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def _keep(self) -> None:
        self._session.discard()
        if self._session.manifest.started and self._session.manifest.state == "running":
            self._session.end("interrupted")

    async def load(self) -> Loaded:
        """The plan, from its zero until all that was sent is settled and delivered."""
        directory = self._session.directory
        zero = self._session.start(self.listening, self._generator, lead=_LEAD)
        pids = {"publisher": self._generator.pid, "subscribers": self.listening.pid, **self.processes}
        await until(zero)
        before, begin = _cpu_seconds(pids), asyncio.get_running_loop().time()
        await self._generator.hear("done", time_limit(self.workload, self.settings) + _DONE)
        after, seconds = _cpu_seconds(pids), asyncio.get_running_loop().time() - begin
        self._session.end("finished")
        self.listening.tell("stop")
        summary = await self.listening.hear("done", _DONE)
        run = await asyncio.to_thread(Run.of, directory)
        directory.write_verdict(run.verdict.as_dict(directory))
        return Loaded(
            run=run,
            delays=totals_of(directory).histograms.get("live_delay", LatencyHistogram()),
            cpu={name: (after[name] - before[name]) / seconds for name in after.keys() & before.keys()},
            summary=summary,
        )


def _cpu_seconds(pids: Mapping[str, int | None]) -> dict[str, float]:
    """Of those that run."""
    found = {}
    for name, pid in pids.items():
        with suppress(psutil.NoSuchProcess):
            if pid:
                times = psutil.Process(pid).cpu_times()
                found[name] = times.user + times.system
    return found
