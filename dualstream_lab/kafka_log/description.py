"""Kafka's metadata request that names a topic's id and the cluster's; aiokafka speaks older versions only."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

if TYPE_CHECKING:
    from io import BytesIO

    from aiokafka.client import AIOKafkaClient

_BROKERS: Final = 3
_PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 0.0)


class Description(NamedTuple):
    """A topic as a broker describes it. ``replicas``: of the partition that has the fewest."""

    cluster_id: str
    topic_id: UUID
    partitions: int
    replicas: int


async def describe(client: AIOKafkaClient, topic: str, *, patient: bool = True) -> Description | None:
    """Ask any broker, never creating the topic; None where it is not there. The caller bounds it.

    ``patient``: one made a moment ago may not be known to every broker yet. Raises NotImplementedError for a
    Kafka before 3.1; KafkaError, OSError as :func:`ask_any`.
    """
    for pause in _PAUSES if patient else _PAUSES[-1:]:
        answer = await ask_any(client, _DescribeTopic(topic))
        error_code, _name, topic_id, _internal, partitions = answer.topics[0][:5]
        if not error_code and partitions:
            replicas = min(len(partition[4]) for partition in partitions)
            return Description(answer.cluster_id, topic_id, len(partitions), replicas)
        await asyncio.sleep(pause)
    return None


async def ask_any(client: AIOKafkaClient, request: Any) -> Any:
    """What the first of three brokers answers. Raises KafkaError, OSError when none of them does."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    failure: KafkaError | OSError = KafkaConnectionError("no broker is known")
    for node in random.sample(nodes, min(len(nodes), _BROKERS)):
        try:
            return await client.send(node, request)
        except (KafkaError, OSError) as error:
            failure = error
    raise failure


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


_TEXT = CompactString("utf-8")
_INTEGERS = CompactArray(Int32)
_TAGS = ("tags", TaggedFields)
_BROKER = (("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS)
_PARTITION = (
    *(("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32)),
    *(("replicas", _INTEGERS), ("isr", _INTEGERS), ("offline_replicas", _INTEGERS), _TAGS),
)
_TOPIC = (
    *(("error_code", Int16), ("name", _TEXT), ("topic_id", _Uuid), ("is_internal", Boolean)),
    *(("partitions", CompactArray(*_PARTITION)), ("authorized_operations", Int32), _TAGS),
)


class _DescribedTopics(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(*_BROKER)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        ("topics", CompactArray(*_TOPIC)),
        _TAGS,
    )


class _DescribeTopicStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _DescribedTopics
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _DescribeTopic(Request[_DescribeTopicStruct]):  # type: ignore[misc]
    """Metadata of one topic, by name, with its id."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_DescribeTopicStruct]) -> _DescribeTopicStruct:
        return request_struct_class([(UUID(int=0), self._topic, {})], False, False, {})
