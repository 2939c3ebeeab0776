"""The check: clients that come and go while events flow, then quiet, then the verdict."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from dualstream_lab.bounds import within
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.lab.gateway_check.client import Client
from dualstream_lab.lab.gateway_check.history import Logs, SourceLog
from dualstream_lab.lab.gateway_check.judge import Wrong, judge_all
from dualstream_lab.lab.gateway_check.probe import Probe
from dualstream_lab.lab.gateway_check.topic import Publishing, TopicLog
from dualstream_lab.lab.gateway_check.verdict import Record, Verdict
from dualstream_lab.load.gateway_wire import Transport
from dualstream_lab.load.log_reader import LogReader, open_log_reader
from dualstream_lab.subscriber.wanted import checked_url
from dualstream_lab.tasks import end_tasks
from dualstream_lab.verdict.checker import Conclusion, Criterion, Validity, finished

if TYPE_CHECKING:
    from yarl import URL


VIAS: Final[Mapping[str, tuple[Transport, ...]]] = {"ws": ("ws",), "sse": ("sse",), "both": ("ws", "sse")}

_BOUNDS: Final = {
    "clients": (1, 5_000), "sources": (1, 1_000), "rate": (1, 50_000), "seconds": (1, 600),
    "seed": (0, 2**63 - 1),
}  # fmt: skip
_MOST: Final = 20_000_000
# s until everything must be told: a gateway that lost something looks every 10 s, +- 50 %
_QUIET: Final = 30.0
_SURE: Final = 4.0  # s of that after which there is no waiting if something is wrong for certain
_LOOK: Final = 0.25
_READ: Final = 60.0  # s for the topic to be read back; and for each so many events a second more:
_READ_RATE: Final = 20_000
_CHURN: Final = 0.75  # share of the clients that come and go
_EARLIEST: Final = 0.1  # share of those that want all there is
_COMING: Final = 0.5  # of the time, in which clients come for the first time


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How hard to check: ``rate`` events/s are published about ``sources`` sources for ``seconds`` s, while
    ``clients`` clients come and go. ``via``: ``ws``, ``sse`` or ``both``.

    The same ``seed`` plans the same clients. Raises ConfigError.
    """

    clients: int = 100
    sources: int = 8
    rate: float = 2_000
    seconds: float = 30
    via: str = "both"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            within(name, getattr(self, name), low, high)
        if self.via not in VIAS:
            raise ConfigError(f"via: must be one of {', '.join(VIAS)} (is {self.via!r})")
        # About, if all were always connected and nothing came twice.
        deliveries = self.rate * self.seconds * self.clients * min(2, self.sources) / self.sources
        if deliveries > _MOST:
            raise ConfigError(
                f"clients, sources, rate, seconds: that makes {deliveries:,.0f} deliveries, and at most "
                f"{_MOST:,} are recorded; more sources make fewer"
            )

    @property
    def most_of_a_client(self) -> int:
        """At most so many deliveries of one client are recorded: there is room for many repeats."""
        return round(3 * self.rate * self.seconds) + 100_000


@dataclass(slots=True)
class Progress:
    """How far a check of a gateway is: ``seconds`` of ``duration``, and a ``line`` for a progress bar."""

    duration: float
    seconds: float = 0.0
    line: str = "starting"


