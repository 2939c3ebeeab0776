"""Which log a topic is, what its settings promise, and whether these change."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.protocol import types as wire
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.kafka_log.connection import connecting, open_admin
from dualstream_lab.kafka_log.repeat_filter import RepeatFilter

if TYPE_CHECKING:
    from aiokafka.client import AIOKafkaClient


log = logging.getLogger(__name__)
log.addFilter(RepeatFilter())  # each part of one process warns of its topic

_DEFAULT_MAX_MESSAGE: Final = 1_048_588
_DEFAULT_RETENTION_MS: Final = 604_800_000
_FENCED: Final = 0.1  # s between looks for a broker where none is known
_BROKERS: Final = 3
_PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIdentity:
    """``epoch``: 12 hex digits of cluster id and topic id. Another log, or one made anew, has another one.

    More partitions do not make another log. ``partitions``: how many it had when it was asked.
    """

    epoch: str
    partitions: int
    origin: str
    """Cluster id and topic id, which the epoch is made of."""

    def is_named(self, epoch: str) -> bool:
        """Whether this log is meant: by its epoch, or by one of the format before."""
        return epoch == self.epoch or epoch in self.former_epochs()

    def former_epochs(self) -> frozenset[str]:
        """What the format before called this log, which counted its partitions in: up to today's."""
        return frozenset(_digest(f"{self.origin} {count}") for count in range(1, self.partitions + 1))


class Placement(NamedTuple):
    """The brokers of a partition, by their ids. ``leader``: None where it has none."""

    partition: int
    leader: int | None
    replicas: list[int]
    in_sync: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """A topic's identity and its settings, as far as they matter here.

    ``settings`` is empty where this user may not read them; then Kafka's defaults are assumed.
    """

    log: LogIdentity
    replicas: int
    settings: Mapping[str, str]
    placements: tuple[Placement, ...] = field(default=(), compare=False)

    @property
    def partitions(self) -> int:
        """How many partitions the topic has."""
        return self.log.partitions

    @property
    def max_batch_bytes(self) -> int:
        """The largest batch of records that it takes, as sent (compressed)."""
        return int(self.settings.get("max.message.bytes", _DEFAULT_MAX_MESSAGE))

    @property
    def min_insync_replicas(self) -> int:
        """Replicas that must have a batch before it is acknowledged."""
        return int(self.settings.get("min.insync.replicas", 1))

    @property
    def is_compacted(self) -> bool:
        """Whether Kafka removes all but the newest record of each key."""
        return "compact" in self.settings.get("cleanup.policy", "delete")

    def warn_of_contradictions(self, topic: str, **retention: float) -> None:
        """Log its :meth:`contradictions`, once for parts that start together."""
        for contradiction in self.contradictions(**retention):
            sentence = f"topic {topic}: {contradiction}"
            log.warning(sentence)

    def contradictions(self, *, retention_age: float = 0.0, retention_bytes: float = 0) -> list[str]:
        """What in its settings contradicts "durable, replayable", each as a sentence for a warning.

        ``retention_age``: seconds that the store keeps events, ``retention_bytes``: how much of them at most.
        Kafka should keep at least as long, and as many.
        """
        found = []
        if self.is_compacted:
            found.append(
                "cleanup.policy has 'compact': Kafka removes all but the newest event of each source, and "
                "history cannot be replayed whole; set cleanup.policy=delete"
            )
        if "delete" not in self.settings.get("cleanup.policy", "delete"):
            return found
        kept = int(self.settings.get("retention.ms", _DEFAULT_RETENTION_MS))
        if 0 <= kept < retention_age * 1000:
            found.append(
                f"retention.ms={kept} keeps events for {kept / 1000:g} s; the store is to have "
                f"{retention_age:g} s (retention_age): one that is filled anew would lack some; raise "
                "retention.ms"
            )
        size = int(self.settings.get("retention.bytes", -1))
        whole = size * self.partitions
        if 0 <= whole < retention_bytes:
            found.append(
                f"retention.bytes={size} is {whole:,} bytes in {self.partitions} partitions, the store may "
                f"have {retention_bytes:,} (retention_bytes): one that is filled anew could lack some; raise "
                "retention.bytes"
            )
        return found


