"""The adapter of aiokafka's producer: with ``produce`` the one place that knows its inside.

aiokafka's batch interface suspends and resolves metadata on each call; a publisher that keeps one batch
a partition outstanding, and makes its own batches, needs none of it. What is used of its
inside: the accumulator, the sender's task, the client and the sequence numbers (aiokafka is pinned to one
minor version for that).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log.diagnosis import refusal
from dualstream_lab.kafka_log.topic import client_options, info_of, unreachable
from dualstream_lab.publisher.produce import BatchSender

if TYPE_CHECKING:
    from dualstream_lab.config import Settings
    from dualstream_lab.kafka_log import TopicInfo
    from dualstream_lab.publisher.record_batch import RecordBatch

__all__ = ["Barred", "KafkaWriter"]

_CLOSE_TIMEOUT: Final = 2.0
_RETRY_BACKOFF_MS: Final = 100
_SEQUENCES: Final = 2**31  # they begin again at 0 then


class Barred(StreamUnavailable):
    """Kafka is there, and lets this user write nothing; the message says why."""


class KafkaWriter:
    """An idempotent producer with acks=all, handed one batch a partition at a time."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings) -> None:
        self._producer = producer
        self._accumulator = producer._message_accumulator  # noqa: SLF001
        self._sequences = producer._txn_manager  # noqa: SLF001
        self._partitions: dict[int, TopicPartition] = {}
        self._topic = settings.topic
        self._timeout = settings.request_timeout
        producer._sender = BatchSender(  # noqa: SLF001
            producer.client,
            acks=-1,
            txn_manager=self._sequences,
            message_accumulator=self._accumulator,
            retry_backoff_ms=_RETRY_BACKOFF_MS,
            request_timeout_ms=round(self._timeout * 1000),
        )

    @classmethod
    async def open(cls, settings: Settings) -> KafkaWriter:
        """Connect and fetch the topic's metadata, within ``start_timeout``.

        Raises Barred where Kafka refuses this user, StreamUnavailable otherwise.
        """
        options = client_options(settings)
        writer = cls(AIOKafkaProducer(**options, acks="all", enable_idempotence=True), settings)
        try:
            async with asyncio.timeout(settings.start_timeout):
                await writer._producer.start()
                await writer._producer.partitions_for(settings.topic)
        except BaseException as error:
            await writer.abort()
            if said := refusal(error, options, settings.topic):
                raise Barred(said) from error
            if isinstance(error, (kafka_errors.KafkaError, OSError, TimeoutError)):
                raise await unreachable(settings, error) from error
            raise
        return writer

    def send(self, partition: int, batch: RecordBatch) -> asyncio.Future[Any]:
        """Hand a batch over; nothing else may be outstanding for its partition.

        The future ends with the batch's RecordMetadata (its base offset), BatchRefused or a KafkaError (see
        ``produce``); while Kafka is away it stays pending. Raises KafkaError, with nothing handed over, when
        the producer is dead.
        """
        failure = self._accumulator._exception  # noqa: SLF001
        if failure is not None:
            raise kafka_errors.KafkaError("the producer's sender has died") from failure
        target = self._partitions.get(partition)
        if target is None:
            target = self._partitions[partition] = TopicPartition(self._topic, partition)
        if self._sequences.sequence_number(target) < 0:
            self._move_sequence(target, 0)
        future: asyncio.Future[Any] = self._accumulator._append_batch(batch, target).future  # noqa: SLF001
        return future

    def take_back(self, partition: int, batch: RecordBatch) -> None:
        """The batch that was sent last is certainly not in the log: its sequence numbers are used again.

        Otherwise Kafka would refuse whatever comes after them.
        """
        self._move_sequence(self._partitions[partition], -batch.record_count())

    def _move_sequence(self, target: TopicPartition, by: int) -> None:
        """aiokafka's go on below zero after the last one, Kafka's at zero."""
        self._sequences.increment_sequence_number(target, by)
        if self._sequences.sequence_number(target) < 0:
            self._sequences.increment_sequence_number(target, _SEQUENCES)

    def refuses_topic(self) -> bool:
        """Whether this user may not see the topic, as far as was heard."""
        return self._topic in self._producer.client.cluster.unauthorized_topics

    async def topic_info(self) -> TopicInfo:
        """The topic as it is now. Raises StreamUnavailable, and ConfigError where it is gone."""
        try:
            async with asyncio.timeout(2 * self._timeout):
                return await info_of(self._producer.client, self._topic)
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            raise StreamUnavailable(f"Kafka does not describe {self._topic}: {error!r}") from error
        finally:
            if self._producer._closed:  # noqa: SLF001  (meanwhile; the client connects all the same)
                await self._producer.client.close()

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
