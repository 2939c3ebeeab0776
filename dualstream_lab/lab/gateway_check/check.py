"""The check: clients that come and go while events flow, then quiet, then the verdict."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.lab.gateway_check.client import Client
from dualstream_lab.lab.gateway_check.history import Truth
from dualstream_lab.lab.gateway_check.judge import judge_all
from dualstream_lab.lab.gateway_check.kafka_log import TopicLog
from dualstream_lab.lab.gateway_check.plan import VIAS
from dualstream_lab.lab.gateway_check.position import Names
from dualstream_lab.lab.gateway_check.probe import probe
from dualstream_lab.lab.gateway_check.publishing import Publishing
from dualstream_lab.lab.gateway_check.verdict import Record, Verdict
from dualstream_lab.load.log_reader import open_log_reader
from dualstream_lab.subscriber.wanted import checked_url
from dualstream_lab.tasks import end_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from dualstream_lab.config import Settings
    from dualstream_lab.lab.gateway_check.history import SourceLog
    from dualstream_lab.lab.gateway_check.plan import Plan
    from dualstream_lab.load.log_reader import LogReader

    Logs = Mapping[str, Mapping[int, SourceLog]]

__all__ = ["Check", "Progress", "check_gateway"]

_QUIET: Final = (
    30.0  # s until everything must be told: a gateway that lost something looks every 10 s, +- 50 %
)
_SURE: Final = 4.0  # s of that after which there is no waiting if something is wrong for certain
_LOOK: Final = 0.25
_READ: Final = 60.0  # s for the topic to be read back; and for each so many events a second more:
_READ_RATE: Final = 20_000
_RESTLESS: Final = 0.75  # share of the clients that come and go
_EARLIEST: Final = 0.1  # share of those that want all there is
_COMING: Final = 0.5  # of the time, in which clients come for the first time


@dataclass(slots=True)
class Progress:
    """So far. ``seconds`` of ``duration``; ``line``: for a progress bar."""

    duration: float
    seconds: float = 0.0
    line: str = "starting"


@dataclass(slots=True, kw_only=True)
class Check:
    """What came of it. ``state``: ``finished`` or ``interrupted``. ``ends``: how connections ended;
    ``errors``: what the gateway said; ``garbled``: messages that are not the wire's; ``away``: clients that
    were not connected at the end, ``trouble``: why not.
    """

    state: str
    seconds: float
    clients: int
    connections: int
    ends: Counter[str]
    verdict: Verdict
    errors: Counter[str] = field(default_factory=Counter)
    garbled: list[str] = field(default_factory=list)
    away: int = 0
    trouble: str = ""

    @property
    def held(self) -> bool:
        """Whether nothing was wrong."""
        return self.verdict.held and not self.garbled

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self.verdict.as_dict() | {
            "held": self.held,
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "clients": self.clients,
            "connections": self.connections,
            "ends": dict(self.ends),
            "errors": dict(self.errors),
            "garbled": self.garbled,
            "away": self.away,
            "trouble": self.trouble,
        }


async def check_gateway(
    url: str,
    settings: Settings,
    plan: Plan,
    *,
    disturb: Callable[[], Awaitable[None]] | None = None,
    show: Callable[[Progress], None] = lambda _progress: None,
) -> Check:
    """Check the gateway at ``url``, which reads the Kafka topic and the Redis of ``settings``.

    ``disturb`` runs beside the load, which waits for its end; ``show`` is told how it goes.
    Cancelling (Ctrl-C) ends the load; what was told until then is judged and returned, as ``interrupted``.
    Raises ConfigError (nothing was checked) and StreamUnavailable (nobody is there, or Kafka is gone).
    """
    base = checked_url(url)
    if settings.redis_url is None:
        raise ConfigError("redis_url: give --redis (DUALSTREAM_REDIS_URL): a gateway is told of events there")
    name = f"repo:check-{secrets.token_hex(3)}"
    sources = [f"{name}/{number}" for number in range(plan.sources)]
    log_is = await log_identity(settings)
    names = Names()
    log = TopicLog(sources, names)
    async with (
        open_log_reader(settings, log) as reader,
        Publishing.open(settings, sources, plan.rate) as publishing,
    ):
        reader.pause()
        for via in VIAS[plan.via]:
            heard = f"{name}/probe-{via}"
            await probe(base, via, log_is.epoch, settings, publishing.publishers[0], heard)
        checking = _Checking(plan, sources, publishing, names, show)
        checking.invite(base)
        try:
            await checking.load(disturb)
            truth = await checking.truth(reader, log)
            await checking.quiet(truth.logs)
        except asyncio.CancelledError:
            checking.interrupt()
            truth = await checking.truth(reader, log)
        finally:
            await checking.end()
        checking.progress.line = "judging"
        show(checking.progress)
        return await asyncio.to_thread(checking.judge, truth)


class _Checking:
    """``_connected``: who was when it ended; ``_waited``: what was not told by then is missing."""

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[str],
        publishing: Publishing,
        names: Names,
        show: Callable[[Progress], None],
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._publishing = publishing
        self._show = show
        self._random = Random(plan.seed)  # noqa: S311
        self._calm = asyncio.Event()
        self._names = names
        self._clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._connected: list[bool] = []
        self._state = "finished"
        self._waited = True
        self._began, self._wall = time.monotonic(), time.time()
        self.progress = Progress(plan.seconds)

    def invite(self, base: Any) -> None:
        """All clients; those that come and go do so at their time."""
        plan, random = self._plan, self._random
        vias = VIAS[plan.via]
        for number in range(plan.clients):
            restless = number % 4 < 4 * _RESTLESS
            client = Client(
                base,
                random.sample(self._sources, min(len(self._sources), random.choice((1, 2, 3)))),
                via=vias[number // 4 % len(vias)],
                begin="earliest" if restless and random.random() < _EARLIEST else "latest",
                restless=restless,
                names=self._names,
                random=Random(random.random()),  # noqa: S311
                calm=self._calm,
                most=plan.most_of_a_client,
            )
            self._clients.append(client)
            wait = random.uniform(0, plan.seconds * _COMING) if restless else 0.0
            self._tasks.append(asyncio.create_task(client.run(wait)))

    async def load(self, disturb: Callable[[], Awaitable[None]] | None) -> None:
        """Publish while they come and go."""
        tasks = [asyncio.ensure_future(self._publishing.run(self._plan.seconds))]
        if disturb is not None:
            tasks.append(asyncio.ensure_future(disturb()))
        try:
            while waiting := [task for task in tasks if not task.done()]:
                self._look("")
                await asyncio.wait(waiting, timeout=_LOOK, return_when=asyncio.FIRST_EXCEPTION)
                for task in (*tasks, *self._tasks):
                    if task.done():
                        task.result()
        finally:
            # Not end_tasks(): a fault's end is to put every server back, and that takes seconds.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def truth(self, reader: LogReader, log: TopicLog) -> Truth:
        """The log, once all is in it. Raises StreamUnavailable when some of it cannot be read."""
        self._calm.set()
        self._look("reading the log back, ")
        for publisher in self._publishing.publishers:
            await publisher.flush()
        unread = await reader.finish(_READ + self._publishing.durable / _READ_RATE)
        if unread:
            raise StreamUnavailable(f"the topic could not be read back: {'; '.join(unread)}")
        return Truth(log.logs(), self._names.texts())

    async def quiet(self, logs: Logs) -> None:
        """Until everything is confirmed to every client, or the time is up."""
        last = {source: {p: log.last for p, log in among.items()} for source, among in logs.items()}
        began = time.monotonic()
        sure = began + _SURE
        while (now := time.monotonic()) < began + _QUIET:
            waiting = sum(not client.settled(last) for client in self._clients)
            self._look(f"quiet: {waiting} clients wait for their last events, ")
            if not waiting:
                return
            if now > sure:
                sure = began + _QUIET
                if await asyncio.to_thread(self._already_wrong, logs):
                    self._waited = False
                    return
            await asyncio.sleep(_LOOK)

    def _already_wrong(self, logs: Logs) -> bool:
        """Whether it is, whatever comes."""
        return any(
            found.findings
            for client in self._clients
            for source, place in client.places.items()
            for _, _, found in judge_all(logs[source], place.sessions, settled=False)
        )

    def interrupt(self) -> None:
        """Nobody is owed what was not told until now."""
        self._state = "interrupted"
        self._waited = False

    async def end(self) -> None:
        """All clients leave."""
        self._connected = [client.connected for client in self._clients]
        await end_tasks(self._tasks)

    def judge(self, truth: Truth) -> Check:
        """Everything against the log."""
        truth = Truth(truth.logs, self._names.texts())
        records = [
            Record(number, client.via, source, place.sessions, connected and self._waited)
            for number, (client, connected) in enumerate(zip(self._clients, self._connected, strict=True))
            for source, place in client.places.items()
        ]
        away = [client for client, there in zip(self._clients, self._connected, strict=True) if not there]
        return Check(
            state=self._state,
            seconds=time.monotonic() - self._began,
            clients=len(self._clients),
            connections=sum(client.begun for client in self._clients),
            ends=sum((client.ends for client in self._clients), Counter()),
            verdict=Verdict.of(truth, records, began=self._began, wall=self._wall),
            errors=sum((client.errors for client in self._clients), Counter()),
            garbled=[one for client in self._clients for one in client.garbled],
            away=len(away) * (self._state == "finished"),
            trouble=next((client.trouble for client in away if client.trouble), ""),
        )

    def _look(self, doing: str) -> None:
        clients = self._clients
        self.progress.seconds = time.monotonic() - self._began
        self.progress.line = (
            f"{doing}{sum(client.connected for client in clients)} of {len(clients)} connected, "
            f"{sum(client.begun for client in clients):,} connections, "
            f"{self._publishing.durable:,} published, {sum(client.told for client in clients):,} told"
        )
        self._show(self.progress)