@dataclass(slots=True, kw_only=True)
class Check:
    """What a check of a gateway came to. ``state``: ``finished`` or ``interrupted``.

    ``ends``: how often connections ended in which way; ``errors``: how often the gateway said which error;
    ``garbled``: messages that are not of the wire protocol; ``away``: how many clients were not connected at
    the end, ``trouble``: why not.
    """

    state: str
    seconds: float
    clients: int
    connections: int
    ends: Counter[str]
    errors: Counter[str]
    garbled: list[str]
    away: int
    trouble: str
    verdict: Verdict

    @property
    def held(self) -> bool:
        """Whether the gateway did nothing that it must not."""
        return self.verdict.held and not self.garbled

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON can hold it."""
        facts = {name: getattr(self, name) for name in self.__slots__ if name != "verdict"}
        return self.verdict.as_dict() | {"held": self.held} | facts | {"seconds": round(self.seconds, 3)}


def check_delivery(check: Check) -> Conclusion:
    """A criterion for each way to be wrong, and one for whether all clients stayed to the end."""
    verdict = check.verdict
    away = check.away and (check.trouble or f"it was {check.state}")
    criteria = [finished(check.state, check.seconds, "the check finished", away or "")]
    texts = {
        wrong.value: [example.text for example in verdict.examples if example.wrong is wrong]
        for wrong in Wrong
    }
    counts = {wrong.value: verdict.wrong[wrong] for wrong in Wrong} | {"garbled": len(check.garbled)}
    for name, times in counts.items():
        text = "\n".join([f"{times:,}", *texts.get(name, check.garbled)])
        group, validity, reason = "dualstream.handover", Validity.of(not times), f"{times:,}" if times else ""
        criteria.append(Criterion(name=name, group=group, validity=validity, text=text, reason=reason))
    return Conclusion(
        experiment="check-gateway", state=check.state, criteria=tuple(criteria), values=check.as_dict()
    )


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
    identity = await log_identity(settings)
    # Event ids as numbers: a record of a million deliveries holds each id once.
    numbers: Mapping[str, int] = defaultdict(count().__next__)
    log = TopicLog(sources, numbers)
    async with (
        open_log_reader(settings, log) as reader,
        Publishing.open(settings, sources, plan.rate) as publishing,
    ):
        reader.pause()
        for via in VIAS[plan.via]:
            source = f"{name}/probe-{via}"
            await Probe(base, via, identity.epoch, settings, publishing.publishers[0], source).run()
        checking = _Checking(plan, publishing, numbers, show)
        checking.spawn(base, sources)
        try:
            await checking.load(disturb)
            logs = await checking.read_back(reader, log)
            await checking.quiet(logs)
        except asyncio.CancelledError:
            checking.interrupt()
            logs = await checking.read_back(reader, log)
        finally:
            await checking.end()
        checking.progress.line = "judging"
        show(checking.progress)
        return await asyncio.to_thread(checking.judge, logs)


@dataclass
class _Checking:
    """A check while it runs. ``connected``: for each client, whether it was when the check ended; ``waited``:
    there was time enough, so that what was not delivered by then is missing.
    """

    plan: Plan
    publishing: Publishing
    numbers: Mapping[str, int]
    show: Callable[[Progress], None]
    state: str = "finished"
    waited: bool = True
    clients: list[Client] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    connected: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._calm = asyncio.Event()
        self._began, self._wall = time.monotonic(), time.time()
        self.progress = Progress(self.plan.seconds)

    def spawn(self, base: URL, sources: Sequence[str]) -> None:
        """Start all clients: those that stay at once, those that come and go each at its own time."""
        plan, random = self.plan, Random(self.plan.seed)  # noqa: S311
        vias = VIAS[plan.via]
        for number in range(plan.clients):
            churns = number % 4 < 4 * _CHURN
            client = Client(
                base=base,
                sources=random.sample(sources, min(len(sources), random.choice((1, 2, 3)))),
                via=vias[number // 4 % len(vias)],
                begin="earliest" if churns and random.random() < _EARLIEST else "latest",
                churns=churns,
                numbers=self.numbers,
                random=Random(random.random()),  # noqa: S311
                calm=self._calm,
                most=plan.most_of_a_client,
            )
            self.clients.append(client)
            wait = random.uniform(0, plan.seconds * _COMING) if churns else 0.0
            self.tasks.append(asyncio.create_task(client.run(wait)))

    async def load(self, disturb: Callable[[], Awaitable[None]] | None) -> None:
        """Publish while the clients come and go."""
        tasks = [asyncio.ensure_future(self.publishing.run(self.plan.seconds))]
        if disturb is not None:
            tasks.append(asyncio.ensure_future(disturb()))
        try:
            while waiting := [task for task in tasks if not task.done()]:
                self._look("")
                await asyncio.wait(waiting, timeout=_LOOK, return_when=asyncio.FIRST_EXCEPTION)
                for task in (*tasks, *self.tasks):
                    if task.done():
                        task.result()
        finally:
            # Not end_tasks(): a fault's end is to put every server back, and that takes seconds.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def read_back(self, reader: LogReader, log: TopicLog) -> Logs:
        """The topic's log of what was published. Raises StreamUnavailable when some of it cannot be read."""
        self._calm.set()
        self._look("reading the log back, ")
        for publisher in self.publishing.publishers:
            await publisher.flush()
        unread = await reader.finish(_READ + self.publishing.durable / _READ_RATE)
        if unread:
            raise StreamUnavailable(f"the topic could not be read back: {'; '.join(unread)}")
        return Logs(log.logs(), list(self.numbers))

    async def quiet(self, logs: Logs) -> None:
        """Wait until every event is confirmed to every client, or the time is up."""
        last = {source: {p: log.last for p, log in among.items()} for source, among in logs.logs.items()}
        began = time.monotonic()
        sure = began + _SURE
        while (now := time.monotonic()) < began + _QUIET:
            waiting = sum(not client.settled(last) for client in self.clients)
            self._look(f"quiet: {waiting} clients wait for their last events, ")
            if not waiting:
                return
            if now > sure:
                sure = began + _QUIET
                if await asyncio.to_thread(self._already_wrong, logs.logs):
                    self.waited = False
                    return
            await asyncio.sleep(_LOOK)

    def _already_wrong(self, logs: Mapping[str, Mapping[int, SourceLog]]) -> bool:
        """Whether something is wrong already that no later message can put right."""
        return any(
            found.findings
            for client in self.clients
            for source, followed in client.followed.items()
            for _, _, found in judge_all(logs[source], followed.sessions, settled=False)
        )

    def interrupt(self) -> None:
        """End the check before its time: what was not delivered until now is not missing."""
        self.state = "interrupted"
        self.waited = False

    async def end(self) -> None:
        """Disconnect all clients, and keep which of them were connected."""
        self.connected = [client.connected for client in self.clients]
        await end_tasks(self.tasks)

    def judge(self, logs: Logs) -> Check:
        """Hold everything that clients got against the log."""
        logs = Logs(logs.logs, list(self.numbers))
        clients = self.clients
        records = [
            Record(number, client.via, source, followed.sessions, connected and self.waited)
            for number, (client, connected) in enumerate(zip(clients, self.connected, strict=True))
            for source, followed in client.followed.items()
        ]
        away = [client for client, there in zip(clients, self.connected, strict=True) if not there]
        return Check(
            state=self.state,
            seconds=time.monotonic() - self._began,
            clients=len(clients),
            connections=sum(client.begun for client in clients),
            ends=sum((client.ends for client in clients), Counter()),
            verdict=Verdict.of(logs, records, began=self._began, wall=self._wall),
            errors=sum((client.errors for client in clients), Counter()),
            garbled=[one for client in clients for one in client.garbled],
            away=len(away) * (self.state == "finished"),
            trouble=next((client.trouble for client in away if client.trouble), ""),
        )

    def _look(self, doing: str) -> None:
        clients = self.clients
        self.progress.seconds = time.monotonic() - self._began
        self.progress.line = (
            f"{doing}{sum(client.connected for client in clients)} of {len(clients)} connected, "
            f"{sum(client.begun for client in clients):,} connections, "
            f"{self.publishing.durable:,} published, "
            f"{sum(client.delivered for client in clients):,} delivered"
        )
        self.show(self.progress)
