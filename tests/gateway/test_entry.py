"""Moments of a client's way in that the real stack seldom gives: each wait is held and let go by the test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import msgspec
import pytest

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.gateway.entry import Entry
from dualstream_lab.gateway.hub import Hub
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.tails import Tail
from dualstream_lab.kafka_log import LogIdentity
from dualstream_lab.store import Page, Query, Row
from tests.gateway.serving import until

SOURCE = "repo:octo/hello"
CHANNEL = f"events:{SOURCE}".encode()
EPOCH = "e0"


class Log:
    """One partition, all of whose events are the source's. ``hold``: answers wait for the test."""

    def __init__(self) -> None:
        self.length = 0
        self.hold: asyncio.Event | None = None
        self.asked = 0
        self.away = False

    async def end(self, partition: int) -> int:
        end = self.length
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise StreamUnavailable("away")
        return end

    async def read(self, source: str, partition: int, first: int, end: int) -> Tail:
        if self.away:
            raise StreamUnavailable("away")
        return Tail(end, [row(offset) for offset in range(first, end)])


class Store:
    """Has the log below ``position``."""

    position = 0
    looks = 0

    async def positions(self) -> dict[int, int]:
        return {0: self.position}

    async def pages(self, queries: list[Query], limit: int) -> list[Page]:
        self.looks += 1
        return [
            Page(self.position, 0, [row(offset) for offset in range(query.after + 1, self.position)], False)
            for query in queries
        ]


class Upstream:
    """Confirms when the test says so."""

    def __init__(self) -> None:
        self.effective = asyncio.Event()

    async def subscribe(self, channel: bytes) -> None:
        await self.effective.wait()

    def confirms(self, channel: bytes) -> bool:
        return self.effective.is_set()

    def unsubscribe(self, channel: bytes) -> None:
        pass


class Client:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def turn(self) -> Any:
        return nullcontext()

    def tell(self, frames: list[Any], shared: dict[str, bytes], source: str) -> None:
        self.told += [msgspec.json.decode(frame.body) for frame in frames]

    def catch_up(self, frames: list[Any], source: str) -> None:
        self.tell(frames, {}, source)

    def offsets(self) -> list[int]:
        return [int(m["pos"].partition(":")[2]) for m in self.told if m["kind"] == "event"]

    @property
    def cursor(self) -> int:
        """Of the word that it is subscribed."""
        (said,) = [message for message in self.told if message["kind"] == "subscribed"]
        return int(said["cursor"].rpartition(":")[2])


def row(offset: int) -> Row:
    return Row(offset, f"id-{offset}", "push", 1)


class Gateway:
    """The hub and the way in, on a log, a store and a Redis of the test."""

    def __init__(self, **values: object) -> None:
        settings = ServeSettings.load(**({"check_interval": 300, "subscribe_timeout": 0.05} | values))
        self.log, self.store, self.upstream = Log(), Store(), Upstream()
        identity = LogIdentity(epoch=EPOCH, partitions=1)
        self.reads = Reads(self.store, limit=100)  # type: ignore[arg-type]
        self.hub = Hub(settings, identity, self.reads, self.log)
        self.hub.upstream = self.upstream  # type: ignore[assignment]
        self.entry = Entry(settings, identity, self.hub, self.reads, self.log)

    def confirm(self) -> None:
        self.upstream.effective.set()
        self.hub.confirmed([CHANNEL])

    def hear(self, offset: int) -> None:
        note = {"id": f"id-{offset}", "type": "push", "source_id": SOURCE[5:], "pos": f"0:{offset}"}
        self.hub.hear(CHANNEL, msgspec.json.encode(note))

    async def enter(self, client: Client, since: Any = None) -> None:
        await self.entry.enter(client, SOURCE, since)


@pytest.fixture
async def gateway():
    async with running(Gateway()) as made:
        yield made


