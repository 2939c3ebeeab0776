"""Runs a scenario: a generator and a listener on each stream, each a process of its own, into a directory."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dualstream_lab.config import Settings
from dualstream_lab.errors import FaultInert
from dualstream_lab.faults.injector import carry_out, open_target
from dualstream_lab.faults.spec import check_suits
from dualstream_lab.kafka_log import topic_info
from dualstream_lab.lab.progress import Progress
from dualstream_lab.lab.result import Run
from dualstream_lab.load.child import Child
from dualstream_lab.load.driver import time_limit
from dualstream_lab.publisher.publisher import check_topic
from dualstream_lab.recording import Clocks, Manifest, RunDirectory
from dualstream_lab.recording.manifest import safe_settings
from dualstream_lab.stack import LocalStack
from dualstream_lab.tasks import in_thread
from dualstream_lab.workload import RunIds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dualstream_lab.faults.fault import Target
    from dualstream_lab.lab.scenario import Scenario

__all__ = ["run_scenario"]

_READY = 60.0
_LEAD = 300_000_000  # ns between the order to start and the plan's zero
_LOOK = 0.5
_DONE = 60.0


async def run_scenario(
    scenario: Scenario,
    *,
    settings: Settings | None = None,
    stack: LocalStack | None = None,
    root: Path = Path("runs"),
    target_is_mine: bool = False,
    show: Callable[[Progress], None] = lambda _progress: None,
    say: Callable[[str], None] = lambda _line: None,
) -> Run:
    """Run it on ``stack``, or on the brokers of ``settings``, or on a stack that is made for it.

    ``target_is_mine``: faults may change the brokers of ``settings``. ``show`` is called about twice a
    second, ``say`` for every fault that begins or ends. Cancelling (Ctrl-C, a notebook's stop button) ends
    load and faults, keeps what was recorded and still returns the run, as ``interrupted``.

    Raises ConfigError (also for faults that cannot be done there), StackError and StreamUnavailable before
    any load is sent; later FaultInert for a fault that does not bite, or is not over.
    """
    whats = [fault.what for fault in scenario.faults]
    check_suits(whats, local=settings is None or stack is not None, owned=target_is_mine)
    async with (
        _where(scenario, settings, stack) as (where, ours),
        open_target(where, whats, stack=ours, owned=target_is_mine) as target,
    ):
        check_topic(where.topic, await topic_info(where))
        path = RunDirectory.create(root, scenario.name)
        directory = RunDirectory(path, _manifest(scenario, where))
        directory.save()
        progress = Progress(path, scenario.workload.duration)
        try:
            await _Session(scenario, target, directory, progress, show, say).run()
        finally:
            if not directory.manifest.started:
                shutil.rmtree(path, ignore_errors=True)  # nothing was sent
    progress.state = "reading what was recorded"
    show(progress)
    finished = await asyncio.to_thread(Run.of, directory)
    directory.write_verdict(finished.verdict.as_dict(directory))
    return finished


@asynccontextmanager
async def _where(
    scenario: Scenario, settings: Settings | None, stack: LocalStack | None
) -> AsyncIterator[tuple[Settings, LocalStack | None]]:
    made = LocalStack(brokers=scenario.brokers) if settings is None and stack is None else None
    try:
        if made is not None:
            await in_thread(made.start)
        ours = stack or made
        if ours is not None and settings is None:
            settings = Settings.load(kafka_url=ours.kafka_url, redis_url=ours.redis_url, topic=ours.topic)
        assert settings is not None  # noqa: S101  (one of the three was given)
        yield settings, ours
    finally:
        if made is not None:
            await in_thread(made.stop)


def _manifest(scenario: Scenario, settings: Settings) -> Manifest:
    run = uuid4()
    return Manifest(
        name=scenario.name,
        run=str(run),
        ids=RunIds.of_run(run).prefix,
        clocks=Clocks.now(),
        workload=scenario.workload.as_dict(),
        settings=safe_settings(settings),
        users={"lanes": scenario.users.lanes, "subscribers": scenario.users.subscribers},
        thresholds=[threshold.text for threshold in scenario.thresholds],
        asked={
            "warm_up": scenario.warm_up,
            "max_rows": scenario.max_rows,
            "faults": [fault.as_dict() for fault in scenario.faults],
        },
        sample=scenario.sample,
    )


class _Session:
    """The processes of one run."""

    def __init__(
        self,
        scenario: Scenario,
        target: Target,
        directory: RunDirectory,
        progress: Progress,
        show: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        self._scenario = scenario
        self._target = target
        self._settings = target.settings
        self._directory = directory
        self._progress = progress
        self._show = show
        self._say = say
        self._generated = False

    async def run(self) -> None:
        """From the processes' start to their end."""
        async with AsyncExitStack() as exits:
            listeners = [await exits.enter_async_context(child) for child in self._listeners()]
            generator = await exits.enter_async_context(self._generator())
            self._tell("warming up")
            await asyncio.gather(
                *(child.hear("ready", _READY + self._scenario.warm_up) for child in listeners)
            )
            ready = await generator.hear("ready", _READY + 2 * self._scenario.warm_up)
            self._directory.manifest.warm_up = ready["warm_up"]
            self._say(
                f"{ready['warm_up']:,} events were sent to warm up; they are in the topic, and not recorded"
            )
            self._start([*listeners, generator])
            manifest = self._directory.manifest
            try:
                await self._load(generator)
                manifest.state = "finished"
            except asyncio.CancelledError:
                # What was recorded is worth more than a fast end: the parts get their time, once.
                manifest.state = "interrupted"
                self._tell("stopping")
                if not self._generated:
                    generator.tell("stop")
                    await generator.hear("done", _DONE)
            except FaultInert as error:
                manifest.state = "interrupted"
                raise FaultInert(f"{error}; recorded until then: {self._directory.path}") from error
            finally:
                manifest.ended = time.monotonic_ns()
                self._directory.save()
            for child in listeners:
                child.tell("stop")
            await asyncio.gather(*(child.hear("done", _DONE) for child in listeners))

    def _task(self, **more: Any) -> dict[str, Any]:
        return {
            "settings": self._settings.model_dump(),
            "direct_redis_url": self._target.direct.redis_url,
            "ids": self._directory.manifest.ids,
            "run": self._directory.manifest.run,
            "directory": str(self._directory.path),
            "sample": self._scenario.sample,
        } | more

    def _generator(self) -> Child:
        scenario = self._scenario
        task = self._task(
            workload=scenario.workload.as_dict(), lanes=scenario.users.lanes, warm_up=scenario.warm_up
        )
        return Child("dualstream_lab.load.generator", "generator", task, self._directory.path)

    def _listeners(self) -> list[Child]:
        kinds = ["kafka"]
        if self._settings.redis_url is not None and self._scenario.users.subscribers:
            kinds.append("redis")
        count = self._scenario.users.subscribers
        return [
            Child(
                "dualstream_lab.load.listener",
                f"listener-{kind}",
                self._task(kind=kind, subscribers=count),
                self._directory.path,
            )
            for kind in kinds
        ]

    def _start(self, children: list[Child]) -> None:
        manifest = self._directory.manifest
        manifest.clocks = Clocks.now()
        manifest.started = manifest.clocks.monotonic + _LEAD
        self._directory.save()
        self._progress.started = manifest.started
        for child in children:
            child.tell(f"start {manifest.started}")
        self._tell("both streams are up")

    async def _load(self, generator: Child) -> None:
        scenario = self._scenario
        limit = time_limit(scenario.workload, self._settings)
        giving_up = asyncio.get_running_loop().call_later(limit, generator.tell, "stop")
        tasks = [asyncio.create_task(self._display())]
        if scenario.faults:
            faults = carry_out(scenario.faults, self._target, self._directory, self._tell_fault)
            tasks.append(asyncio.create_task(faults))
        done = asyncio.create_task(generator.hear("done", limit + _DONE))
        try:
            waiting = {done, *tasks[1:]}
            while waiting:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()  # a fault that could not be carried out ends the run
        finally:
            giving_up.cancel()
            for task in (done, *tasks):
                task.cancel()
            # Not end_tasks(): a fault's end is to put every server back, and that takes seconds.
            await asyncio.wait([done, *tasks])
            self._generated = not done.cancelled() and done.exception() is None

    async def _display(self) -> None:
        progress = self._progress
        while True:
            await asyncio.to_thread(progress.look)
            progress.seconds = max(0.0, (time.monotonic_ns() - progress.started) / 1e9)
            self._show(progress)
            await asyncio.sleep(_LOOK)

    def _tell_fault(self, line: str) -> None:
        self._tell(line.partition(":")[0])
        seconds = (time.monotonic_ns() - self._progress.started) / 1e9
        self._say(f"{seconds:5.1f} s  {line}")

    def _tell(self, state: str) -> None:
        self._progress.state = state
        self._show(self._progress)
