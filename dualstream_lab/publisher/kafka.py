"""The adapter of aiokafka's producer: the one place that knows its inside.

aiokafka's batch interface suspends and resolves metadata on each call; a publisher that keeps one batch
a partition outstanding, and makes its own batches, needs none of it. And aiokafka asks in a version whose
answers have no reasons, and takes every code that it does not know for an unexpected server error: version 8
names the records that are to blame, and says why. What is used of its inside: the accumulator, the sender's
task with its handler of produce requests and its batches, the client and the sequence numbers (aiokafka is
pinned to one minor version for that).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.protocol.api import Request
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceRequest_v8
from aiokafka.protocol.types import String

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log import (
    RepeatFilter,
    TopicInfo,
    client_options,
    close_producer,
    connecting,
    info_of,
    refusal,
)
from dualstream_lab.publisher.record_batch import RecordBatch
from dualstream_lab.publisher.refusals import Answer, BatchRefused, Meaning, answer_of

if TYPE_CHECKING:
    from aiokafka.producer.message_accumulator import MessageBatch


log = logging.getLogger(__name__)

_REQUEST: Final = Struct(">hhii")  # no transaction, acks, time limit in ms, number of topics
_COUNT: Final = Struct(">i")
_BATCH: Final = Struct(">ii")  # partition, size

_RETRY_BACKOFF_MS: Final = 100
_THROTTLED_MS: Final = 100  # from which on a quota is worth a word
_SEQUENCES: Final = 2**31  # they begin again at 0 then
# In an outage each of these says the same ten times a second.
_LOUD: Final = ("aiokafka", "aiokafka.conn", "aiokafka.producer.sender")


class _Joined:
    """A request that is joined once: aiokafka copies what it sends at every level of its schema, eight times.

    ``topics`` has the pieces of each batch.
    """

    required_acks: int
    timeout: int
    topics: list[tuple[str, list[tuple[int, list[bytes]]]]]

    def build_request_header(self, correlation_id: int, client_id: str) -> _Nothing:
        """It becomes a part of the request."""
        header = super().build_request_header(correlation_id, client_id)  # type: ignore[misc]
        self._header: bytes = header.encode()
        return _Nothing()

    def encode(self) -> bytes:
        """All of it, with its header."""
        parts = [self._header, _REQUEST.pack(-1, self.required_acks, self.timeout, len(self.topics))]
        for topic, batches in self.topics:
            parts += (String("utf-8").encode(topic), _COUNT.pack(len(batches)))
            for partition, pieces in batches:
                parts.append(_BATCH.pack(partition, sum(map(len, pieces))))
                parts += pieces
        return b"".join(parts)


class _Nothing:
    """What aiokafka sends before a request that has its header."""

    def encode(self) -> bytes:
        return b""


class _Produce_v7(_Joined, ProduceRequest_v7):  # type: ignore[misc]  # noqa: N801
    pass


class _Produce_v8(_Joined, ProduceRequest_v8):  # type: ignore[misc]  # noqa: N801
    pass


class _Produce(Request[_Produce_v7 | _Produce_v8]):  # type: ignore[misc]
    """Batches by topic and partition, to be acknowledged by all replicas in sync."""

    API_KEY = 0
    required_acks = -1

    def __init__(self, topics: list[tuple[str, list[tuple[int, list[bytes]]]]], timeout_ms: int) -> None:
        self._topics = topics
        self._timeout_ms = timeout_ms

    def build(self, request_struct_class: type[_Produce_v7 | _Produce_v8]) -> _Produce_v7 | _Produce_v8:
        return request_struct_class(None, self.required_acks, self._timeout_ms, self._topics)


class BatchSender(Sender):  # type: ignore[misc]
    """aiokafka's sender of batches. A batch's future ends with its metadata or with

    - BatchRefused: nothing of it is in the log;
    - KafkaError: this producer sends it no more. It may be in the log if the batch is ``in_doubt``; otherwise
      it was never taken.
    """

    async def _send_produce_req(self, node_id: int, batches: Mapping[TopicPartition, MessageBatch]) -> None:
        await _Handler(self, batches).do(node_id)
        self._in_flight.remove(node_id)
        for target in batches:
            self._muted_partitions.remove(target)


class _Handler(SendProduceReqHandler):  # type: ignore[misc]
    def create_request(self) -> _Produce:
        topics: defaultdict[str, list[tuple[int, list[bytes]]]] = defaultdict(list)
        for target, batch in self._batches.items():
            topics[target.topic].append((target.partition, batch._builder.pieces()))  # noqa: SLF001
        return _Produce(list(topics.items()), self._sender._request_timeout_ms)  # noqa: SLF001

    def _can_retry(self, error: KafkaError, batch: MessageBatch) -> bool:
        """Asked of every batch of a request that has failed."""
        if not isinstance(error, NodeNotReadyError):  # that is: nothing was written
            batch._builder.in_doubt = True  # noqa: SLF001
        return bool(error.retriable)

    def handle_response(self, response: Any) -> None:
        if response.throttle_time_ms >= _THROTTLED_MS:
            log.warning(
                "Kafka throttles this client: it offers more than its quota, and is held back for %d ms",
                response.throttle_time_ms,
            )
        for topic, partitions in response.topics:
            for partition, code, offset, timestamp, begin, *reasons in partitions:
                batch = self._batches.get(TopicPartition(topic, partition))
                if batch is None:
                    continue
                answer = answer_of(code)
                if answer.meaning is Meaning.DURABLE:
                    batch.done(offset, timestamp, begin)
                else:
                    self._not_done(batch, answer, *reasons)

    def _not_done(
        self,
        batch: MessageBatch,
        answer: Answer,
        records: list[tuple[int, str | None]] | None = None,
        message: str | None = None,
    ) -> None:
        builder = batch._builder  # noqa: SLF001
        if answer.meaning in {Meaning.RETRY, Meaning.RETRY_IN_DOUBT}:
            builder.in_doubt |= answer.meaning is Meaning.RETRY_IN_DOUBT
            if answer.stale:
                self._client.force_metadata_update()
            self._to_reenqueue.append(batch)
            return
        reason = f"{answer.name}: {message or answer.why}"
        if answer.meaning is Meaning.DEFINITE and not builder.in_doubt:
            named = {place: f"{answer.name}: {why}" if why else reason for place, why in records or ()}
            batch.failure(BatchRefused(answer, reason, named))
        else:
            # An earlier attempt may have been appended: a refusal of this one says nothing of that.
            builder.in_doubt = True
            batch.failure(KafkaError(reason))


class Barred(StreamUnavailable):
    """Kafka is there, and lets this user write nothing; the message says why."""


class KafkaWriter:
    """An idempotent producer with acks=all, handed one batch a partition at a time."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings) -> None:
        self._producer = producer
        self._accumulator = producer._message_accumulator  # noqa: SLF001
        self._sequences = producer._txn_manager  # noqa: SLF001
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
            async with connecting(settings):
                await writer._producer.start()
                await writer._producer.partitions_for(settings.topic)
        except BaseException as error:
            await writer.close(hard=True)
            if (cause := error.__cause__) and (refused := refusal(cause, options, settings.topic)):
                raise Barred(refused) from cause
            raise
        return writer

    def send(self, partition: int, batch: RecordBatch) -> asyncio.Future[Any]:
        """Hand a batch over; nothing else may be outstanding for its partition.

        The future ends with the batch's RecordMetadata (its base offset), BatchRefused or a KafkaError, as
        :class:`BatchSender` says; while Kafka is away it stays pending. Raises KafkaError, with nothing
        handed over, when the producer is dead.
        """
        failure = self._accumulator._exception  # noqa: SLF001
        if failure is not None:
            raise KafkaError("the producer's sender has died") from failure
        target = TopicPartition(self._topic, partition)
        if self._sequences.sequence_number(target) < 0:
            self._move_sequence(target, 0)
        future: asyncio.Future[Any] = self._accumulator._append_batch(batch, target).future  # noqa: SLF001
        return future

    def take_back(self, partition: int, batch: RecordBatch) -> None:
        """The batch that was sent last is certainly not in the log: its sequence numbers are used again.

        Otherwise Kafka would refuse whatever comes after them.
        """
        self._move_sequence(TopicPartition(self._topic, partition), -batch.record_count())

    def _move_sequence(self, target: TopicPartition, by: int) -> None:
        """aiokafka's go on below zero after the last one, Kafka's at zero."""
        self._sequences.increment_sequence_number(target, by)
        if self._sequences.sequence_number(target) < 0:
            self._sequences.increment_sequence_number(target, _SEQUENCES)

    def refuses_topic(self) -> bool:
        """Whether this user may not see the topic, as far as is known."""
        return self._topic in self._producer.client.cluster.unauthorized_topics

    async def topic_info(self) -> TopicInfo:
        """The topic as it is now. Raises StreamUnavailable, and ConfigError where it is gone."""
        try:
            async with asyncio.timeout(2 * self._timeout):
                return await info_of(self._producer.client, self._topic)
        except (KafkaError, OSError, TimeoutError) as error:
            raise StreamUnavailable(f"Kafka does not describe {self._topic}: {error!r}") from error
        finally:
            if self._producer._closed:  # noqa: SLF001  (meanwhile; the client connects all the same)
                await self._producer.client.close()

    async def close(self, *, hard: bool = False) -> None:
        """Within seconds. Futures that are pending may stay so: settle their waiters yourself."""
        await close_producer(self._producer, hard=hard)


log.addFilter(RepeatFilter())


def limit_aiokafka() -> None:
    """Bound what aiokafka's client and producer log in this process; once is enough."""
    for name in _LOUD:
        logger = logging.getLogger(name)
        if not any(isinstance(present, RepeatFilter) for present in logger.filters):
            logger.addFilter(RepeatFilter())