def partition_of(source: str, partitions: int) -> int:
    """Where a publisher that sees so many partitions writes a source (``type:id``): murmur2, as Java's.

    Other publishers may see other numbers of partitions, or hash otherwise: no reader may rely on it.
    """
    hashed: int = murmur2(source.partition(":")[2].encode()) & 0x7FFFFFFF
    return hashed % partitions


async def identity_of(client: AIOKafkaClient, topic: str) -> LogIdentity:
    """Which log the topic is, asked through a connected client. The caller bounds it.

    Raises ConfigError if the topic does not exist or Kafka is older than 3.1, KafkaError, OSError.
    """
    return (await _described(client, topic)).log


async def log_identity(settings: Settings) -> LogIdentity:
    """Which log the topic is, never creating it, within ``start_timeout``. Raises as :func:`topic_info`."""
    return (await topic_info(settings)).log


async def topic_info(settings: Settings) -> TopicInfo:
    """Ask for the topic and its settings, never creating it, within ``start_timeout``.

    Raises ConfigError if it does not exist or Kafka is older than 3.1, StreamUnavailable if it is silent.
    """
    async with connecting(settings), open_admin(settings) as admin:
        return await info_of(admin._client, settings.topic)  # noqa: SLF001


async def info_of(client: AIOKafkaClient, topic: str) -> TopicInfo:
    """As :func:`topic_info`, asked through a connected client. The caller bounds it."""
    log, replicas, placements = await _described(client, topic)
    request = DescribeConfigsRequest([(ConfigResourceType.TOPIC, topic, None)])
    answer = await ask_any(client, request)  # of nothing, where this user may not read them
    settings = {entry[0]: entry[1] for resource in answer.resources for entry in resource[4]}
    return TopicInfo(log=log, replicas=replicas, settings=settings, placements=placements)


async def is_there(client: AIOKafkaClient, topic: str) -> bool:
    """Whether the topic exists, for all that this user may know. The caller bounds it."""
    return await describe(client, topic, patient=False) is not None


