"""The adapter of aiokafka's producer: the one place that knows its inner parts.

aiokafka's batch interface suspends and resolves metadata on each call; a publisher that keeps one batch
a partition outstanding, and makes its own batches, needs none of it. What is used of its
inside: the accumulator, the sender's task and the client (aiokafka is pinned to one minor version for that).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.metadata import MetadataRequest

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import ConfigError, StreamUnavailable

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.publisher.record_batch import RecordBatch

__all__ = ["DEFINITE", "KafkaWriter", "TopicFacts", "topic_facts"]

log = logging.getLogger(__name__)

_DEFAULT_MAX_MESSAGE = 1_048_588
_BATCH_OVERHEAD = 100  # the batch's header (61 bytes) and one record's framing
_CLOSE_TIMEOUT = 2.0
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 0.0)

# Refusals after which nothing of the batch is, or will be, in the log.
DEFINITE: tuple[type[Exception], ...] = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.PolicyViolationError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """What a publisher must know of its topic."""

    partitions: int
    max_event_bytes: int
    """The most that key, value and headers of one event may have together."""


class KafkaWriter:
    """An idempotent producer with acks=all, handed one batch a partition at a time."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._accumulator = producer._message_accumulator  # noqa: SLF001
        self._partitions: dict[int, TopicPartition] = {}
        self._topic = topic

    @classmethod
    async def open(cls, settings: Settings) -> KafkaWriter:
        """Connect and fetch the topic's metadata, within ``start_timeout``. Raises StreamUnavailable."""
        producer = AIOKafkaProducer(
            **_client_options(settings),
            acks="all",
            enable_idempotence=True,
        )
        writer = cls(producer, settings.topic)
        try:
            async with asyncio.timeout(settings.start_timeout):
                await producer.start()
                await producer.partitions_for(settings.topic)
        except BaseException as error:
            await writer.abort()
            if isinstance(error, (kafka_errors.KafkaError, OSError, TimeoutError)):
                raise _unreachable(settings, error) from error
            raise
        return writer

    def send(self, partition: int, batch: RecordBatch) -> asyncio.Future[Any]:
        """Hand a batch over; nothing else may be outstanding for its partition.

        The future ends with the batch's RecordMetadata (its base offset) or a KafkaError; while Kafka is
        away it stays pending. Raises KafkaError, with nothing handed over, when the producer is dead.
        """
        failure = self._accumulator._exception  # noqa: SLF001
        if failure is not None:
            raise kafka_errors.KafkaError("the producer's sender has died") from failure
        target = self._partitions.get(partition)
        if target is None:
            target = self._partitions[partition] = TopicPartition(self._topic, partition)
        future: asyncio.Future[Any] = self._accumulator._append_batch(batch, target).future  # noqa: SLF001
        return future

    async def close(self) -> None:
        """Close the connections in order; hard, if that takes too long."""
        with suppress(kafka_errors.KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._producer.stop()
                return
        await self.abort()

    async def abort(self) -> None:
        """Close hard, within seconds. Futures that are pending stay so: settle their waiters yourself.

        Bytes that are in a socket may still be written.
        """
        producer = self._producer
        producer._closed = True  # noqa: SLF001  (so that it does not warn when collected)
        sender = producer._sender.sender_task  # noqa: SLF001
        with suppress(Exception):
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender], timeout=_CLOSE_TIMEOUT)
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await producer.client.close()


def _client_options(settings: Settings) -> dict[str, Any]:
    if settings.kafka_url is None:
        raise ConfigError("kafka_url (DUALSTREAM_KAFKA_URL) is not set; allowed: host:port[,host:port…]")
    options = kafka_client_options(settings.kafka_url)
    return options | {"request_timeout_ms": round(settings.request_timeout * 1000)}


def _unreachable(settings: Settings, error: BaseException) -> StreamUnavailable:
    servers = ", ".join(kafka_client_options(settings.kafka_url or "")["bootstrap_servers"])
    reason = str(error) or f"no answer within {settings.start_timeout:g} s"
    return StreamUnavailable(f"Kafka at {servers} could not be reached: {reason}; check kafka_url")


async def topic_facts(settings: Settings) -> TopicFacts:
    """Ask for the topic, never creating it.

    Raises ConfigError if it does not exist, or can never have as many replicas in sync as it needs;
    StreamUnavailable if Kafka does not answer within ``start_timeout``.
    """
    admin = AIOKafkaAdminClient(**_client_options(settings))
    try:
        async with asyncio.timeout(settings.start_timeout):
            await admin.start()
            topic = await _described(admin, settings.topic)
            config = await _topic_config(admin, settings.topic)
    except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
        raise _unreachable(settings, error) from error
    finally:
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await admin.close()
    if topic["error_code"] or not topic["partitions"]:
        reason = kafka_errors.for_code(topic["error_code"]).__name__
        raise ConfigError(
            f"topic {settings.topic!r} does not exist or cannot be used ({reason}); create it first, for "
            f"example: kafka-topics.sh --create --topic {settings.topic} --partitions 6, or set "
            "DUALSTREAM_TOPIC to one that exists"
        )
    copies = min(len(partition["replicas"]) for partition in topic["partitions"])
    needed = int(config.get("min.insync.replicas", 1))
    if needed > copies:
        raise ConfigError(
            f"topic {settings.topic!r} has {copies} replica(s) but min.insync.replicas={needed}: nothing "
            "could ever be acknowledged; add replicas or lower min.insync.replicas"
        )
    limit = int(config.get("max.message.bytes", _DEFAULT_MAX_MESSAGE))
    return TopicFacts(partitions=len(topic["partitions"]), max_event_bytes=limit - _BATCH_OVERHEAD)


async def _described(admin: AIOKafkaAdminClient, name: str) -> dict[str, Any]:
    """The topic's metadata. One that was made a moment ago may not be known to every broker yet."""
    for pause in _PAUSES:
        # describe_topics() would let a broker that may create topics make it.
        request = MetadataRequest([name], allow_auto_topic_creation=False)
        response = await admin._send_request(request)  # noqa: SLF001
        topic: dict[str, Any] = response.to_object()["topics"][0]
        if not topic["error_code"]:
            break
        await asyncio.sleep(pause)
    return topic


async def _topic_config(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """The topic's settings; none where this user may not read them."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    (response,) = await admin.describe_configs([resource])
    settings: dict[str, str] = {}
    for error_code, _message, _kind, _name, entries in response.resources:
        if error_code:
            log.info("the settings of topic %s cannot be read; assuming Kafka's defaults", topic)
        settings |= {entry[0]: entry[1] for entry in entries}
    return settings
