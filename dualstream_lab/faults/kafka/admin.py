"""The independent client of the Kafka faults: it asks, administers, and tries what would never be written."""

from __future__ import annotations

import asyncio
from abc import ABCMeta
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from aiokafka.protocol.admin import DescribeClientQuotasRequest, DescribeConfigsRequest
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import Array, Boolean, Float64, Int8, Int16, Int32, Schema, String
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from dualstream_lab.config import Settings, kafka_client_options
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.tasks import finished

_TIMEOUT = 5.0  # s of one request
_CLIENT: Final = "dualstream-fault"
_TOPIC, _TOPIC_LEVEL = 2, 1  # kind of resource, source of a setting
_SET, _DELETE = 0, 1
_BY_DEFAULT = 1  # how a quota's client is matched
_NOWHERE = 1_000_000  # a partition that no topic has
_QUOTA: Final = "producer_byte_rate"
_TEXT = String("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition's brokers, by their ids. ``leader`` is -1 while there is none."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether it has a leader, and all replicas have what the leader has."""
        return self.leader >= 0 and set(self.in_sync) == set(self.replicas)


@asynccontextmanager
async def administration(settings: Settings) -> AsyncIterator[Admin]:
    """Open a client of the cluster. Raises StreamUnavailable, also within the block, if Kafka is mute."""
    client = AIOKafkaClient(
        **kafka_client_options(settings.kafka_url or ""),
        client_id=_CLIENT,
        request_timeout_ms=round(_TIMEOUT * 1000),
    )
    try:
        # Each of its steps is bounded; what it has open when it is cancelled it would not close.
        await finished(client.bootstrap())
        yield Admin(client, settings.topic)
    except (KafkaError, OSError, TimeoutError) as error:
        raise StreamUnavailable(f"Kafka: {str(error) or 'no answer'}") from error
    finally:
        with suppress(Exception):
            async with asyncio.timeout(_TIMEOUT):
                await client.close()


class Admin:
    """The administration of a cluster and of one topic in it, as far as the faults need it."""

    def __init__(self, client: AIOKafkaClient, topic: str) -> None:
        self._client = client
        self._topic = topic

    async def partitions(self) -> Mapping[int, Partition]:
        """The topic's partitions by number, as any live broker sees them."""
        answer = await self._ask(MetadataRequest([self._topic], allow_auto_topic_creation=False))
        self._client.cluster.update_metadata(answer)
        code, _, _, entries = answer.topics[0]
        self._check(code, f"topic {self._topic!r}")
        return {
            number: Partition(leader=leader, replicas=tuple(replicas), in_sync=tuple(in_sync))
            for _, number, leader, replicas, in_sync, *_ in entries
        }

    async def topic_setting(self, name: str) -> str | None:
        """Read a setting that the topic itself has; None where it inherits it."""
        answer = await self._ask(DescribeConfigsRequest([(_TOPIC, self._topic, [name])]))
        code, message, _, _, entries = answer.resources[0]
        self._check(code, f"topic {self._topic!r}: {message}")
        settings = {key: str(value) for key, value, _, source, *_ in entries if source == _TOPIC_LEVEL}
        return settings.get(name)

    async def set_topic_setting(self, name: str, value: str | None) -> None:
        """Change one setting of the topic, or let it inherit it again (None). Its other settings stay."""
        change = (name, _DELETE if value is None else _SET, value)
        answer = await self._ask(_AlterConfigs([(_TOPIC, self._topic, [change])], False))
        code, message, *_ = answer.resources[0]
        self._check(code, f"{name} of topic {self._topic!r}: {message}")

    async def quota(self) -> float | None:
        """Read how many bytes/s a producer without a quota of its own may write to each broker; None: any."""
        clients: Any = ("client-id", _BY_DEFAULT, None)
        answer = await self._ask(DescribeClientQuotasRequest([clients], strict=True))
        self._check(answer.error_code, f"quotas: {answer.error_message}")
        return {key: value for _, values in answer.entries or () for key, value in values}.get(_QUOTA)

    async def set_quota(self, value: float | None) -> None:
        """Limit such producers to so many bytes/s; None: let them write without limit."""
        change = (_QUOTA, value or 0.0, value is None)
        answer = await self._ask(_AlterQuotas([([("client-id", None)], [change])], False))
        code, message, *_ = answer.entries[0]
        self._check(code, f"quotas: {message}")

    async def try_to_write(self, partition: int, leader: int) -> str:
        """Send a produce with acks=all whose checksum is wrong, so that nothing is written; the error's name.
        A leader with enough replicas answers ``CorruptRecordException``.
        """
        answer = await self._produce(leader, partition, _batch(1, broken=True))
        return str(for_code(answer.topics[0][1][0][1]).__name__)

    async def throttled(self, broker: int, size: int) -> int:
        """Send a produce of ``size`` bytes to a partition that does not exist: none is written, but they
        count. Returns for how many ms the broker throttles us.
        """
        answer = await self._produce(broker, _NOWHERE, _batch(size))
        return int(answer.throttle_time_ms)

    def brokers(self) -> list[int]:
        """The ids of the brokers that are known."""
        return sorted(broker.nodeId for broker in self._client.cluster.brokers())

    async def _produce(self, broker: int, partition: int, batch: bytes) -> Any:
        request = ProduceRequest(None, -1, round(_TIMEOUT * 1000), [(self._topic, [(partition, batch)])])
        return await self._client.send(broker, request)

    async def _ask(self, request: Any) -> Any:
        """Ask the first broker that answers: always the same one, while it lives."""
        problem: Exception = StreamUnavailable("Kafka has no brokers")
        for broker in self.brokers():
            try:
                return await self._client.send(broker, request)
            except KafkaError as error:
                problem = error
        raise problem

    def _check(self, code: int, request: str) -> None:
        if code:
            raise StreamUnavailable(f"{request}: {for_code(code).__name__}")


def _batch(size: int, *, broken: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=size + 1024,
    )  # fmt: skip
    builder.append(0, 0, None, b"x" * size, [])
    batch = bytearray(builder.build())
    if broken:
        batch[17] ^= 0xFF  # of the checksum
    return bytes(batch)


class _FirstVersion:
    """Makes version 0 of a request that aiokafka does not have."""

    API_KEY: int

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:
        if versions.get(self.API_KEY, (1, 1))[0]:
            raise IncompatibleBrokerVersion("this Kafka does not have the request")
        return self


def _request(key: int, asked: Iterable[Any], answered: Iterable[Any]) -> type[RequestStruct]:
    common = {"API_KEY": key, "API_VERSION": 0}
    answer = ABCMeta(
        "Answer", (Response,), {**common, "SCHEMA": Schema(("throttle_time_ms", Int32), *answered)}
    )
    members = {**common, "SCHEMA": Schema(*asked), "RESPONSE_TYPE": answer}
    return ABCMeta("Request", (_FirstVersion, RequestStruct), members)


_CHANGES = Array(("name", _TEXT), ("operation", Int8), ("value", _TEXT))
_ALTERED = Array(("error_code", Int16), ("message", _TEXT), ("kind", Int8), ("name", _TEXT))
_ALTER = ("resources", Array(("kind", Int8), ("name", _TEXT), ("configs", _CHANGES)))
# Incremental: other settings stay as they are.
_AlterConfigs: Final = _request(44, [_ALTER, ("validate_only", Boolean)], [("resources", _ALTERED)])

_ERROR: Final = (("error_code", Int16), ("error_message", _TEXT))
_ENTITY: Final = ("entity", Array(("kind", _TEXT), ("name", _TEXT)))
_QUOTA_CHANGES: Final = ("changes", Array(("key", _TEXT), ("value", Float64), ("remove", Boolean)))
_AlterQuotas: Final = _request(
    49,
    [("entries", Array(_ENTITY, _QUOTA_CHANGES)), ("validate_only", Boolean)],
    [("entries", Array(*_ERROR, _ENTITY))],
)
