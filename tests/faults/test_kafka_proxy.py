"""The fault proxy of a Kafka cluster: clients never get to know another way."""

from __future__ import annotations

import asyncio
import struct
import uuid
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import ApiVersionResponse_v1
from aiokafka.protocol.coordination import FindCoordinatorResponse_v0, FindCoordinatorResponse_v1
from aiokafka.protocol.metadata import (
    MetadataResponse_v0,
    MetadataResponse_v1,
    MetadataResponse_v2,
    MetadataResponse_v5,
)
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.event import Event
from dualstream_lab.faults.proxy.kafka_codec import KafkaCodec
from dualstream_lab.faults.proxy.proxy import KafkaProxy
from dualstream_lab.faults.proxy.toxics import BlackHole, Delay, Refuse
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.publisher import DualPublisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dualstream_lab.config import Settings
    from dualstream_lab.stack import LocalStack

METADATA, COORDINATOR, VERSIONS, CLUSTER, OTHER = 3, 10, 18, 60, 12
TEXT = CompactString("utf-8")
BROKERS = [(1, "there", 9092, None), (22, "elsewhere.example", 19092, "rack")]
PLACED = [(1, "127.0.0.1", 1, None), (22, "127.0.0.1", 2, "rack")]
PARTITIONS = [(0, 0, 1, [1, 22], [22])]


def codec() -> KafkaCodec:
    places = {("there", 9092): 1, ("elsewhere.example", 19092): 2}
    return KafkaCodec(lambda host, port: ("127.0.0.1", places[host, port]))


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def request(key: int, version: int, number: int, body: bytes = b"whatever") -> bytes:
    return framed(struct.pack(">hhih", key, version, number, -1) + body)


def answer(number: int, body: bytes) -> bytes:
    return framed(struct.pack(">i", number) + body)


def rewritten(key: int, version: int, body: bytes) -> bytes:
    """What a client gets for this answer, without what is before the body."""
    one = codec()
    one.request(request(key, version, 7))
    frame = one.answer(answer(7, body))
    size, number = struct.unpack(">ii", frame[:8])
    assert (size, number) == (len(frame) - 4, 7)
    return frame[8:]


TOPICS = [(0, "events", False, PARTITIONS)]
METADATA_V9_BROKERS = CompactArray(
    ("node", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT), ("tags", TaggedFields)
)


@pytest.mark.parametrize(
    ("version", "kind", "values", "expected"),
    [
        (
            0,
            MetadataResponse_v0,
            ([broker[:3] for broker in BROKERS], [(0, "events", PARTITIONS)]),
            ([broker[:3] for broker in PLACED], [(0, "events", PARTITIONS)]),
        ),
        (1, MetadataResponse_v1, (BROKERS, 1, TOPICS), (PLACED, 1, TOPICS)),
        (2, MetadataResponse_v2, (BROKERS, "id", 1, TOPICS), (PLACED, "id", 1, TOPICS)),
        (5, MetadataResponse_v5, (3, BROKERS, "id", 1, []), (3, PLACED, "id", 1, [])),
    ],
)
def test_metadata_leads_back_to_the_proxy(version: int, kind: Any, values: Any, expected: Any) -> None:
    found = kind.decode(BytesIO(rewritten(METADATA, version, kind(*values).encode())))
    assert [getattr(found, name) for name in kind.SCHEMA.names] == list(expected)


@pytest.mark.parametrize("version", [9, 10, 12, 13])
def test_compact_metadata_too(version: int) -> None:
    # The header has tags from here on; what follows the brokers is not read.
    tags, rest = b"\x01\x05\x03abc", b"cluster, topics and all that"
    body = tags + Int32.encode(0) + METADATA_V9_BROKERS.encode([(*broker, {}) for broker in BROKERS]) + rest
    found = BytesIO(rewritten(METADATA, version, body))
    assert found.read(len(tags)) == tags
    found.read(4)
    assert METADATA_V9_BROKERS.decode(found) == [(*broker, {}) for broker in PLACED]
    assert found.read() == rest


def test_coordinators_lead_back_to_the_proxy() -> None:
    for kind, values in (
        (FindCoordinatorResponse_v0, (0, 22)),
        (FindCoordinatorResponse_v1, (0, 0, "fine", 22)),
    ):
        version = kind.API_VERSION
        body = kind(*values, "elsewhere.example", 19092).encode()
        found = kind.decode(BytesIO(rewritten(COORDINATOR, version, body)))
        assert (found.coordinator_id, found.host, found.port) == (22, "127.0.0.1", 2)
        nobody = kind(*values, "", -1).encode()
        assert rewritten(COORDINATOR, version, nobody) == nobody


