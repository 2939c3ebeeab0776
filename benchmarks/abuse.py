"""A gateway and an ingester under abuse, with real clients beside: what those notice of it, and what stays.

``dualstream serve`` in three processes (gateway, ingester, processor) with tokens, a publisher, and clients
that follow its events. The attacks (``attacks``) come one after the other from a process of their own.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import jwt
import psutil
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from benchmarks.attacks import ATTACKS, Target
from benchmarks.serving import Server, fresh_settings, ours
from dualstream_lab import DualPublisher, Event
from dualstream_lab.config import ServeSettings, Settings
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.ports import HOST, free_ports
from dualstream_lab.subscriber import Subscriber
from dualstream_lab.tasks import end_tasks

__all__ = ["AbuseResult", "abuse", "lines"]

P99 = 0.050  # s that others may notice
MEMORY = 512 * 2**20  # bytes that the gateway may have
_SECRET = "a secret of the benchmark, long enough for HS256"
_SOURCES = [f"repo:octo/{number}" for number in range(10)]
_FOLLOWERS = 12
_RATE = 200  # events/s that the others follow
_BATCH = 10
_SETTLING = 3.0  # s before the first attack
_AFTER = 20.0  # s that everything has to be as it was before
_SLACK = 64 * 2**20  # bytes that the gateway may have more after the second crowd than after the first
_CROWDS = ("crowd", "crowd_again")


@dataclass
class AbuseResult:
    """What came of it. Latencies in s, from Kafka's acknowledgement to the client; memory in bytes."""

    seconds: float
    events: int = 0
    lost: int = 0
    connections: int = 0
    requests: int = 0
    frames: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By the attack that was going on."""
    ingested: list[float] = field(default_factory=list)
    """How long the ingester took to answer another client."""
    memory: int = 0
    """The most that the gateway had."""
    kept: dict[str, int] = field(default_factory=dict)
    """What it had when everybody had left, by attack. An allocator gives back little: what counts is more."""
    problems: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Answers that are a mistake of ours: any 5xx but "not now"."""
        return sum(count for status, count in self.answers.items() if status[0] == "5" and status != "503")

    @property
    def p99(self) -> float:
        return _p99([one for during in self.latencies.values() for one in during])

    @property
    def held(self) -> bool:
        quick = max(self.p99, _p99(self.ingested)) <= P99
        return quick and self.memory <= MEMORY and not (self.lost or self.errors or self.problems)


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1] if values else math.inf


def _token(pattern: str, name: str) -> str:
    claims = {"exp": time.time() + 3600, "read": [pattern], "write": [pattern], "sub": name}
    return jwt.encode(claims, _SECRET)


# --- the others


class Others:
    """Real clients, and what they get."""

    def __init__(self, settings: Settings, gateway: str, ingester: str, result: AbuseResult) -> None:
        self._settings = settings
        self._gateway = gateway
        self._ingester = ingester
        self._result = result
        self._acked: dict[str, float] = {}
        self._got: list[dict[str, float]] = [{} for _ in range(_FOLLOWERS)]
        self._token = _token("repo:octo/*", "somebody else")
        self.during = ""
        """The attack that is going on; empty: none is counted."""
        self.ended = asyncio.Event()

    async def follow(self, number: int) -> None:
        transport = "ws" if number % 2 else "sse"
        async with Subscriber(
            self._gateway,
            sources=_SOURCES,
            transport=transport,
            token=self._token,
            fetch=number % 4 == 0,
            on_gap=lambda gap: self._result.problems.append(f"client {number}: {gap}"),
        ) as events:
            async for one in events:
                now = time.monotonic()
                if self._got[number].setdefault(one.id, now) is now and self.during:
                    # what is received before its receipt waited for nothing
                    took = max(0.0, now - self._acked.get(one.id, now))
                    self._result.latencies[self.during].append(took)

    async def publish(self) -> None:
        loop, number = asyncio.get_running_loop(), 0
        async with DualPublisher(self._settings) as publisher:
            due = loop.time()
            while not self.ended.is_set():
                due += _BATCH / _RATE
                await asyncio.sleep(max(0.0, due - loop.time()))
                events = [
                    Event(
                        id=f"e{number + index}",
                        type="push",
                        source_type="repo",
                        source_id=f"octo/{(number + index) % len(_SOURCES)}",
                        data={"number": number + index},
                    )
                    for index in range(_BATCH)
                ]
                number += _BATCH
                await publisher.publish_batch(events)
                now = time.monotonic()
                self._acked.update((event.id, now) for event in events)

    async def ingest(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        body = b'{"type":"push","source_type":"repo","source_id":"octo/other","data":1}'
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            while not self.ended.is_set():
                begun = time.monotonic()
                try:
                    async with session.post(f"{self._ingester}/ingest", data=body) as answer:
                        if answer.status != 202:
                            self._result.problems.append(f"ingester: {answer.status} during {self.during}")
                except (aiohttp.ClientError, TimeoutError) as error:
                    self._result.problems.append(f"ingester: {error!r} during {self.during}")
                if self.during:
                    self._result.ingested.append(time.monotonic() - begun)
                await asyncio.sleep(0.1)

    async def count_lost(self) -> None:
        """Wait until everybody has everything, for some seconds."""
        result = self._result
        result.events = len(self._acked)
        with suppress(TimeoutError):
            async with asyncio.timeout(_AFTER):
                while any(self._acked.keys() - got.keys() for got in self._got):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)  # (filled by tasks of this loop)
        result.lost = sum(len(self._acked.keys() - got.keys()) for got in self._got)


