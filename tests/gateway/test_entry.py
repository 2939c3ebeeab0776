"""Moments of a client's way in that the real stack seldom gives: each wait is held and let go by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import asynccontextmanager, nullcontext
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from dualstream_lab.config import ServeSettings
from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.gateway.entry import Entry
from dualstream_lab.gateway.hub import Hub
from dualstream_lab.gateway.log import Tail
from dualstream_lab.gateway.past import Positions
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.gateway.since import EARLIEST, Refused
from dualstream_lab.kafka_log import LogIdentity
from dualstream_lab.store import Page, Place, Query, Row
from tests.gateway.serving import until

SOURCE = "repo:octo/hello"
CHANNEL = f"events:{SOURCE}".encode()
EPOCH = "e0"


def identity(epoch: str = EPOCH, partitions: int = 1) -> LogIdentity:
    return LogIdentity(epoch=epoch, partitions=partitions, origin=epoch)


class Log:
    """All of whose events are the source's, each partition's. ``hold``: answers wait for the test."""

    def __init__(self) -> None:
        self.identity = identity()
        self.lengths = {0: 0}
        self.at_home: tuple[int, ...] = (0,)
        self.hold: asyncio.Event | None = None
        self.asked = 0
        self.away = False
        self.forgot = False

    @property
    def length(self) -> int:
        return self.lengths[0]

    @length.setter
    def length(self, length: int) -> None:
        self.lengths[0] = length

    @property
    def known(self) -> Positions:
        return {}

    def homes(self, source: str) -> tuple[int, ...]:
        return self.at_home

    @property
    def reach(self) -> Positions:
        return Reach(self)

    async def ends(self, partitions: Iterable[int]) -> Positions:
        ends = {partition: self.lengths[partition] for partition in partitions}
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            raise StreamUnavailable("away")
        return ends

    async def each_end(self, partitions: Iterable[int]) -> tuple[Positions, dict[int, str]]:
        asked = list(partitions)
        try:
            return await self.ends(asked), {}
        except StreamUnavailable as error:
            return {}, dict.fromkeys(asked, str(error))

    async def has(self, partitions: Iterable[int]) -> bool:
        return all(partition < self.identity.partitions for partition in partitions)

    async def read(self, source: str, partition: int, first: int, end: int) -> Tail:
        if self.away:
            raise StreamUnavailable("away")
        return Tail(end, [row(offset, partition) for offset in range(first, end)])


class Reach(dict[int, int]):
    """As far as the log goes at any moment, and a little further."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def get(self, partition: int, default: Any = 0) -> int:
        length = self._log.lengths.get(partition)
        return default if length is None or self._log.forgot else length + 10


class Store:
    """Has the log below its positions."""

    def __init__(self) -> None:
        self.at = {0: 0}
        self.looks = 0

    @property
    def position(self) -> int:
        return self.at[0]

    @position.setter
    def position(self, position: int) -> None:
        self.at[0] = position

    async def places(self) -> dict[int, Place]:
        return {partition: Place(position, 0) for partition, position in self.at.items()}

    async def pages(self, queries: list[Query], limit: int) -> list[Page]:
        self.looks += 1
        return [await self.page(query.after) for query in queries]

    async def page(self, after: Positions) -> Page:
        rows = [
            row(offset, partition)
            for partition, position in self.at.items()
            for offset in range(after.get(partition, -1) + 1, position)
        ]
        through = {partition: position - 1 for partition, position in self.at.items()}
        first = {partition: 0 for partition, position in self.at.items() if position}
        return Page(await self.places(), first, rows, through, False)


class Upstream:
    """Confirms when the test says so."""

    def __init__(self) -> None:
        self.effective = asyncio.Event()

    async def subscribe(self, channel: bytes) -> str | None:
        await self.effective.wait()
        return None

    def confirms(self, channel: bytes) -> bool:
        return self.effective.is_set()

    def unsubscribe(self, channel: bytes) -> None:
        pass