def test_compact_coordinators_too() -> None:
    entry = Schema(
        ("key", TEXT), ("node", Int32), ("host", TEXT), ("port", Int32),
        ("error", Int16), ("message", TEXT), ("tags", TaggedFields),
    )  # fmt: skip
    many = CompactArray(entry)
    given = [("group", 1, "there", 9092, 0, None, {}), ("other", -1, "", -1, 15, "not here", {})]
    body = b"\0" + Int32.encode(0) + many.encode(given) + b"\0"
    found = BytesIO(rewritten(COORDINATOR, 6, body)[5:])
    assert many.decode(found) == [("group", 1, "127.0.0.1", 1, 0, None, {}), given[1]]

    one = Schema(("error", Int16), ("message", TEXT), ("node", Int32), ("host", TEXT), ("port", Int32))
    body = b"\0" + Int32.encode(0) + one.encode((0, None, 1, "there", 9092)) + b"\0"
    found = BytesIO(rewritten(COORDINATOR, 3, body)[5:])
    assert one.decode(found) == (0, None, 1, "127.0.0.1", 1)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_described_cluster_leads_back_to_the_proxy(version: int) -> None:
    before = [("throttle", Int32), ("error", Int16), ("message", TEXT)]
    before += [("kind", Int8)] * (version >= 1) + [("id", TEXT), ("controller", Int32)]
    fields: list[tuple[str, Any]] = [("node", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT)]
    fields += [("fenced", Int8)] * (version >= 2) + [("tags", TaggedFields)]
    schema = Schema(
        *before, ("brokers", CompactArray(*fields)), ("operations", Int32), ("tags", TaggedFields)
    )
    head = (0, 0, None, *((1,) if version else ()), "id", 1)
    last = (*((1,) if version >= 2 else ()), {})
    body = b"\0" + schema.encode((*head, [(*broker, *last) for broker in BROKERS], 5, {}))
    found = schema.decode(BytesIO(rewritten(CLUSTER, version, body)[1:]))
    assert found == (*head, [(*broker, *last) for broker in PLACED], 5, {})


def test_clients_are_offered_no_version_that_could_name_brokers() -> None:
    offered = [(0, 0, 13), (1, 4, 18), (2, 1, 11), (3, 0, 14), (10, 0, 6), (78, 1, 2), (79, 1, 2)]
    allowed = [(0, 0, 9), (1, 4, 15), (2, 1, 11), (3, 0, 13), (10, 0, 6)]
    for version in (0, 2):
        rest = b"" if version == 0 else Int32.encode(9)
        body = ApiVersionResponse_v1(0, offered, 9).encode()[: -4 or None] + rest
        found = rewritten(VERSIONS, version, body)
        assert found == ApiVersionResponse_v1(0, allowed, 9).encode()[:-4] + rest
    compact = CompactArray(("key", Int16), ("low", Int16), ("high", Int16), ("tags", TaggedFields))
    many = [(key, 0, 1, {}) for key in range(200, 400)]  # whose number takes two bytes
    for version in (3, 5):
        body = Int16.encode(0) + compact.encode([(*entry, {}) for entry in offered] + many) + b"rest"
        expected = Int16.encode(0) + compact.encode([(*entry, {}) for entry in allowed] + many) + b"rest"
        assert rewritten(VERSIONS, version, body) == expected
    # A broker that does not know the version answers as in version 0.
    unsupported = struct.pack(">hihhh", 35, 1, 3, 0, 14)
    assert rewritten(VERSIONS, 4, unsupported) == struct.pack(">hihhh", 35, 1, 3, 0, 13)


@pytest.mark.parametrize(("key", "version"), [(0, 10), (1, 16), (3, 14), (10, 7), (60, 3), (78, 1), (55, 2)])
def test_a_client_that_asks_such_a_version_all_the_same_is_not_passed_on(key: int, version: int) -> None:
    with pytest.raises(ValueError, match="could name brokers"):
        codec().request(request(key, version, 1))


def test_what_is_not_kafka_is_not_passed_on() -> None:
    with pytest.raises(ValueError, match="not a Kafka request"):
        codec().request(struct.pack(">i", 3) + b"odd bytes")
    one = codec()
    one.request(request(METADATA, 1, 1))
    with pytest.raises(ValueError, match="not the answer"):
        one.answer(answer(1, struct.pack(">ii", 1_000_000, 2)))