async def _described(client: AIOKafkaClient, topic: str) -> Description:
    try:
        description = await describe(client, topic)
    except NotImplementedError as error:
        raise ConfigError("kafka_url: this Kafka is too old; 3.1 or later is needed") from error
    if description is None:
        raise ConfigError(
            f"topic {topic!r} does not exist or cannot be used; create it first, for example: kafka-topics.sh"
            f" --create --topic {topic} --partitions 6, or set DUALSTREAM_TOPIC to one that exists"
        )
    return description


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class LogWatch:
    """Looks at the topic every ``interval`` seconds; ``identity`` is what it saw last.

    ``ask`` is asked for the identity, for example :meth:`LogConsumer.identity`. ``on_change(before, after)``
    is called in the loop when it has more partitions (``before.epoch == after.epoch``) or was made anew. A
    Kafka that does not answer changes nothing. :meth:`run` is its task.
    """

    def __init__(
        self,
        identity: LogIdentity,
        *,
        interval: float,
        ask: Callable[[], Awaitable[LogIdentity]],
        on_change: Callable[[LogIdentity, LogIdentity], None],
    ) -> None:
        self.identity = identity
        self._interval = interval
        self._ask = ask
        self._on_change = on_change

    async def run(self) -> None:
        """Work until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except (StreamUnavailable, ConfigError) as error:
                log.info("the topic could not be looked at: %s", error)

    async def look(self) -> LogIdentity:
        """Look now, and tell of a change. Raises StreamUnavailable; ConfigError where the topic is gone."""
        before, after = self.identity, await self._ask()
        if after.epoch == before.epoch and after.partitions < before.partitions:
            return before  # a broker that does not know of the growth yet
        if after != before:
            self.identity = after
            self._on_change(before, after)
        return after


# Kafka's metadata request that names a topic's id and the cluster's; aiokafka speaks older versions only.


class Description(NamedTuple):
    """A topic as a broker describes it. ``replicas``: of the partition that has the fewest."""

    log: LogIdentity
    replicas: int
    placements: tuple[Placement, ...]


async def describe(client: AIOKafkaClient, topic: str, *, patient: bool = True) -> Description | None:
    """Ask any broker, never creating the topic; None where it is not there. The caller bounds it.

    ``patient``: one made a moment ago may not be known to every broker yet. Raises NotImplementedError for a
    Kafka before 3.1; KafkaError, OSError as :func:`ask_any`.
    """
    for pause in _PAUSES if patient else _PAUSES[-1:]:
        answer = await ask_any(client, _DescribeTopic(topic))
        error_code, _name, high, low, _internal, partitions = answer.topics[0][:6]
        if not error_code and partitions:
            replicas = min(len(partition[4]) for partition in partitions)
            origin = f"{answer.cluster_id} {UUID(int=high % 2**64 << 64 | low % 2**64)}"
            identity = LogIdentity(epoch=_digest(origin), partitions=len(partitions), origin=origin)
            ordered = sorted(partitions, key=lambda one: int(one[1]))
            placements = (Placement(p, None if led < 0 else led, *by) for _, p, led, _, *by, _, _ in ordered)
            return Description(identity, replicas, tuple(placements))
        await asyncio.sleep(pause)
    return None


async def ask_any(client: AIOKafkaClient, request: Any) -> Any:
    """What the first of three brokers answers. Raises KafkaError, OSError when none of them does.

    Waits while no broker is known: one that was away for long is fenced for a moment when it is back, and
    does not name itself then. The caller bounds it.
    """
    while not (nodes := [broker.nodeId for broker in client.cluster.brokers()]):
        await asyncio.sleep(_FENCED)
        await client.force_metadata_update()
    *others, last = random.sample(nodes, min(len(nodes), _BROKERS))
    for node in others:
        with suppress(KafkaError, OSError):
            return await client.send(node, request)
    return await client.send(last, request)


_TEXT = wire.CompactString("utf-8")
_INTEGERS = wire.CompactArray(wire.Int32)
_TAGS = ("tags", wire.TaggedFields)
_BROKER = (("node_id", wire.Int32), ("host", _TEXT), ("port", wire.Int32), ("rack", _TEXT), _TAGS)
_PARTITION = (
    *(
        ("error_code", wire.Int16),
        ("partition", wire.Int32),
        ("leader", wire.Int32),
        ("leader_epoch", wire.Int32),
    ),
    *(("replicas", _INTEGERS), ("isr", _INTEGERS), ("offline_replicas", _INTEGERS), _TAGS),
)
_TOPIC = (
    *(("error_code", wire.Int16), ("name", _TEXT)),
    *(("high_id", wire.Int64), ("low_id", wire.Int64), ("is_internal", wire.Boolean)),  # the protocol's UUID
    *(("partitions", wire.CompactArray(*_PARTITION)), ("authorized_operations", wire.Int32), _TAGS),
)


class _DescribedTopics(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = wire.Schema(
        ("throttle_time_ms", wire.Int32),
        ("brokers", wire.CompactArray(*_BROKER)),
        ("cluster_id", _TEXT),
        ("controller_id", wire.Int32),
        ("topics", wire.CompactArray(*_TOPIC)),
        _TAGS,
    )


class _DescribeTopicStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _DescribedTopics
    SCHEMA = wire.Schema(
        (
            "topics",
            wire.CompactArray(("high_id", wire.Int64), ("low_id", wire.Int64), ("name", _TEXT), _TAGS),
        ),
        ("allow_auto_topic_creation", wire.Boolean),
        ("include_topic_authorized_operations", wire.Boolean),
        _TAGS,
    )


class _DescribeTopic(Request[_DescribeTopicStruct]):  # type: ignore[misc]
    """A request for the metadata of one topic, by its name, with its id."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_DescribeTopicStruct]) -> _DescribeTopicStruct:
        return request_struct_class([(0, 0, self._topic, {})], False, False, {})
