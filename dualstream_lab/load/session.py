"""The life of a run: its directory and the processes that fill it, its zero and its end."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import psutil

from dualstream_lab.load.child import Child
from dualstream_lab.recording import Clocks, Manifest, RunDirectory
from dualstream_lab.recording.manifest import safe_settings
from dualstream_lab.stack import LocalStack
from dualstream_lab.tasks import in_thread
from dualstream_lab.workload import RunIds, Workload

if TYPE_CHECKING:
    from dualstream_lab.config import Settings

K = TypeVar("K")


def new_manifest(settings: Settings, workload: Workload, **fields: Any) -> Manifest:
    """Of a run with ids of its own. ``fields``: the other ones of a manifest."""
    run = uuid4()
    return Manifest(
        run=str(run),
        ids=RunIds.of_run(run).prefix,
        clocks=Clocks.now(),
        workload=workload.as_dict(),
        settings=safe_settings(settings),
        **fields,
    )


class Session:
    """One run in the directory ``path``, from its first manifest to its last."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self.directory = RunDirectory(path, manifest)
        self.directory.save()

    def child(self, module: str, name: str, settings: Settings, **task: Any) -> Child:
        """A process of this run; ``task``: what it is told besides."""
        manifest, path = self.manifest, self.directory.path
        facts = {"ids": manifest.ids, "run": manifest.run, "sample": manifest.sample}
        known = {"settings": settings.model_dump(), "directory": str(path)}
        return Child(module, name, known | facts | task, path)

    def generator(self, settings: Settings, workload: Workload, *, concurrency: int, warm_up: float) -> Child:
        """The process that publishes the workload."""
        return self.child(
            "dualstream_lab.load.generator", "generator", settings,
            workload=workload.as_dict(), concurrency=concurrency, warm_up=warm_up,
        )  # fmt: skip

    def start(self, *children: Child, lead: int) -> int:
        """Order all to start; the plan's zero, ``lead`` ns from now."""
        self.manifest.clocks = Clocks.now()
        self.manifest.started = self.manifest.clocks.monotonic + lead
        self.directory.save()
        for child in children:
            child.send(f"start {self.manifest.started}")
        return self.manifest.started

    def end(self, state: str) -> None:
        """Note that the run is over, and in which ``state`` it ended."""
        self.manifest.state, self.manifest.ended = state, time.monotonic_ns()
        self.directory.save()

    def discard(self) -> None:
        """Remove a run that was not started: nothing was sent."""
        if not self.manifest.started:
            shutil.rmtree(self.directory.path, ignore_errors=True)


@asynccontextmanager
async def own_stack(stack: LocalStack | None = None, **options: Any) -> AsyncIterator[LocalStack]:
    """``stack``, which is started; without it one is made with ``options``, and ended. Raises StackError."""
    if stack is not None:
        yield stack
        return
    made = LocalStack(**options)
    try:
        await in_thread(made.start)
        yield made
    finally:
        await in_thread(made.stop)


def cpu_seconds(processes: Mapping[K, int | None]) -> dict[K, float]:
    """By the same names, of the process ids of those that run."""
    found = {}
    for name, pid in processes.items():
        with suppress(psutil.Error):
            if pid:
                times = psutil.Process(pid).cpu_times()
                found[name] = times.user + times.system
    return found