@given(st.data())
def test_chunks_do_not_matter(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from([METADATA, COORDINATOR, OTHER]), max_size=8))
    bodies = {
        METADATA: (MetadataResponse_v1(BROKERS, 1, TOPICS), MetadataResponse_v1(PLACED, 1, TOPICS)),
        COORDINATOR: (
            FindCoordinatorResponse_v1(0, 0, None, 1, "there", 9092),
            FindCoordinatorResponse_v1(0, 0, None, 1, "127.0.0.1", 1),
        ),
    }
    asked = b"".join(request(key, 1, number, b"x" * number) for number, key in enumerate(kinds))
    answers, expected = b"", b""
    for number, key in enumerate(kinds):
        before, after = (body.encode() for body in bodies[key]) if key in bodies else (b"any" * number,) * 2
        answers += answer(number, before)
        expected += answer(number, after)
    one = codec()
    assert b"".join(map(one.request, chunks(data, asked))) == asked
    assert b"".join(map(one.answer, chunks(data, answers))) == expected


def chunks(data: st.DataObject, whole: bytes) -> Iterator[bytes]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=20)))
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if begin < end:
            yield whole[begin:end]


@pytest.mark.parametrize("url", ["kafkas://localhost:9092", "kafka://user:password@localhost:9092"])
def test_what_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot read TLS or SASL"):
        KafkaProxy(url)


@pytest.fixture
def ports() -> Iterator[set[int]]:
    """Every port that aiokafka connects to."""
    from unittest import mock

    seen: set[int] = set()
    connect = asyncio.BaseEventLoop.create_connection

    async def noting(loop: Any, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        seen.add(port)
        return await connect(loop, factory, host, port, **options)

    with mock.patch.object(asyncio.BaseEventLoop, "create_connection", noting):
        yield seen


async def test_a_producer_and_a_group_never_see_a_direct_port(
    stack: LocalStack, topic: str, ports: set[int]
) -> None:
    with KafkaProxy(stack.kafka_url) as proxy:
        common = {"bootstrap_servers": proxy.kafka_url, "request_timeout_ms": 5000}
        values = [str(number).encode() * 100 for number in range(2000)]
        async with AIOKafkaProducer(**common, acks="all", enable_idempotence=True) as producer:
            for value in values:
                await producer.send(topic, value)
        group = f"group-{uuid.uuid4().hex}"
        consumer = AIOKafkaConsumer(topic, **common, group_id=group, auto_offset_reset="earliest")
        found: list[bytes] = []
        async with consumer, asyncio.timeout(30):
            while len(found) < len(values):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [record.value for record in records]
            await consumer.commit()
        admin = AIOKafkaAdminClient(**common)
        await admin.start()
        cluster = await admin.describe_cluster()
        assert await admin.find_coordinator(group) == 1
        await admin.close()
        known = {int(server.rpartition(":")[2]) for server in proxy.kafka_url.split(",")}
        assert {broker["port"] for broker in cluster["brokers"]} == known
        assert ports == known
    assert sorted(found) == sorted(values)


async def test_our_own_clients_go_through_it(
    stack: LocalStack, settings: Callable[..., Settings], ports: set[int]
) -> None:
    with KafkaProxy(stack.kafka_url) as proxy:
        through = settings(kafka_url=proxy.kafka_url, redis_url=None)
        async with DualPublisher(through) as publisher:
            proxy.set(Delay(delay_ms=50))
            took = asyncio.get_running_loop().time()
            await publisher.publish(Event(type="push", source_type="repo", source_id="a/b", data={}))
            assert asyncio.get_running_loop().time() - took >= 0.1
            proxy.clear()
        identity = await log_identity(through)  # which asks in a version of its own
        assert ports == {int(proxy.kafka_url.rpartition(":")[2])}
    assert identity == await log_identity(settings())


async def test_its_toxics_are_before_every_broker(
    stack: LocalStack, settings: Callable[..., Settings]
) -> None:
    url = f"{stack.kafka_url},{stack.kafka_url.replace('127.0.0.1', 'localhost')}"
    with KafkaProxy(url) as proxy:
        servers = [server.rpartition(":") for server in proxy.kafka_url.split(",")]
        assert len(set(servers)) == 2
        proxy.set(Refuse())
        for host, _, port in servers:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, int(port))
        proxy.set(BlackHole())
        for host, _, port in servers:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request(VERSIONS, 0, 1, b""))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(1)
            writer.close()
        proxy.clear()
        assert await log_identity(settings(kafka_url=proxy.kafka_url))
    assert not proxy._relays
    with pytest.raises(StackError, match="not started"):
        proxy.clear()
