"""Faults under load: every client that stays, or resumes with its cursor, has every event, by id.

Forty clients follow ten sources through the real publisher, brokers, processor and gateway; half of them drop
without a word at random moments and resume. The topic, read back by a consumer of its own, is the oracle.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import msgspec
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from dualstream_lab import DualPublisher, Event
from dualstream_lab.config import Settings
from dualstream_lab.errors import PublishError
from dualstream_lab.stack import LocalStack
from tests.gateway.estate import metric
from tests.gateway.serving import Delivery, Server, until
from tests.publisher.helpers import read_log

pytestmark = pytest.mark.timeout(300)

SOURCES = [f"repo:storm/{number}" for number in range(10)]
RATE = 5000
_LANES = 8  # calls of `publish_batch` that may be open
CHECK = 2.0  # s: check_interval
SESSION = {"kafka_log.group._SESSION": 3.0}  # s until a killed processor is forgotten
# What a fault may cost beyond its end: the longest pause between two looks, and reconnecting.
BOUND = 1.5 * CHECK + 5


class Message(msgspec.Struct, omit_defaults=True):
    kind: str
    source: str = ""
    id: str = ""
    pos: str = ""
    cursor: str = ""
    recovered: bool | None = None
    reason: str | None = None
    error: str | None = None


decode = msgspec.json.Decoder(Message).decode


class Connection:
    """What was told on one connection: of each event and each word that has a cursor, in order."""

    def __init__(self) -> None:
        self.ids = array("q")  # -1: no event
        self.offsets = array("q")
        self.cursors = array("q")
        self.times = array("d")
        self.states: list[tuple[float, str]] = []
        self.began: float | None = None  # when it was told that it is subscribed
        self.ended = float("inf")


class Follower:
    """A client of one source, for as long as the test; ``restless``: drops at random and resumes."""

    def __init__(self, server: Server, source: str, *, restless: bool, seed: int) -> None:
        self.server = server
        self.source = source
        self.restless = restless
        self.random = random.Random(seed)
        self.cursor = self.asked = "latest"
        self.base: int | None = None
        self.based_at = 0.0
        self.first = 0  # the connection that it began with
        self.connections: list[Connection] = []
        self.refusals: list[tuple[float, str]] = []
        self.task: asyncio.Task[None] | None = None
        self.life: asyncio.Timeout

    async def run(self) -> None:
        while True:
            self.asked = self.cursor
            connection = Connection()
            self.connections.append(connection)
            with suppress(OSError, TimeoutError, WebSocketException, aiohttp.ClientError):
                async with asyncio.timeout(None) as self.life:
                    if self.random.random() < 0.3:  # the others at least wait for their past
                        self.live_on()
                    await self.follow(connection)
            connection.ended = time.monotonic()
            await asyncio.sleep(self.random.uniform(0.05, 0.5))

    def live_on(self) -> None:
        """For a moment more, if restless."""
        if self.restless:
            self.life.reschedule(asyncio.get_running_loop().time() + self.random.uniform(0.05, 1.5))

    async def follow(self, connection: Connection) -> None:
        raise NotImplementedError

    def receive(self, connection: Connection, body: bytes | str) -> None:
        message = decode(body)
        now = time.monotonic()
        if message.kind == "event":
            connection.ids.append(int(message.id))
            connection.offsets.append(int(message.pos.partition(":")[2]))
        else:
            connection.states.append((now, message.kind))
            connection.ids.append(-1)
            connection.offsets.append(-1)
        place = int(message.cursor.rpartition(":")[2]) if message.cursor else -1
        connection.cursors.append(place)
        connection.times.append(now)
        if message.cursor:
            self.cursor = message.cursor
        if message.kind == "subscribed":
            connection.began = now
            self.live_on()
            if message.recovered is not True:
                # Told, and so no gap: it begins anew. When that may be is checked.
                self.refusals.append((now, f"{message.reason}, since {self.asked}"))
                self.first, self.base, self.based_at = len(self.connections) - 1, place, now
            if self.base is None:
                self.base, self.based_at = place, now

    def __str__(self) -> str:
        ended = self.connections[-1].ended - time.monotonic()
        last = [kind for connection in self.connections for _, kind in connection.states][-3:]
        return (
            f"{type(self).__name__} of {self.source}{' restless' * self.restless} at {self.cursor}, "
            f"connection {len(self.connections)} (ended {ended:.1f} s), last {last}"
        )

    @property
    def query(self) -> str:
        return f"?source={self.source}&since={self.cursor}"


class WebSocketFollower(Follower):
    """By the package `websockets`."""

    async def follow(self, connection: Connection) -> None:
        url = self.server.ws + self.query
        async with connect(url, compression=None, max_queue=None, proxy=None, open_timeout=20) as socket:
            try:
                async for text in socket:
                    self.receive(connection, text)
            finally:
                socket.transport.abort()


class SseFollower(Follower):
    """By aiohttp, line by line; resumes with Last-Event-ID, as a browser does."""

    async def follow(self, connection: Connection) -> None:
        headers = {} if self.cursor == "latest" else {"Last-Event-ID": self.cursor}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=20)
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=2**20) as session,
            session.get(f"{self.server.url}/sse?source={self.source}", headers=headers) as answer,
        ):
            answer.raise_for_status()
            async for line in answer.content:
                if line.startswith(b"data:"):
                    self.receive(connection, line[5:])


class LightFollower(Follower):
    """A WebSocket client that costs next to nothing, so that there can be many."""

    async def follow(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        wire, protocol = await loop.create_connection(
            lambda: _Frames(lambda body: self.receive(connection, body)), *self.server.address
        )
        try:
            wire.write(
                f"GET /ws{self.query} HTTP/1.1\r\nHost: localhost\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            await protocol.ended
        finally:
            wire.abort()


class _Frames(asyncio.Protocol):
    """Unmasked frames that come whole, one after the other."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        self._received = heard
        self._rest = b""
        self._open = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        start = 0
        if not self._open:
            head, found, _ = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = data
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._transport.abort()
                return
            self._open = True
            start = len(head) + 4
        while len(data) - start >= 2:
            size, begin = data[start + 1], start + 2
            if size == 126:
                size, begin = int.from_bytes(data[start + 2 : start + 4]), start + 4
            if len(data) < begin + size:
                break
            if data[start] == 0x81:
                self._received(data[begin : begin + size])
            elif data[start] == 0x89:
                self._transport.write(b"\x8a\x80\x00\x00\x00\x00")
            elif data[start] == 0x88:
                self._transport.abort()
            start = begin + size
        self._rest = data[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Storm:
    """Publishers at work, and followers. ``acked``: (call began, answered, offset) of a source's events."""

    def __init__(self, settings: Settings, server: Server) -> None:
        kinds = [LightFollower, LightFollower, LightFollower, WebSocketFollower, SseFollower]
        self.followers = [
            kinds[(number + 2 * round_) % 5](
                # Two sources have nobody who stays: they are given up on Redis, and subscribed to again.
                *(server, source),
                restless=round_ % 2 == 1 or number > 7,
                seed=4 * number + round_,
            )
            for round_ in range(4)
            for number, source in enumerate(SOURCES)
        ]
        self.server = server
        self.acked: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
        self.windows: list[tuple[float, float]] = []  # of faults: from, to
        self.kafka_away: list[tuple[float, float]] = []
        self.seconds = 0.0
        self._settings = settings
        self._stop = asyncio.Event()
        self._number = 0

    @asynccontextmanager
    async def raging(self) -> AsyncIterator[None]:
        async with (
            DualPublisher(self._settings) as one,
            DualPublisher(self._settings) as other,
            asyncio.TaskGroup() as group,
        ):
            for follower in self.followers:
                follower.task = group.create_task(follower.run())
            await until(lambda: all(follower.base is not None for follower in self.followers))
            lanes = [
                group.create_task(self._publish(publisher)) for publisher in (one, other) * (_LANES // 2)
            ]
            began = time.monotonic()
            try:
                await asyncio.sleep(1)
                yield
                self._stop.set()
                await asyncio.wait(lanes)
                self.seconds = time.monotonic() - began
                await self.caught_up(timeout=BOUND + 10)
            finally:
                for task in [*lanes, *(follower.task for follower in self.followers)]:
                    assert task is not None
                    task.cancel()

    async def _publish(self, publisher: DualPublisher) -> None:
        pause = _LANES * 10 * len(SOURCES) / RATE
        due = time.monotonic()
        while not self._stop.is_set():
            await self.publish(publisher, SOURCES, 10)
            due = max(due + pause, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def publish(self, publisher: DualPublisher, sources: list[str], each: int) -> None:
        batch = []
        for source in sources:
            for _ in range(each):
                self._number += 1
                batch.append(
                    Event(id=str(self._number), type="push", source_type="repo", source_id=source[5:], data=1)
                )
        began = time.monotonic()
        with suppress(PublishError):  # what became of them is seen in the log
            receipt = await publisher.publish_batch(batch)
            now = time.monotonic()
            for event, one in zip(batch, receipt, strict=True):
                self.acked[f"repo:{event.source_id}"].append((began, now, one.offset))

    async def burst(self, count: int) -> None:
        """Besides, from two publishers at once."""
        async with DualPublisher(self._settings) as one, DualPublisher(self._settings) as other:
            await asyncio.gather(*(self.publish(p, SOURCES[:2], count // 4) for p in (one, other)))
            await one.flush()
            await other.flush()

    @asynccontextmanager
    async def fault(self, *, degrades: bool) -> AsyncIterator[None]:
        """``degrades``: who stays connected is told so, and then that it is live again."""
        await asyncio.sleep(1)
        began = time.monotonic()
        steady = [follower for follower in self.followers if not follower.restless]
        connections = [follower.connections[-1] for follower in steady]
        yield
        self.windows.append((began, time.monotonic()))
        if degrades:

            def again() -> bool:
                words = [[kind for at, kind in one.states if at > began] for one in connections]
                states = [[kind for kind in said if kind in {"degraded", "live"}] for said in words]
                return all(said[:1] == ["degraded"] and said[-1] == "live" for said in states)

            await until(again, timeout=BOUND + 5)
            for follower, connection in zip(steady, connections, strict=True):
                assert follower.connections[-1] is connection, "a client was dropped"

    @property
    def published(self) -> int:
        """Events that were acknowledged so far."""
        return sum(map(len, self.acked.values()))

    async def all_back(self) -> None:
        """Until all who stay are connected again, with their past."""
        steady = [follower for follower in self.followers if not follower.restless]
        await until(lambda: all(follower.connections[-1].began for follower in steady), timeout=30)

    async def caught_up(self, *, timeout: float) -> None:
        """Until all are told what is acknowledged now. (A missing event holds no cursor back.)"""
        last = {source: max(offset for _, _, offset in events) for source, events in self.acked.items()}

        def behind() -> list[str]:
            return [
                f"{follower} wants {last[follower.source]}"
                for follower in self.followers
                if int(follower.cursor.rpartition(":")[2]) < last[follower.source]
            ]

        try:
            await until(lambda: not behind(), timeout=timeout)
        except TimeoutError:
            raise AssertionError(f"after {timeout} s: {'; '.join(behind())}") from None

    def degraded(self) -> bool:
        """Whether all who stay were told that Redis is away, and nothing better since."""
        states = [
            [kind for _, kind in follower.connections[-1].states if kind in {"degraded", "live"}][-1:]
            for follower in self.followers
            if not follower.restless
        ]
        return all(said == ["degraded"] for said in states)

    async def check(self, kafka_url: str, topic: str) -> None:
        """Against the log, by id."""
        log: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for record in await read_log(kafka_url, topic):
            event = msgspec.json.decode(record.value, type=_Value)
            log[f"repo:{event.source_id}"].append((record.offset, int(event.id)))
        total = sum(map(len, log.values()))
        told = late = 0
        worst = 0.0
        for follower in self.followers:
            assert follower.base is not None
            self._refused_for_a_reason(follower)
            self._base_was_true(follower)
            told += _compare(follower, log[follower.source])
            waits = self._waits(follower)
            worst = max([worst, *waits])
            late += sum(wait > BOUND for wait in waits)
        assert late == 0, (
            f"{late} events came more than {BOUND} s after fault and publication, at worst {worst:.1f} s"
        )
        connections = sum(len(follower.connections) for follower in self.followers)
        print(
            f"\n{total:,} events in {self.seconds:.0f} s, {len(self.followers)} clients, "
            f"{connections} connections, {told:,} told: 0 gaps, 0 duplicates; "
            f"at worst {worst:.2f} s after fault and publication"
        )

    def _refused_for_a_reason(self, follower: Follower) -> None:
        """Only while Kafka is away may what the store lacks be out of reach."""
        for at, reason in follower.refusals:
            away = any(start <= at <= end + BOUND for start, end in self.kafka_away)
            known = reason.startswith(("store_lag", "log_unavailable"))
            assert known and away, f"{follower}: {at}, {reason}, {self.windows}"  # noqa: PT018

    def _base_was_true(self, follower: Follower) -> None:
        """What was published after it was subscribed is not counted as its past."""
        for began, _, offset in self.acked[follower.source]:
            assert began < follower.based_at or offset > (follower.base or 0)

    def _waits(self, follower: Follower) -> list[float]:
        """Of events published during a connection that lasted: how long after that, or the fault's end."""
        waits = []
        for connection in follower.connections:
            if connection.began is None or connection.ended - connection.began < BOUND:
                continue
            arrived = dict(zip(connection.offsets, connection.times, strict=True))
            for _, at, offset in self.acked[follower.source]:
                ended = max([at, *(end for start, end in self.windows if start - 1 <= at <= end)])
                if connection.began <= at and ended + BOUND < connection.ended:
                    waits.append(arrived.get(offset, float("inf")) - ended)
        return waits


class _Value(msgspec.Struct):
    id: str
    source_id: str


def _compare(follower: Follower, log: list[tuple[int, int]]) -> int:
    """What a follower was told and what the log has. Returns how many events it was told.

    Nothing is missing, nothing came twice on one connection, nothing is made up; and whenever a cursor was
    given, everything up to it had been told: whoever is cut off there loses nothing by resuming.
    """
    ids = dict(log)
    assert follower.base is not None
    log = [entry for entry in log if entry[0] > (follower.base or 0)]
    known: set[int] = set()
    place = count = 0
    for number, connection in enumerate(follower.connections[follower.first :]):
        here: set[int] = set()
        for name, offset, cursor in zip(connection.ids, connection.offsets, connection.cursors, strict=True):
            if name >= 0:
                assert ids.get(offset) == name, f"{name} is not at {offset}"
                assert name not in here, f"{follower.source}: {name} twice on connection {number}"
                here.add(name)
                known.add(name)
                count += 1
            while place < len(log) and log[place][0] <= cursor:
                assert log[place][1] in known, (
                    f"{type(follower).__name__} of {follower.source}, connection {number} of "
                    f"{len(follower.connections)}: cursor {cursor} was given before {log[place]} was told"
                )
                place += 1
    missing = [entry for entry in log if entry[1] not in known]
    assert not missing, f"{type(follower).__name__} of {follower.source} lacks {len(missing)}: {missing[:5]}"
    return count


@asynccontextmanager
async def storm(stack: LocalStack, topic: str) -> AsyncIterator[tuple[Storm, Server, Server, Delivery]]:
    with Delivery(
        stack, topic, check_interval=CHECK, linger=0.1, catch_up_events=50_000, store_timeout=6.0
    ) as delivery:
        processor = await asyncio.to_thread(lambda: delivery.start("processor", constants=SESSION))
        gateway = await asyncio.to_thread(lambda: delivery.start("gateway"))
        settings = Settings.load(
            kafka_url=stack.kafka_url, redis_url=stack.redis_url, topic=topic, delivery_timeout=60
        )
        made = Storm(settings, gateway)
        yield made, processor, gateway, delivery
        await made.check(stack.kafka_url, topic)
        delivery.assert_no_traceback()


async def connects(server: Server) -> float:
    """To Redis, so far."""
    return await metric(server, "redis_connects_total")


async def test_redis_in_trouble(stack, topic):
    """Killed, muted, its clients killed, its output buffer exceeded."""
    async with storm(stack, topic) as (made, _, gateway, _), made.raging():
        async with made.fault(degrades=True):
            stack.redis.kill()
            await until(made.degraded)
            await asyncio.sleep(1)
            await asyncio.to_thread(stack.redis.start)
        async with made.fault(degrades=True):
            stack.redis.pause()
            await until(made.degraded)
            stack.redis.resume()
        async with Redis.from_url(stack.redis_url) as redis:
            async with made.fault(degrades=True):
                await redis.client_kill_filter(_type="pubsub")
            before = await connects(gateway)
            limits = (await redis.config_get("client-output-buffer-limit"))["client-output-buffer-limit"]
            async with made.fault(degrades=True):
                await redis.config_set("client-output-buffer-limit", "pubsub 1 0 0")
                async with asyncio.timeout(20):
                    while await connects(gateway) == before:
                        await made.burst(4000)
                await redis.config_set("client-output-buffer-limit", limits)


async def test_processes_die(stack, topic):
    """Gateway and processor killed, so that who resumes is served from Kafka; then Kafka killed, too."""
    async with storm(stack, topic) as (made, processor, gateway, _), made.raging():
        async with made.fault(degrades=False):
            gateway.kill()
            await gateway.start()
            await made.all_back()
        async with made.fault(degrades=False):
            processor.kill()
            await asyncio.sleep(1)
            gateway.kill()
            await gateway.start()
            await made.all_back()
            await processor.start()
            await made.caught_up(timeout=60)
        async with made.fault(degrades=False):
            stack.brokers[0].kill()
            await asyncio.to_thread(stack.brokers[0].start)
            count = made.published
            await until(lambda: made.published > count, timeout=60)
        made.kafka_away.append(made.windows[-1])
