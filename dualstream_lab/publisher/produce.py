"""The produce request, and what its answers mean: aiokafka's sender, but for that.

aiokafka asks in a version whose answers have no reasons, and takes every code that it does not know for an
unexpected server error. Version 8 names the records that are to blame, and says why. What is used of its
inside: the sender, its handler of produce requests, and its batches.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.protocol.api import Request
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceRequest_v8

from dualstream_lab.publisher.refusals import BatchRefused, Meaning, answer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka.producer.message_accumulator import MessageBatch

    from dualstream_lab.publisher.refusals import Answer

__all__ = ["BatchSender"]


class _Produce(Request[ProduceRequest_v7 | ProduceRequest_v8]):  # type: ignore[misc]
    """Batches by topic and partition, to be acknowledged by all replicas in sync."""

    API_KEY = 0
    required_acks = -1

    def __init__(self, topics: list[tuple[str, list[tuple[int, bytes]]]], timeout_ms: int) -> None:
        self._topics = topics
        self._timeout_ms = timeout_ms

    def build(
        self, request_struct_class: type[ProduceRequest_v7 | ProduceRequest_v8]
    ) -> ProduceRequest_v7 | ProduceRequest_v8:
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
        topics: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for target, batch in self._batches.items():
            topics[target.topic].append((target.partition, batch.get_data_buffer()))
        return _Produce(list(topics.items()), self._sender._request_timeout_ms)  # noqa: SLF001

    def _can_retry(self, error: KafkaError, batch: MessageBatch) -> bool:
        """Asked of every batch of a request that has failed."""
        if not isinstance(error, NodeNotReadyError):  # that is: nothing was written
            batch._builder.in_doubt = True  # noqa: SLF001
        return bool(error.retriable)

    def handle_response(self, response: Any) -> None:
        for topic, partitions in response.topics:
            for partition, code, offset, timestamp, begin, *said in partitions:
                batch = self._batches.get(TopicPartition(topic, partition))
                if batch is None:
                    continue
                answer = answer_of(code)
                if answer.meaning is Meaning.DURABLE:
                    batch.done(offset, timestamp, begin)
                else:
                    self._not_done(batch, answer, *said)

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