@asynccontextmanager
async def running(gateway: Gateway):
    tasks = [asyncio.create_task(work()) for work in (gateway.reads.run, gateway.hub.repairs.run)]
    try:
        yield gateway
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_new_clients_cursor_says_what_was_compared_while_its_fence_was_on_its_way(gateway):
    gateway.confirm()
    gateway.log.length = gateway.store.position = 10
    first, second = Client(), Client()
    await gateway.enter(first)
    gateway.log.hold = asyncio.Event()
    coming = asyncio.create_task(gateway.enter(second))
    await until(lambda: gateway.log.asked == 2)  # answered: 10
    gateway.log.length = gateway.store.position = 12
    for offset in (10, 11):
        gateway.hear(offset)
    gateway.hub.repairs.look(gateway.hub.feeds[SOURCE])
    await until(lambda: gateway.hub.feeds[SOURCE].stream.confirmed == 11)
    gateway.log.hold.set()
    await coming
    gateway.log.length = 13
    gateway.hear(12)
    await until(lambda: 12 in second.offsets())
    assert first.offsets() == [10, 11, 12]
    assert second.offsets() == list(range(second.cursor + 1, 13))


async def test_what_fell_between_the_fence_and_a_late_confirmation_is_looked_for(gateway):
    """The first client of a source: Redis confirms after its time, while the fence is on its way."""
    gateway.log.length = gateway.store.position = 10
    gateway.log.hold = asyncio.Event()
    client = Client()
    coming = asyncio.create_task(gateway.enter(client))
    await until(lambda: gateway.log.asked == 1)  # answered: 10
    assert gateway.hub.feeds[SOURCE].degraded
    gateway.log.length = 11  # announced to nobody
    gateway.confirm()
    gateway.log.hold.set()
    await coming
    await asyncio.sleep(0.5)  # polled while degraded: the store has nothing new
    gateway.store.position = 11
    await until(lambda: client.offsets() == [10])
    assert client.told[-1]["kind"] == "live"


async def test_a_connection_that_is_lost_in_the_moment_of_its_confirmation_is_lost(gateway):
    gateway.log.length = gateway.store.position = 10
    client = Client()
    coming = asyncio.create_task(gateway.enter(client))
    await asyncio.sleep(0)
    gateway.confirm()
    gateway.upstream.effective.clear()
    gateway.hub.lost("gone")  # before the client's task goes on
    await coming
    await asyncio.sleep(0.3)
    assert [m["kind"] for m in client.told if m["kind"] in {"degraded", "live"}] == ["degraded"]
    gateway.log.length = gateway.store.position = 11
    await until(lambda: client.offsets() == [10])  # polled


async def test_waiting_for_a_store_that_is_behind_the_stream_is_no_busy_loop():
    """Kafka is away, and what another client was told from it is not in the store yet."""
    async with running(Gateway(store_timeout=0.3)) as gateway:
        gateway.confirm()
        gateway.log.length, gateway.store.position = 10, 5
        await gateway.enter(Client())
        gateway.log.away = True
        gateway.store.looks = 0
        client = Client()
        await gateway.enter(client, since=-1)
        assert client.told[0]["reason"] == "store_lag"
        assert client.cursor == 9
        assert gateway.store.looks < 10


async def test_many_who_are_far_behind_do_not_keep_others_waiting():
    """And who has left is not looked for."""

    class Slow(Store):
        def __init__(self) -> None:
            self.position = 10_000
            self.found: list[int] = []

        async def pages(self, queries: list[Query], limit: int) -> list[Page]:
            found = await super().pages(queries, limit)
            self.found.append(sum(len(page.rows) for page in found))
            await asyncio.sleep(self.found[-1] / 1_000_000)
            return found

    store = Slow()
    reads = Reads(store, limit=10_000)  # type: ignore[arg-type]
    running = asyncio.create_task(reads.run())
    behind = [asyncio.create_task(reads.pages([Query(SOURCE, 0, -1)])) for _ in range(100)]
    await until(lambda: len(store.found) > 1)
    (page,) = await asyncio.wait_for(reads.pages([Query(SOURCE, 0, 9_998)]), 30)
    assert page.rows == [row(9_999)]
    assert sum(task.done() for task in behind) == 100  # they were there before
    assert max(store.found[1:]) <= 2 * 20_000
    looks = len(store.found)
    behind = [asyncio.create_task(reads.pages([Query(SOURCE, 0, -1)])) for _ in range(100)]
    await until(lambda: len(store.found) > looks)
    for task in behind:
        task.cancel()
    await asyncio.wait(behind)
    await reads.pages([Query(SOURCE, 0, 9_998)])
    assert len(store.found) <= looks + 2
    running.cancel()
    await asyncio.wait([running])