class Client:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def catch_up_slot(self) -> Any:
        return nullcontext()

    def send(self, frames: list[Any], shared: dict[str, bytes], source: str) -> None:
        self.told += [msgspec.json.decode(frame.body) for frame in frames]

    def catch_up(self, frames: list[Any], source: str) -> None:
        self.send(frames, {}, source)

    def places(self) -> list[str]:
        return [message["pos"] for message in self.told if message["kind"] == "event"]

    def offsets(self) -> list[int]:
        """In partition 0."""
        return [int(offset) for partition, _, offset in (p.partition(":") for p in self.places())]

    @property
    def cursor(self) -> int:
        """Of the word that it is subscribed."""
        (said,) = [message for message in self.told if message["kind"] == "subscribed"]
        return int(said["cursor"].rpartition(":")[2])


def row(offset: int, partition: int = 0) -> Row:
    return Row(partition, offset, f"id-{partition}-{offset}", "push", 1)


class Gateway:
    """The hub and the way in, on a log, a store and a Redis of the test."""

    def __init__(self, **values: object) -> None:
        settings = ServeSettings.load(**({"check_interval": 300, "subscribe_timeout": 0.05} | values))
        self.log, self.store, self.upstream = Log(), Store(), Upstream()
        self.reads = Reads(self.store, limit=100)  # type: ignore[arg-type]
        self.hub = Hub(settings, self.reads, self.log)
        self.hub.upstream = self.upstream  # type: ignore[assignment]
        self.entry = Entry(settings, self.hub, self.reads, self.log)

    def confirm(self) -> None:
        self.upstream.effective.set()
        self.hub.confirmed([CHANNEL])

    def receive(self, offset: int, partition: int = 0, **other: object) -> None:
        note = {
            "id": f"id-{partition}-{offset}",
            "type": "push",
            "source_id": SOURCE[5:],
            "pos": f"{partition}:{offset}",
            "log": self.log.identity.epoch,
        }
        self.hub.receive(CHANNEL, msgspec.json.encode(note | other))

    async def enter(self, client: Client, since: Any = None) -> None:
        await self.entry.enter(client, SOURCE, since)


@pytest.fixture
async def gateway():
    async with running(Gateway()) as made:
        yield made


@asynccontextmanager
async def running(gateway: Gateway):
    tasks = [
        asyncio.create_task(work())
        for work in (gateway.reads.run, gateway.hub.repairs.run, gateway.hub.claims.run)
    ]
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
        gateway.receive(offset)
    gateway.hub.repairs.reconcile(gateway.hub.feeds[SOURCE])
    await until(lambda: gateway.hub.feeds[SOURCE].stream.confirmed == {0: 11})
    gateway.log.hold.set()
    await coming
    gateway.log.length = 13
    gateway.receive(12)
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
        await gateway.enter(client, since=EARLIEST)
        assert client.told[0]["reason"] == "store_lag"
        assert client.cursor == 9
        assert gateway.store.looks < 10


async def test_many_who_are_far_behind_do_not_keep_others_waiting():
    """And who has left is not looked for."""

    class Slow(Store):
        def __init__(self) -> None:
            super().__init__()
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
    behind = [asyncio.create_task(reads.pages([Query(SOURCE, {})])) for _ in range(100)]
    await until(lambda: len(store.found) > 1)
    (page,) = await asyncio.wait_for(reads.pages([Query(SOURCE, {0: 9_998})]), 30)
    assert page.rows == [row(9_999)]
    assert sum(task.done() for task in behind) == 100  # they were there before
    assert max(store.found[1:]) <= 2 * 20_000
    looks = len(store.found)
    behind = [asyncio.create_task(reads.pages([Query(SOURCE, {})])) for _ in range(100)]
    await until(lambda: len(store.found) > looks)
    for task in behind:
        task.cancel()
    await asyncio.wait(behind)
    await reads.pages([Query(SOURCE, {0: 9_998})])
    assert len(store.found) <= looks + 2
    running.cancel()
    await asyncio.wait([running])


