"""An estate as companies have it: two topics on one Redis, shared with producers that nobody here wrote.

Each topic has our publishers, a transactional producer that aborts one batch in four, one that partitions
by CRC-32 and one without keys; its own ``dualstream serve``, and subscribers from the beginning. Sources and
ids are the same in both topics. Partitions are added twice; Kafka, Redis and both gateways are killed, in
turn. At the end the log is read by a plain consumer of committed records, and held against what subscribers
received, what ``GET /events`` gives, and what ``dualstream replay`` writes.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import KafkaError

from dualstream_lab import DualPublisher, Event, Settings
from dualstream_lab.errors import PublishError
from dualstream_lab.stack import LocalStack, ManagedProcess
from dualstream_lab.stack.ports import HOST, free_ports
from dualstream_lab.subscriber import StreamGap, Subscriber
from dualstream_lab.subscriber.api import Page
from dualstream_lab.tasks import end_tasks, in_thread

__all__ = ["EstateResult", "live_through"]

_SOURCES = [f"repo:octo/{number}" for number in range(50)]
_GROWTH = (9, 12)
_DRAIN = 120.0  # s that consumers have at the end
_ABORTED = 4  # one transaction in so many
_Key = tuple[str, str]


@dataclass
class EstateResult:
    """What was found of both topics together."""

    events: int = 0
    aborted: int = 0
    missing: int = 0
    foreign: int = 0
    wrong: int = 0
    partitions: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not (self.missing or self.foreign or self.wrong or self.problems)


@dataclass
class Tenant:
    """One topic and all that happens to it."""

    settings: Settings
    serve: ManagedProcess
    url: str
    acked: set[_Key] = field(default_factory=set)
    aborted: set[_Key] = field(default_factory=set)
    received: dict[_Key, tuple[int, int] | None] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)


def _event(topic: str, source: str, event_id: str) -> dict[str, Any]:
    source_type, _, source_id = source.partition(":")
    data = {"topic": topic, "of": f"{source} {event_id}", "pad": "x" * 100}
    return {"id": event_id, "type": "push", "source_type": source_type, "source_id": source_id, "data": data}


# --- those who write


async def _ours(tenant: Tenant, name: str, rate: float, until: asyncio.Event) -> None:
    loop, number = asyncio.get_running_loop(), 0
    async with DualPublisher(tenant.settings) as publisher:
        due = loop.time()
        while not until.is_set():
            due = max(due + 200 / rate, loop.time() - 1)
            await asyncio.sleep(max(0.0, due - loop.time()))
            events = []
            for _ in range(200):
                number += 1
                events.append(
                    Event(**_event(tenant.settings.topic, random.choice(_SOURCES), f"{name}-{number // 2}"))
                )
            keys = [(f"{one.source_type}:{one.source_id}", one.id) for one in events]
            with suppress(PublishError):  # the log tells what became of them
                await publisher.publish_batch(events)
                tenant.acked.update(keys)


async def _foreign(tenant: Tenant, name: str, rate: float, until: asyncio.Event, **options: Any) -> None:
    """A producer of somebody else's. ``keyed=False`` among the options: its records have no keys."""
    keyed = options.pop("keyed", True)
    number = 0
    while not until.is_set():
        producer = AIOKafkaProducer(bootstrap_servers=tenant.settings.kafka_url, acks="all", **options)
        with suppress(KafkaError, OSError, TimeoutError):
            try:
                async with asyncio.timeout(30):
                    await producer.start()
                while not until.is_set():
                    async with asyncio.timeout(30):
                        if "transactional_id" in options:
                            await _transact(producer, tenant, name, number)
                        else:
                            await _send(producer, tenant, f"{name}-{number}", keyed=keyed)
                            await producer.flush()
                        number += 1
                    await asyncio.sleep(20 / rate)
            finally:
                with suppress(Exception, asyncio.CancelledError):
                    async with asyncio.timeout(3):
                        await producer.stop()
        await asyncio.sleep(0.5)


async def _transact(producer: AIOKafkaProducer, tenant: Tenant, name: str, number: int) -> None:
    """20 events, all or none."""
    abort = random.randrange(_ABORTED) == 0
    await producer.begin_transaction()
    keys = await _send(producer, tenant, f"{name}-{'aborted' if abort else 'done'}-{number}", keyed=True)
    if abort:
        tenant.aborted.update(keys)
        await producer.abort_transaction()
    else:
        await producer.commit_transaction()


