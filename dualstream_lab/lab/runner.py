"""Runs a scenario: a generator and a listener on each stream, each a process of its own, into a directory."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dualstream_lab.config import Settings
from dualstream_lab.errors import FaultInert, RecordingError
from dualstream_lab.faults.fault import Target
from dualstream_lab.faults.injector import carry_out, open_target
from dualstream_lab.faults.spec import check_suits
from dualstream_lab.kafka_log import topic_info
from dualstream_lab.lab.result import Run
from dualstream_lab.lab.scenario import Scenario
from dualstream_lab.load.child import Child
from dualstream_lab.load.driver import time_limit
from dualstream_lab.load.session import Session, new_manifest, own_stack
from dualstream_lab.publisher.publisher import check_topic
from dualstream_lab.recording import Interval, Manifest, RunDirectory, drops_of
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination

_READY = 60.0
_LEAD = 300_000_000  # ns between the order to start and the plan's zero
_LOOK = 0.5
_DONE = 60.0


@dataclass(slots=True)
class Progress:
    """What is known of a run while it runs: read from its directory, so that looking cannot delay the load.

    ``seconds``: since the plan's zero, of ``duration``; ``state``: a word for people.
    ``series``: for every second (s, durable events/s, delivered/s, publish p99 in ms).
    """

    directory: Path
    duration: float
    state: str = "starting"
    seconds: float = 0.0
    started: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    series: dict[int, list[float]] = field(default_factory=dict)
    _offsets: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """Read what has been written since the last look."""
        for path in sorted(self.directory.glob("intervals-*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._offsets[path.name])
                data = file.read()
            whole, newline, _rest = data.rpartition(b"\n")
            self._offsets[path.name] += len(whole) + len(newline)
            for line in whole.splitlines():
                try:
                    self._take(Interval.decode(json.loads(line)))
                except (ValueError, RecordingError):
                    continue  # the run's own reading names it

    def _take(self, interval: Interval) -> None:
        self.counters.update(interval.counters)
        if not self.started or interval.end < self.started:
            return
        second = int((interval.end - self.started) / 1e9)
        row = self.series.setdefault(second, [0.0, 0.0, float("nan")])
        length = max((interval.end - interval.begin) / 1e9, 0.1)
        row[0] += interval.counters.get("durable", 0) / length
        row[1] += interval.counters.get("delivered", 0) / length
        if histogram := interval.histograms.get("publish"):
            row[2] = histogram.quantile(0.99)

    @property
    def line(self) -> str:
        """The progress in a line of text."""
        count = self.counters
        errors = sum(count[name] for name in ("rejected", "unknown", "no_room"))
        dropped = sum(drops_of(self.counters).values())
        return (
            f"{self.state}: {count['durable']:,} durable, {count['delivered']:,} delivered, "
            f"{dropped:,} dropped, {errors:,} errors"
        )


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
    """Run a scenario on ``stack``, or on the brokers of ``settings``, or on a stack that is made for it.

    ``target_is_mine``: faults may change the brokers of ``settings``. ``show`` is called about twice a
    second, ``say`` for every fault that begins or ends. Cancelling (Ctrl-C, a notebook's stop button) ends
    load and faults, keeps what was recorded and still returns the run, as ``interrupted``.

    Raises ConfigError (also for faults that cannot be done there), StackError and StreamUnavailable before
    any load is sent; later FaultInert for a fault that does not bite, or is not over.
    """
    fault_names = [fault.name for fault in scenario.faults]
    check_suits(fault_names, local=settings is None or stack is not None, owned=target_is_mine)
    async with AsyncExitStack() as exits:
        if stack is None and settings is None:
            stack = await exits.enter_async_context(own_stack(brokers=scenario.brokers))
        if settings is None:
            assert stack is not None  # noqa: S101
            settings = Destination.of(stack).settings
        target = await exits.enter_async_context(
            open_target(settings, fault_names, stack=stack, owned=target_is_mine)
        )
        check_topic(settings.topic, await topic_info(settings))
        path = RunDirectory.create(root, scenario.name)
        session = Session(path, _manifest(scenario, settings))
        progress = Progress(path, scenario.workload.duration)
        try:
            await _Running(scenario, target, session, progress, show, say).run()
        finally:
            session.discard()
    progress.state = "reading what was recorded"
    show(progress)
    return await asyncio.to_thread(Run.of, session.directory, keep=True)


def _manifest(scenario: Scenario, settings: Settings) -> Manifest:
    return new_manifest(
        settings,
        scenario.workload,
        name=scenario.name,
        users={"concurrency": scenario.users.concurrency, "subscribers": scenario.users.subscribers},
        thresholds=[threshold.text for threshold in scenario.thresholds],
        asked={
            "warm_up": scenario.warm_up,
            "max_rows": scenario.max_rows,
            "faults": [fault.as_dict() for fault in scenario.faults],
        },
        sample=scenario.sample,
    )


@dataclass
class _Running:
    """A run while it runs: its processes, its faults, and what is shown of it."""

    scenario: Scenario
    target: Target
    session: Session
    progress: Progress
    show: Callable[[Progress], None]
    say: Callable[[str], None]
    generated = False

    async def run(self) -> None:
        """Start the processes, send the load, inject the faults, and end the processes."""
        manifest = self.session.manifest
        async with AsyncExitStack() as exits:
            listeners = [await exits.enter_async_context(child) for child in self._listeners()]
            scenario, settings = self.scenario, self.target.settings
            generator = self.session.generator(
                settings, scenario.workload, concurrency=scenario.users.concurrency, warm_up=scenario.warm_up
            )
            await exits.enter_async_context(generator)
            self._show("warming up")
            ready = _READY + self.scenario.warm_up
            await asyncio.gather(*(child.expect("ready", ready) for child in listeners))
            warm = await generator.expect("ready", _READY + 2 * self.scenario.warm_up)
            manifest.warm_up = warm["warm_up"]
            self.say(
                f"{manifest.warm_up:,} events were sent to warm up; "
                "what Kafka took of them is in the topic, and not recorded"
            )
            self.progress.started = self.session.start(*listeners, generator, lead=_LEAD)
            self._show("both streams are up")
            state = manifest.state
            try:
                await self._load(generator)
                state = "finished"
            except asyncio.CancelledError:
                # What was recorded is worth more than a fast end: the parts get their time, once.
                state = "interrupted"
                self._show("stopping")
                if not self.generated:
                    generator.send("stop")
                    await generator.expect("done", _DONE)
            except FaultInert as error:
                state = "interrupted"
                raise FaultInert(f"{error}; recorded until then: {self.session.directory.path}") from error
            finally:
                self.session.end(state)
            for child in listeners:
                child.send("stop")
            await asyncio.gather(*(child.expect("done", _DONE) for child in listeners))

    def _listeners(self) -> list[Child]:
        count, settings = self.scenario.users.subscribers, self.target.settings
        redis = settings.redis_url is not None and count
        direct = self.target.direct.redis_url
        return [
            self.session.child(
                "dualstream_lab.load.listener", f"listener-{kind}", settings,
                kind=kind, subscribers=count, direct_redis_url=direct,
            )
            for kind in (("kafka", "redis") if redis else ("kafka",))
        ]  # fmt: skip

    async def _load(self, generator: Child) -> None:
        limit = time_limit(self.scenario.workload, self.target.settings)
        giving_up = asyncio.get_running_loop().call_later(limit, generator.send, "stop")
        done = asyncio.create_task(generator.expect("done", limit + _DONE))
        waiting = {done}
        if faults := self.scenario.faults:
            work = carry_out(faults, self.target, self.session.directory, self._show_fault)
            waiting.add(asyncio.create_task(work))
        tasks = [asyncio.create_task(self._display()), *waiting]
        try:
            while waiting:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()  # a fault that could not be carried out ends the run
        finally:
            giving_up.cancel()
            for task in tasks:
                task.cancel()
            # Not end_tasks(): a fault's end is to put every server back, and that takes seconds.
            await asyncio.wait(tasks)
            self.generated = not done.cancelled() and done.exception() is None

    async def _display(self) -> None:
        progress = self.progress
        while True:
            await asyncio.to_thread(progress.look)
            progress.seconds = max(0.0, (time.monotonic_ns() - progress.started) / 1e9)
            self.show(progress)
            await asyncio.sleep(_LOOK)

    def _show_fault(self, line: str) -> None:
        self._show(line.partition(":")[0])
        seconds = (time.monotonic_ns() - self.progress.started) / 1e9
        self.say(f"{seconds:5.1f} s  {line}")

    def _show(self, state: str) -> None:
        self.progress.state = state
        self.show(self.progress)