async def test_a_long_past_is_told_in_pieces_and_what_comes_between_them_once(gateway):
    gateway.confirm()
    gateway.log.length = gateway.store.position = 5_000
    between: list[int] = []

    def two_events() -> None:
        between.append(len(coming.told))
        gateway.log.length, gateway.store.position = 5_002, 5_001
        for offset in (5_000, 5_001):
            gateway.receive(offset)

    class Coming(Client):
        def catch_up(self, frames: list[Any], source: str) -> None:
            if not self.told:
                asyncio.get_running_loop().call_soon(two_events)
            super().catch_up(frames, source)

    live, coming = Client(), Coming()
    await gateway.enter(live)
    await gateway.enter(coming, since=EARLIEST)
    await until(lambda: live.offsets() == [5_000, 5_001])
    await until(lambda: len(coming.offsets()) >= 5_002)
    assert 0 < between[0] <= 1_000, "the loop had to wait for all of it"
    assert coming.offsets() == list(range(5_002))
    assert [message["kind"] for message in coming.told if message["kind"] != "event"] == ["subscribed"]


async def test_many_late_events_are_told_in_pieces_and_nobody_waits_for_all_of_them(gateway):
    gateway.confirm()
    live, second, resumed = Client(), Client(), Client()
    await gateway.enter(live)
    gateway.log.length = gateway.store.position = 5_000  # announced to nobody
    told = [len(live.told)]  # after each turn of the loop

    async def others() -> None:
        while True:
            gateway.hub._flush()
            told.append(len(live.told))
            if len(live.told) > 1_000 and gateway.log.length == 5_000:
                gateway.log.length = gateway.store.position = 5_001
                gateway.receive(5_000)
            await asyncio.sleep(0)

    feed = gateway.hub.feeds[SOURCE]
    (page,) = await gateway.reads.pages([Query(SOURCE, feed.stream.confirmed)])
    running = asyncio.create_task(others())
    await gateway.hub.repairs.settle(feed, feed.stream, page)
    running.cancel()
    gateway.hub._flush()
    steps = [after - before for before, after in pairwise([*told, len(live.told)])]
    assert 0 < max(steps) <= 300, "the loop had to wait for all of it"
    await gateway.enter(second, since=EARLIEST)
    await until(lambda: len(live.offsets()) > 5_000)
    assert sorted(live.offsets()) == list(range(5_001))
    assert live.offsets().index(5_000) < 5_000, "what comes between them is told at once"
    # Whoever was cut off there gets the rest.
    said = next(m for m in live.told if m.get("pos") == "0:5000")
    await gateway.enter(resumed, since=Cursor.parse(said["cursor"]))
    at = live.offsets().index(5_000)
    assert sorted({*live.offsets()[: at + 1], *resumed.offsets()}) == list(range(5_001))


async def test_a_source_in_several_partitions_is_caught_up_in_all_and_heard_in_all(gateway):
    gateway.log.identity = identity(partitions=3)
    gateway.log.lengths = {0: 2, 1: 0, 2: 3}
    gateway.store.at = {0: 2, 1: 0, 2: 3}
    gateway.confirm()
    client = Client()
    await gateway.enter(client, since=EARLIEST)
    assert sorted(client.places()) == ["0:0", "0:1", "2:0", "2:1", "2:2"]
    cursors = [message["cursor"] for message in client.told]
    assert cursors[-1] == f"{EPOCH}:0:1~2:2"
    assert cursors[0] == f"{EPOCH}:0:0~2:-1"
    for partition in (1, 2):
        gateway.log.lengths[partition] += 1
        gateway.receive(gateway.log.lengths[partition] - 1, partition)
    await until(lambda: client.places()[5:] == ["1:0", "2:3"])
    gateway.store.at = {0: 2, 1: 1, 2: 4}
    gateway.hub.repairs.reconcile(gateway.hub.feeds[SOURCE])
    await until(lambda: gateway.hub.feeds[SOURCE].cursor == f"{EPOCH}:0:1~1:0~2:3")
    assert len(client.places()) == 7, "nothing twice"