# --- what stays


@dataclass(frozen=True)
class Held:
    """What the gateway holds for clients."""

    clients: int
    sources: int
    channels: int
    memory: int


async def _held(server: Server, settings: ServeSettings) -> Held:
    headers = {"Authorization": f"Bearer {_token('*', 'the watch')}"}
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"http://{server.address}/metrics", headers=headers) as answer,
    ):
        text = await answer.text()
    families = text_string_to_metric_families(text)
    found = {sample.name: sample.value for family in families for sample in family.samples}
    async with Redis.from_url(str(settings.redis_url)) as redis:
        channels = await redis.pubsub_channels(f"{settings.channel_prefix}*")
    return Held(
        clients=int(found["dualstream_clients"]),
        sources=int(found["dualstream_sources"]),
        channels=len(channels),
        memory=psutil.Process(server.pid).memory_info().rss,
    )


async def _as_before(server: Server, settings: ServeSettings, before: Held) -> str:
    """Empty, or what is still there long after everybody has left."""
    deadline = time.monotonic() + _AFTER
    while True:
        now = await _held(server, settings)
        more = [
            f"{name}: {getattr(before, name)} before, {getattr(now, name)} after"
            for name in ("clients", "sources", "channels")
            if getattr(now, name) > getattr(before, name)
        ]
        if not more or time.monotonic() > deadline:
            return "; ".join(more)
        await asyncio.sleep(0.5)


def _growth(kept: dict[str, int]) -> str:
    """Empty, or that the second crowd left more than the first."""
    first, second = (kept.get(name, 0) for name in _CROWDS)
    if not first or second <= first + _SLACK:
        return ""
    return f"the gateway kept {first / 2**20:.0f} MiB after one crowd, {second / 2**20:.0f} after two"


