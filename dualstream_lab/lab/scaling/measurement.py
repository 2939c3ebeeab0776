"""One measurement: its processes and its run directory, and what Redis and a gateway spend meanwhile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.faults.redis.probe import Link
from dualstream_lab.lab.result import Run
from dualstream_lab.load.driver import time_limit
from dualstream_lab.load.session import Session, cpu_seconds, new_manifest
from dualstream_lab.recording import LatencyHistogram, RunDirectory
from dualstream_lab.tasks import end_tasks, until
from dualstream_lab.verdict.measures import machine_share, totals_of
from dualstream_lab.workload import Workload

_READY: Final = 60.0
_LEAD: Final = 300_000_000  # ns between the order to start and the plan's zero
_DONE: Final = 60.0
_CONCURRENCY: Final = 256
_ROWS: Final = 500_000  # of what is delivered; of more, a sample is kept
_ANSWER: Final = 10.0  # s; it may be in the middle of a storm
_LOOK: Final = 0.02  # s between looks at Redis's clients' buffers


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What came of the load. ``delays``: from Kafka's acknowledgement to the delivery, of every delivery.

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
        return machine_share(self.run.verdict.counters)


@dataclass(kw_only=True)
class Measurement:
    """One run of a load, and the process that listens meanwhile.

    ``listener``: that process's module, and ``task`` what it is told besides.

    ``deliveries``: how many there are of each event. ``processes``: by name, the ids of more processes whose
    CPU is measured.

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
        users = {"concurrency": _CONCURRENCY, "subscribers": self.subscribers}
        manifest = new_manifest(self.settings, self.workload, name=self.name, users=users, sample=sample)
        self._session = Session(RunDirectory.create(self.root, self.name), manifest)
        self.listening = self._session.child(self.listener, "listener", self.settings, **self.task)
        self._generator = self._session.generator(
            self.settings, self.workload, concurrency=_CONCURRENCY, warm_up=self.warm_up
        )
        async with AsyncExitStack() as exits:
            exits.callback(self._keep)
            for child in (self._generator, self.listening):
                await exits.enter_async_context(child)
            await asyncio.gather(
                self._generator.expect("ready", _READY + 2 * self.warm_up),
                self.listening.expect("ready", _READY),
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
        """Send the load, and wait until all that was sent is settled and delivered."""
        directory = self._session.directory
        zero = self._session.start(self.listening, self._generator, lead=_LEAD)
        pids = {"publisher": self._generator.pid, "subscribers": self.listening.pid, **self.processes}
        await until(zero)
        before, begin = cpu_seconds(pids), asyncio.get_running_loop().time()
        await self._generator.expect("done", time_limit(self.workload, self.settings) + _DONE)
        after, seconds = cpu_seconds(pids), asyncio.get_running_loop().time() - begin
        self._session.end("finished")
        self.listening.send("stop")
        summary = await self.listening.expect("done", _DONE)
        run = await asyncio.to_thread(Run.of, directory, keep=True)
        return Loaded(
            run=run,
            delays=totals_of(directory).histograms.get("live_delay", LatencyHistogram()),
            cpu={name: (after[name] - before[name]) / seconds for name in after.keys() & before.keys()},
            summary=summary,
        )


async def gateway_metrics(url: str) -> dict[str, float]:
    """The metrics, by name, of the gateway at this base URL. Raises StreamUnavailable."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/metrics") as answer:
            text = await answer.text()
    except (aiohttp.ClientError, OSError) as error:
        raise StreamUnavailable(f"the gateway does not give its metrics: {error}") from error
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


class _Spent(NamedTuple):
    """What Redis has spent. ``cpu``: s until now, of user and system; ``memory``: bytes in use now."""

    cpu: float
    memory: int


class RedisCosts:
    """Asks one Redis what it spends. Raises StreamUnavailable when it does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def spent(self) -> _Spent:
        """What Redis has spent until now."""
        async with Link(self._url) as link:
            user, system, memory = [
                float(await link.info(name, _ANSWER))
                for name in ("used_cpu_user", "used_cpu_sys", "used_memory")
            ]
        return _Spent(user + system, int(memory))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[list[int]]:
        """Meanwhile, how many bytes wait in Redis for its slowest subscriber, look by look."""
        seen = [0]

        async def watch() -> None:
            async with Link(self._url) as link:
                while True:
                    clients = await link.ask("CLIENT", "LIST", "TYPE", "PUBSUB", timeout=_ANSWER)
                    seen.append(max(map(int, re.findall(r" omem=(\d+)", clients)), default=0))
                    await asyncio.sleep(_LOOK)

        watching = asyncio.create_task(watch())
        try:
            yield seen
        finally:
            died = watching.done()
            await end_tasks([watching])
        if died:
            watching.result()