async def test_one_partition_that_the_store_lacks_is_read_from_kafka(gateway):
    gateway.log.identity = identity(partitions=2)
    gateway.log.lengths = {0: 3, 1: 4}
    gateway.log.at_home = (0, 1)
    gateway.store.at = {0: 3, 1: 1}
    gateway.confirm()
    client = Client()
    await gateway.enter(client, since=EARLIEST)
    assert sorted(client.places()) == ["0:0", "0:1", "0:2", "1:0", "1:1", "1:2", "1:3"]
    assert client.told[-1]["recovered"] is True
    assert client.told[-1]["cursor"] == f"{EPOCH}:0:2~1:3"
    gateway.store.at = {0: 3, 1: 4}
    other = Client()
    await gateway.enter(other, since=EARLIEST)
    assert sorted(other.places()) == sorted(client.places())


async def test_partitions_are_added_under_a_client(gateway):
    gateway.log.length = gateway.store.position = 2
    gateway.confirm()
    client = Client()
    await gateway.enter(client)
    before = gateway.log.identity
    gateway.log.identity = identity(partitions=2)
    gateway.log.lengths[1] = 0
    gateway.log.at_home = (0, 1)
    gateway.hub.change(before, gateway.log.identity)
    gateway.log.lengths[1] = 2  # announced to nobody
    gateway.hub.repairs.fence([gateway.hub.feeds[SOURCE]])
    gateway.store.at = {0: 2, 1: 2}
    await until(lambda: client.places() == ["1:0", "1:1"])
    assert gateway.hub.feeds[SOURCE].cursor == f"{EPOCH}:0:1~1:1"


async def test_a_log_made_anew_is_told_and_all_of_it_is_new(gateway):
    gateway.log.length = gateway.store.position = 5
    gateway.confirm()
    client = Client()
    await gateway.enter(client)
    before, gateway.log.identity = gateway.log.identity, identity("e1")
    gateway.log.length = gateway.store.position = 0
    gateway.hub.change(before, gateway.log.identity)
    await until(lambda: len(client.told) == 2)
    assert client.told[1] == {
        "kind": "subscribed",
        "source": SOURCE,
        "cursor": "e1:0:-1",
        "recovered": False,
        "reason": "epoch_changed",
    }
    gateway.log.length = 2
    gateway.receive(1)
    gateway.receive(1, log=EPOCH)
    gateway.store.position = 2
    gateway.hub.repairs.reconcile(gateway.hub.feeds[SOURCE])
    await until(lambda: client.offsets() == [1, 0])
    assert gateway.hub.stats.other_epoch == 1
    late = Client()
    await gateway.enter(late, since=Cursor.parse(f"{EPOCH}:0:3"))
    assert late.told[0]["reason"] == "epoch_changed"


async def test_a_log_made_anew_on_a_clients_way_in(gateway):
    gateway.log.length = gateway.store.position = 5
    gateway.confirm()
    gateway.log.hold = asyncio.Event()
    client = Client()
    coming = asyncio.create_task(gateway.enter(client, since=Cursor.parse(f"{EPOCH}:0:1")))
    await until(lambda: gateway.log.asked == 1)  # answered: 5, of the log before
    before, gateway.log.identity = gateway.log.identity, identity("e1")
    gateway.log.length = gateway.store.position = 3
    gateway.hub.change(before, gateway.log.identity)
    gateway.log.hold.set()
    await coming
    assert client.told[0]["reason"] == "epoch_changed"
    assert client.told[0]["cursor"].startswith("e1:0:"), "and no fence of the log before"
    gateway.log.length = gateway.store.position = 6
    gateway.receive(5)
    gateway.hub.repairs.reconcile(gateway.hub.feeds[SOURCE])
    await until(lambda: sorted(client.offsets()) == list(range(client.cursor + 1, 6)))
    assert client.cursor < 3


async def test_notifications_of_another_log_or_source_are_nobodys(gateway):
    gateway.log.length = gateway.store.position = 2
    gateway.confirm()
    client = Client()
    await gateway.enter(client)
    gateway.log.length = 4
    gateway.receive(2, log="0123456789ab")
    gateway.receive(2, source_id="somebody/else")
    gateway.receive(2, pos="x:2")
    gateway.receive(3)
    await until(lambda: client.offsets() == [3])
    stats = gateway.hub.stats
    assert (stats.other_epoch, stats.unrecognized, stats.received) == (1, 2, 1)
    gateway.store.position = 4
    gateway.receive(2, log=None)  # of a publisher of the version before: only a hint
    await until(lambda: client.offsets() == [3, 2])
    assert client.told[-1]["late"] is True
    assert stats.bare == 1