async def _send(producer: AIOKafkaProducer, tenant: Tenant, name: str, *, keyed: bool) -> list[_Key]:
    keys = [(random.choice(_SOURCES), f"{name}-{count}") for count in range(20)]
    for source, event_id in keys:
        value = msgspec.json.encode(_event(tenant.settings.topic, source, event_id))
        key = source.partition(":")[2].encode() if keyed else None
        await producer.send(tenant.settings.topic, value, key=key)
    return keys


def _crc32(key: bytes, partitions: list[int], _available: list[int]) -> int:
    return partitions[zlib.crc32(key) % len(partitions)]


# --- those who read


async def _subscribe(tenant: Tenant) -> None:
    """From the beginning, through everything."""
    async with Subscriber(tenant.url, sources=_SOURCES, since="earliest", fetch=False) as events:
        while True:
            try:
                one = await anext(events)
            except StreamGap as gap:
                tenant.gaps.append(str(gap))
                continue
            place = None if one.partition is None or one.offset is None else (one.partition, one.offset)
            tenant.received.setdefault((one.source, one.id), place)


async def _log(settings: Settings) -> tuple[dict[_Key, dict[tuple[int, int], bytes]], int, int]:
    """What the log has, by a plain consumer: key to the positions and values; records; partitions."""
    found: dict[_Key, dict[tuple[int, int], bytes]] = {}
    records = 0
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_url, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.subscribe([settings.topic])  # for its metadata
        while not (numbers := consumer.partitions_for_topic(settings.topic)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # (aiokafka has nothing to await)
        consumer.unsubscribe()
        targets = [TopicPartition(settings.topic, number) for number in numbers]
        ends = await consumer.end_offsets(targets)
        consumer.assign(targets)
        await consumer.seek_to_beginning(*targets)
        while any([await consumer.position(target) < ends[target] for target in targets]):
            for target, batch in (await consumer.getmany(timeout_ms=500)).items():
                for record in batch:
                    event = msgspec.json.decode(record.value)
                    key = f"{event['source_type']}:{event['source_id']}", event["id"]
                    found.setdefault(key, {})[target.partition, record.offset] = record.value
                    records += 1
    finally:
        await consumer.stop()
    return found, records, len(targets)


async def _pages(url: str, source: str, problems: list[str]) -> dict[_Key, bytes]:
    """Everything of a source by ``GET /events``."""
    found: dict[_Key, bytes] = {}
    since, more = "earliest", True
    async with aiohttp.ClientSession() as session:
        while more:
            query = {"source": source, "since": since, "limit": "1000"}
            async with session.get(f"{url}/events", params=query) as answer:
                page = msgspec.json.decode(await answer.read(), type=Page)
            if not page.recovered:
                problems.append(f"{source}: GET /events says {page.reason}")
                return found
            for value in page.events:
                event = msgspec.json.decode(value)
                found[f"{event['source_type']}:{event['source_id']}", event["id"]] = bytes(value)
            since, more = page.cursor, page.more
    return found


# --- what is done to them


async def _disturb(stack: LocalStack, tenants: list[Tenant], seconds: float) -> None:
    """Everything is killed once or more, and partitions are added twice."""

    async def grow(count: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_url)
        await admin.start()
        try:
            for tenant in tenants:
                await admin.create_partitions({tenant.settings.topic: NewPartitions(count)})
        finally:
            await admin.close()

    def kill(process: ManagedProcess) -> Callable[[], Awaitable[None]]:
        async def killed() -> None:
            await in_thread(process.kill)
            await asyncio.sleep(1)
            await in_thread(process.launch)
            await in_thread(process.wait_ready)

        return killed

    steps: list[Callable[[], Awaitable[None]]] = [
        lambda: grow(_GROWTH[0]),
        kill(stack.redis),
        kill(tenants[0].serve),
        kill(stack.brokers[0]),
        kill(tenants[1].serve),
        lambda: grow(_GROWTH[1]),
        kill(stack.redis),
        kill(tenants[0].serve),
    ]
    for step in steps:
        await asyncio.sleep(seconds / (len(steps) + 1))
        await step()
    await asyncio.sleep(seconds / (len(steps) + 1))


@asynccontextmanager
async def _tenant(stack: LocalStack, topic: str, root: Path) -> AsyncIterator[Tenant]:
    await in_thread(stack.create_topic, topic)
    (port,) = free_ports(1)
    directory = root / topic
    directory.mkdir()
    url = f"http://{HOST}:{port}"
    serve = ManagedProcess(
        name=f"dualstream serve {topic}",
        command=[
            *("env", f"DUALSTREAM_GROUP=estate-{topic}", "DUALSTREAM_RETENTION_EVENTS=5000000"),
            *("DUALSTREAM_CHECK_INTERVAL=2", sys.executable, "-m", "dualstream_lab.cli", "serve"),
            *("--listen", f"{HOST}:{port}", "--kafka", stack.kafka_url, "--redis", stack.redis_url),
            *("--topic", topic, "--store", str(directory / "estate.db")),
        ],
        log=directory / "serve.log",
        ready=lambda text: "Ctrl-C ends it" in text,
        explain=lambda text: text[-1000:].strip() or "it said nothing",
    )
    settings = Settings.load(kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=topic)
    await in_thread(serve.start)
    try:
        yield Tenant(settings=settings, serve=serve, url=url)
    finally:
        await in_thread(serve.stop)


async def _judge(tenant: Tenant, result: EstateResult) -> None:
    """Hold everything against the log."""
    log, records, partitions = await _log(tenant.settings)
    result.partitions = partitions
    result.events += len(log)
    result.aborted += len(tenant.aborted)
    problems = [f"acknowledged and not in the log: {key}" for key in tenant.acked - log.keys()]
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN):
            while len(tenant.received) < len(log):  # noqa: ASYNC110  (filled by a task of this loop)
                await asyncio.sleep(0.2)
    result.missing += len(log.keys() - tenant.received.keys())
    result.foreign += len(tenant.received.keys() - log.keys())
    result.wrong += sum(
        1
        for key, place in tenant.received.items()
        if place is not None and place not in log.get(key, {place: b""})
    )
    problems += tenant.gaps
    for source in _SOURCES:
        page = await _pages(tenant.url, source, problems)
        there = {key for key in log if key[0] == source}
        result.missing += len(there - page.keys())
        result.foreign += len(page.keys() - there)
        result.wrong += sum(1 for key in page.keys() & there if page[key] not in log[key].values())
    replayed = await in_thread(_replay, tenant.settings)
    if replayed != (0, records):
        problems.append(f"replay: exit code and events {replayed}, the log has {records:,}")
    result.problems += [f"{tenant.settings.topic}: {problem}" for problem in problems[:10]]