def _most(server: Server) -> int:
    """The most memory that it had so far."""
    text = Path(f"/proc/{server.pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# --- together


@asynccontextmanager
async def _served(stack: LocalStack, root: Path) -> AsyncIterator[tuple[ServeSettings, Server, Server]]:
    settings = fresh_settings(
        stack, str(root), jwt_secret=_SECRET, channel_prefix="abuse:", linger=1.0, subscribe_rate=200
    )
    elsewhere = settings.model_copy(update={"listen": f"{HOST}:{free_ports(1)[0]}"})
    async with ours(settings, "--only", "processor", ready=None):
        async with asyncio.timeout(30):
            while not settings.store.exists():  # noqa: ASYNC110  (another process makes it)
                await asyncio.sleep(0.05)
        async with (
            ours(settings, "--only", "gateway") as gateway,
            ours(elsewhere, "--only", "ingester", ready="/healthz") as ingester,
        ):
            yield settings, gateway, ingester


async def _prepare(settings: Settings) -> None:
    """A past of many events, and one of large ones."""
    async with DualPublisher(settings) as publisher:
        for source, count, size in (("abuse/history", 10_000, 10), ("abuse/large", 600, 30_000)):
            made = [
                Event(type="push", source_type="repo", source_id=source, data={"pad": "x" * size})
                for _ in range(count)
            ]
            for begin in range(0, count, 200):
                await publisher.publish_batch(made[begin : begin + 200])


async def _attack(name: str, target: Target, result: AbuseResult) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.attacks", name, json.dumps(asdict(target))),
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(target.seconds + 120):
            text, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        result.problems.append(f"the attack {name} ended with {process.returncode}")
        return
    harvest = json.loads(text)
    for what in ("connections", "requests", "frames"):
        setattr(result, what, getattr(result, what) + harvest[what])
    result.answers.update(harvest["answers"])


async def abuse(
    root: Path,
    *,
    seconds: float,
    clients: int = 10_000,
    drops: int = 10_000,
    attacks: Sequence[str] = tuple(ATTACKS),
) -> AbuseResult:
    """The attacks, one after the other, in ``seconds`` together; the last with so many ``clients``."""
    result = AbuseResult(seconds)
    with LocalStack(directory=root / "abuse") as stack:
        async with _served(stack, root) as (settings, gateway, ingester):
            await _prepare(settings)
            others = Others(settings, f"http://{gateway.address}", f"http://{ingester.address}", result)
            tasks = [asyncio.create_task(others.follow(number)) for number in range(_FOLLOWERS)]
            tasks.append(asyncio.create_task(others.ingest()))
            publishing = asyncio.create_task(others.publish())
            try:
                await asyncio.sleep(_SETTLING)
                before = await _held(gateway, settings)
                for name in attacks:
                    target = Target(
                        gateway=_address(gateway),
                        ingester=_address(ingester),
                        redis_url=str(settings.redis_url),
                        channel=f"{settings.channel_prefix}events:repo:abuse/1",
                        token=_token("repo:abuse/*", "somebody"),
                        seconds=seconds / len(attacks) * (2 if name in _CROWDS else 0.8),
                        clients=clients - 2 * _FOLLOWERS,
                        silent=clients // 20,
                        drops=drops,
                    )
                    print(f"  {name} for {target.seconds:.0f} s", file=sys.stderr, end="", flush=True)
                    others.during = name
                    await _attack(name, target, result)
                    others.during = ""
                    p99 = _p99(result.latencies[name]) * 1e3
                    print(f": p99 {p99:.1f} ms, memory {_most(gateway) / 2**20:.0f} MiB", file=sys.stderr)
                    if left := await _as_before(gateway, settings, before):
                        result.problems.append(f"after {name} there are {left}")
                    result.kept[name] = (await _held(gateway, settings)).memory
                result.memory = _most(gateway)
                if growth := _growth(result.kept):
                    result.problems.append(growth)
                others.ended.set()
                async with asyncio.timeout(30):
                    await publishing
                await others.count_lost()
            finally:
                await end_tasks([publishing, *tasks])
    return result


def _address(server: Server) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host, int(port)


def lines(result: AbuseResult, *, quick: bool = False) -> list[tuple[str, str, str, bool]]:
    """What was measured, its figure, what it should be, and whether it is. ``quick``: of any speed."""
    p99, ingested = result.p99, _p99(result.ingested)
    thrown = f"{result.connections:,} connections, {result.requests:,} requests, {result.frames:,} frames"
    limit = f"≤ {P99 * 1e3:.0f} ms"
    return [
        (f"thrown at a gateway and an ingester in {result.seconds:.0f} s", thrown, "", True),
        ("answers 5xx, but for 503", f"{result.errors:,}", "0", result.errors == 0),
        ("other clients' live latency, p99", f"{p99 * 1e3:.1f} ms", limit, quick or p99 <= P99),
        (
            "another client's answer of the ingester, p99",
            f"{ingested * 1e3:.1f} ms",
            limit,
            quick or ingested <= P99,
        ),
        (
            f"of {result.events:,} events, lost to {_FOLLOWERS} other clients",
            f"{result.lost:,}",
            "0",
            result.lost == 0,
        ),
        (
            "the most memory of the gateway",
            f"{result.memory / 2**20:.0f} MiB",
            f"≤ {MEMORY // 2**20} MiB",
            result.memory <= MEMORY,
        ),
        (
            "clients, sources, channels and memory left behind",
            f"{len(result.problems)}",
            "0",
            not result.problems,
        ),
    ]


async def _main() -> None:
    import tempfile

    seconds, clients, drops = (int(word) for word in sys.argv[1:4])
    with tempfile.TemporaryDirectory() as directory:
        result = await abuse(
            Path(directory),
            seconds=seconds,
            clients=clients,
            drops=drops,
            attacks=sys.argv[4:] or tuple(ATTACKS),
        )
    for name, during in result.latencies.items():
        worst = max(during, default=0) * 1e3
        print(f"{name}: {len(during):,} deliveries, p99 {_p99(during) * 1e3:.1f} ms, max {worst:.0f}")
    result.latencies = {"all": [result.p99]}
    result.ingested = [_p99(result.ingested)]
    print(result, result.errors, result.held)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it started ends with it, as with Ctrl-C
    asyncio.run(_main())