async def test_what_redis_says_beyond_the_end_is_asked_of_kafka_and_dropped(gateway):
    """And neither it nor a hole in the numbers makes the feed wait for what is not there."""
    gateway.log.length = gateway.store.position = 2
    gateway.confirm()
    client = Client()
    await gateway.enter(client)
    feed = gateway.hub.feeds[SOURCE]
    gateway.receive(10**15, pub="n:1")
    gateway.log.length = 3
    gateway.receive(2, pub="n:5")
    gateway.store.position = 3
    await until(lambda: gateway.hub.claims.beyond == 1)
    gateway.hub.lost("gone")
    gateway.hub.confirmed([CHANNEL])
    await until(lambda: client.told[-1]["kind"] == "live")
    assert client.offsets() == [2]
    assert not feed.stream.needs


async def test_what_is_far_ahead_and_true_is_told(gateway):
    gateway.log.length = gateway.store.position = 2
    gateway.confirm()
    client = Client()
    await gateway.enter(client)
    gateway.log.forgot = True  # as if nothing had been asked for long
    gateway.log.length = 50_000
    gateway.receive(49_000)
    await until(lambda: client.offsets() == [49_000])


async def test_what_comes_while_kafka_is_asked_waits_behind_what_it_is_asked_for(gateway):
    """The first event in a partition that was added, which is known by the time that the next one comes."""
    gateway.log.length = gateway.store.position = 2
    gateway.confirm()
    client = Client()
    await gateway.enter(client)
    gateway.log.length = 6
    gateway.log.hold = asyncio.Event()
    gateway.log.forgot = True
    gateway.receive(2)
    await until(lambda: gateway.log.asked == 2)
    gateway.log.forgot = False
    for offset in (3, 4):
        gateway.receive(offset)
    gateway.log.hold.set()
    await until(lambda: len(client.offsets()) == 3)
    gateway.receive(5)
    await until(lambda: len(client.offsets()) == 4)
    assert client.offsets() == [2, 3, 4, 5]


async def test_without_kafka_what_is_told_is_whole_up_to_its_cursor(gateway):
    gateway.log.length = gateway.store.position = 5
    gateway.confirm()
    gateway.log.away = True
    client = Client()
    await gateway.enter(client, since=Cursor.parse(f"{EPOCH}:0:2"))
    assert client.offsets() == [3, 4]
    (said,) = [message for message in client.told if message["kind"] == "subscribed"]
    assert (said["recovered"], said["reason"], said["cursor"]) == (False, "log_unavailable", f"{EPOCH}:0:4")
    gateway.log.away = False
    gateway.log.length = gateway.store.position = 7  # announced to nobody
    await until(lambda: client.offsets() == [3, 4, 5, 6])


async def test_a_cursor_of_partitions_that_the_log_does_not_have(gateway):
    gateway.confirm()
    with pytest.raises(Refused, match="partition 4; the topic has 1"):
        await gateway.enter(Client(), since=Cursor.parse(f"{EPOCH}:0:1~4:7"))
    await asyncio.sleep(0)
    assert not gateway.hub.feeds[SOURCE].users


async def test_a_cursor_of_the_format_before_stays_valid(gateway):
    """Its epoch counted the partitions in: those of fewer partitions name the same log."""
    gateway.log.identity = identity(partitions=9)
    gateway.log.lengths = gateway.store.at = dict.fromkeys(range(9), 4)
    gateway.log.at_home = (0, 7)
    gateway.confirm()
    for epoch in sorted(gateway.log.identity.former_epochs()):
        client = Client()
        await gateway.enter(client, since=Cursor.parse(f"{epoch}:0:2"))
        assert next(m for m in client.told if m["kind"] == "subscribed")["recovered"] is True
        assert "0:3" in client.places()
        assert "0:2" not in client.places()
        assert "7:0" in client.places()
    client = Client()
    await gateway.enter(client, since=Cursor.parse("0123456789ab:0:2"))
    assert client.told[0]["reason"] == "epoch_changed"
