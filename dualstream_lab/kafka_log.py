"""The log itself: which one it is, where it ends, and a stretch of it. What the delivery side asks of Kafka.

aiokafka speaks versions of the metadata request that do not name a topic's id, so the one that does is here.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import ConfigError, StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from io import BytesIO

    from aiokafka import ConsumerRecord

    from dualstream_lab.config import Settings

__all__ = [
    "LogEnds",
    "LogIdentity",
    "consumer_of",
    "end_consumer",
    "log_identity",
    "partition_of",
    "read_range",
]

_CLOSE_TIMEOUT = 2.0
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIdentity:
    """``epoch``: 12 hex digits of cluster id, topic id and partition count. Another log has another one."""

    epoch: str
    partitions: int

    def partition_of(self, source: str) -> int:
        """The partition of a source (``type:id``)."""
        return partition_of(source, self.partitions)


def partition_of(source: str, partitions: int) -> int:
    """Where the publisher writes a source's (``type:id``) events: Java's default partitioner."""
    hashed: int = murmur2(source.partition(":")[2].encode()) & 0x7FFFFFFF
    return hashed % partitions


@asynccontextmanager
async def consumer_of(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer without a subscription; ended within seconds, also with a dead broker.

    Raises StreamUnavailable when Kafka does not answer within ``start_timeout``, ConfigError for its URL.
    """
    if settings.kafka_url is None:
        raise ConfigError("kafka_url (DUALSTREAM_KAFKA_URL) is not set; allowed: host:port[,host:port…]")
    common = kafka_client_options(settings.kafka_url)
    consumer = AIOKafkaConsumer(
        **common,
        **(
            {"enable_auto_commit": False, "request_timeout_ms": round(settings.request_timeout * 1000)}
            | options
        ),
    )
    try:
        try:
            async with asyncio.timeout(settings.start_timeout):
                await consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {settings.start_timeout:g} s"
            servers = ", ".join(common["bootstrap_servers"])
            raise StreamUnavailable(
                f"Kafka at {servers} could not be reached: {reason}; check kafka_url"
            ) from error
        yield consumer
    finally:
        await end_consumer(consumer)


async def end_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop it and disconnect, within seconds, whatever the brokers do; never raises."""
    # With a dead broker stop() raises CancelledError and leaves its client open (aiokafka 0.14).
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([stopping], timeout=_CLOSE_TIMEOUT)
    if not stopping.done():
        stopping.cancel()
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await consumer._client.close()  # noqa: SLF001


async def log_identity(settings: Settings) -> LogIdentity:
    """Which log the topic is, never creating it.

    Raises ConfigError if it does not exist or Kafka is older than 3.1, StreamUnavailable if Kafka does not
    answer.
    """
    async with consumer_of(settings) as consumer:
        client = consumer._client  # noqa: SLF001
        try:
            async with asyncio.timeout(settings.start_timeout):
                for pause in _PAUSES:
                    answer = await client.send(client.get_random_node(), _DescribeTopic(settings.topic))
                    topic = answer.topics[0]
                    if not topic[0]:  # a topic made a moment ago may not be known to every broker yet
                        break
                    await asyncio.sleep(pause)
        except NotImplementedError as error:
            raise ConfigError("kafka_url: this Kafka is too old; 3.1 or later is needed") from error
        except (KafkaError, OSError, TimeoutError) as error:
            raise StreamUnavailable(f"Kafka did not describe topic {settings.topic!r}: {error}") from error
    code, _name, topic_id, _internal, partitions = topic[:5]
    if code or not partitions:
        raise ConfigError(
            f"topic {settings.topic!r} does not exist; create it first, or set DUALSTREAM_TOPIC"
        )
    facts = f"{answer.cluster_id} {topic_id} {len(partitions)}"
    return LogIdentity(epoch=hashlib.sha256(facts.encode()).hexdigest()[:12], partitions=len(partitions))


class LogEnds:
    """Where partitions end (high watermarks), asked of Kafka; calls that come together share an answer.

    :meth:`run` is its task. An answer that was requested before a call is never given to that call.
    """

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._topic = settings.topic
        self._timeout = settings.request_timeout
        self._consumer = consumer
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._wake = asyncio.Event()

    async def end(self, partition: int) -> int:
        """The offset after the last record that every replica in sync has. Raises StreamUnavailable."""
        asked = self._asked.get(partition)
        if asked is None:
            asked = self._asked[partition] = asyncio.get_running_loop().create_future()
            self._wake.set()
        try:
            async with asyncio.timeout(2 * self._timeout):
                return await asyncio.shield(asked)
        except TimeoutError as error:
            raise StreamUnavailable("Kafka does not say where its log ends") from error

    async def run(self) -> None:
        """Until cancelled: answer what is asked."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            asked, self._asked = self._asked, {}
            try:
                targets = [TopicPartition(self._topic, partition) for partition in asked]
                async with asyncio.timeout(self._timeout):
                    ends = await self._consumer.end_offsets(targets)
                for target, end in ends.items():
                    asked[target.partition].set_result(end)
            except (KafkaError, OSError, TimeoutError) as error:
                reason = StreamUnavailable(
                    f"Kafka does not say where its log ends: {str(error) or 'no answer'}"
                )
                for future in asked.values():
                    future.set_exception(reason)
                    future.exception()  # whoever asked may have left


async def read_range(
    settings: Settings, partition: int, first: int, end: int, *, limit: int
) -> Sequence[ConsumerRecord[bytes, bytes]]:
    """The records of a partition with first <= offset < end, all of them; at most ``limit`` offsets.

    Raises StreamUnavailable, also when some of them are not in Kafka any more.
    """
    if end - first > limit:
        raise StreamUnavailable(f"{end - first:,} records are too many to read at once (at most {limit:,})")
    found: list[ConsumerRecord[bytes, bytes]] = []
    target = TopicPartition(settings.topic, partition)
    async with consumer_of(settings, auto_offset_reset="earliest") as consumer:
        try:
            # 50,000 records take a second, and several on a busy machine.
            async with asyncio.timeout(2 * settings.request_timeout):
                consumer.assign([target])
                consumer.seek(target, first)
                while await consumer.position(target) < end:
                    for records in (await consumer.getmany(target, timeout_ms=200)).values():
                        found += [record for record in records if record.offset < end]
                # Asked last, so that retention cannot take one between.
                begin = (await consumer.beginning_offsets([target]))[target]
        except (KafkaError, OSError, TimeoutError) as error:
            raise StreamUnavailable(
                f"partition {partition} could not be read: {str(error) or 'no answer'}"
            ) from error
    if begin > first:
        raise StreamUnavailable(
            f"partition {partition} begins at {begin} by now: what follows {first} is gone"
        )
    return found


class _Uuid:
    """The protocol's UUID: 16 bytes."""

    @staticmethod
    def encode(value: UUID) -> bytes:
        return value.bytes

    @staticmethod
    def decode(data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))

    @staticmethod
    def repr(value: UUID) -> str:
        return str(value)


_INTEGERS = CompactArray(Int32)


class _DescribedTopics(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", _INTEGERS),
                        ("isr", _INTEGERS),
                        ("offline_replicas", _INTEGERS),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeTopicStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _DescribedTopics
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _DescribeTopic(Request[_DescribeTopicStruct]):  # type: ignore[misc]
    """Metadata of one topic, by name, with its id."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_DescribeTopicStruct]) -> _DescribeTopicStruct:
        return request_struct_class([(UUID(int=0), self._topic, {})], False, False, {})