def _replay(settings: Settings) -> tuple[int, int]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dualstream_lab.cli", "replay", "--offset", "0"),
            *("--kafka", str(settings.kafka_url), "--topic", settings.topic),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout.count(b"\n")


def _writers(tenant: Tenant, rate: float, until: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
    transactions = {"transactional_id": f"tx-{tenant.settings.topic}", "transaction_timeout_ms": 10_000}
    return [
        _ours(tenant, "a", rate / 4, until),
        _ours(tenant, "b", rate / 4, until),
        _foreign(tenant, "tx", rate / 40, until, **transactions),
        _foreign(tenant, "crc", rate / 40, until, partitioner=_crc32),
        _foreign(tenant, "unkeyed", rate / 40, until, keyed=False),
    ]


async def live_through(root: Path, *, seconds: float, rate: float) -> EstateResult:
    """``rate``: events/s of both topics together that our publishers offer, for so many seconds."""
    result = EstateResult()
    until = asyncio.Event()
    with LocalStack(directory=root / "estate") as stack:
        async with _tenant(stack, "prod", root) as prod, _tenant(stack, "staging", root) as staging:
            tenants = [prod, staging]
            readers = [asyncio.create_task(_subscribe(tenant)) for tenant in tenants]
            writing = [
                asyncio.create_task(work) for tenant in tenants for work in _writers(tenant, rate, until)
            ]
            try:
                await _disturb(stack, tenants, seconds)
                until.set()
                done, late = await asyncio.wait(writing, timeout=90)
                for task in done:
                    task.result()
                if late:
                    result.problems.append(f"{len(late)} writers did not end")
                for tenant in tenants:
                    await _judge(tenant, result)
            finally:
                await end_tasks([*writing, *readers])
    return result


async def _main() -> None:
    import tempfile
    import time

    began = time.time()
    seconds, rate = float(sys.argv[1]), float(sys.argv[2])
    with tempfile.TemporaryDirectory() as directory:
        result = await live_through(Path(directory), seconds=seconds, rate=rate)
    print(result, f"{time.time() - began:.0f} s")


if __name__ == "__main__":
    asyncio.run(_main())
