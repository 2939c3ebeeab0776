"""The adapter of aiokafka's producer: the one place that knows its inner parts.

aiokafka's batch interface suspends and resolves metadata on each call; a publisher that keeps one batch
a partition outstanding, and makes its own batches, needs none of it. What is used of its
inside: the accumulator, the sender's task and the client (aiokafka is pinned to one minor version for that).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors

from dualstream_lab.kafka_log.topic import client_options, unreachable

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.publisher.record_batch import RecordBatch

__all__ = ["DEFINITE", "KafkaWriter"]

_CLOSE_TIMEOUT = 2.0

# Refusals after which nothing of the batch is, or will be, in the log.
DEFINITE: tuple[type[Exception], ...] = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.PolicyViolationError,
)


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
            **client_options(settings),
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
                raise unreachable(settings, error) from error
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
