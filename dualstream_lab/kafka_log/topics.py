"""The topics of a Kafka, as who administers it sees them: listed, described, created, deleted.

Each function is given a connected admin client (:func:`open_admin`), and its caller bounds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from aiokafka.protocol.metadata import MetadataRequest

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.kafka_log.client import Bounds, LogClient
from dualstream_lab.kafka_log.connection import connecting, open_admin
from dualstream_lab.kafka_log.topic import Placement, TopicInfo, ask_any, describe, info_of

SETTINGS: Final = (
    *("cleanup.policy", "compression.type", "max.message.bytes"),
    *("min.insync.replicas", "retention.bytes", "retention.ms"),
)
"""A topic's settings that matter to this project."""
_PAUSE: Final = 0.05  # s between looks for a change that the controller has made
_FENCED: Final = 0.2  # s until a broker is asked again that does not serve yet


class TopicExists(ConfigError):
    """The topic is there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDescription:
    """What a topic promises, on which brokers its partitions are, and where these begin and end."""

    info: TopicInfo
    placements: tuple[Placement, ...]
    bounds: Bounds


async def list_topics(admin: AIOKafkaAdminClient) -> dict[str, tuple[int, int]]:
    """How many partitions and replicas each topic has that this user may see; without Kafka's own."""
    return {
        one["topic"]: (len(one["partitions"]), min(len(each["replicas"]) for each in one["partitions"]))
        for one in sorted(await _known(admin), key=lambda one: str(one["topic"]))
        if one["partitions"] and not one["is_internal"]
    }


async def describe_topic(settings: Settings) -> TopicDescription:
    """Describe the topic of the settings, within twice ``start_timeout``. Raises as :func:`topic_info`."""
    async with connecting(settings), open_admin(settings) as admin:
        info = await info_of(admin._client, settings.topic)  # noqa: SLF001
        found = await describe(admin._client, settings.topic)  # noqa: SLF001
    placements = () if found is None else found.placements
    client = LogClient(settings)
    try:
        async with connecting(settings):
            await client.start()
            bounds = await client.bounds([one.partition for one in placements])
    finally:
        await client.close()
    return TopicDescription(info=info, placements=placements, bounds=bounds)


async def create_topic(
    admin: AIOKafkaAdminClient, name: str, *, partitions: int, replication_factor: int,
    settings: Mapping[str, str],
) -> None:  # fmt: skip
    """Create a topic, and wait until every partition has a leader.

    Raises TopicExists; ConfigError with what Kafka refuses of it; KafkaError, OSError.
    """
    new = NewTopic(name, partitions, replication_factor, topic_configs=dict(settings))

    async def send() -> Any:
        return (await admin.create_topics([new])).topic_errors

    _, code, message = (await _insist(admin, send))[0][:3]
    reason = for_code(code).message
    if code:
        kind = TopicExists if reason == "TOPIC_ALREADY_EXISTS" else ConfigError
        raise kind(f"topic {name!r} could not be created: {message or reason}")
    while True:
        (found,) = await _known(admin, [name])
        if not found["error_code"] and all(one["leader"] >= 0 for one in found["partitions"]):
            return
        await asyncio.sleep(_PAUSE)


async def delete_topic(admin: AIOKafkaAdminClient, name: str) -> None:
    """Delete a topic with all of its events, and wait until a broker does not know it any more.

    Raises ConfigError with what Kafka refuses; KafkaError, OSError.
    """

    async def send() -> Any:
        return (await admin.delete_topics([name])).topic_error_codes

    if code := (await _insist(admin, send))[0][1]:
        raise ConfigError(f"topic {name!r} could not be deleted: {for_code(code).message}")
    while True:
        (found,) = await _known(admin, [name])
        if found["error_code"]:
            return
        await asyncio.sleep(_PAUSE)


async def _known(admin: AIOKafkaAdminClient, names: list[str] | None = None) -> list[dict[str, Any]]:
    """What a broker tells of these topics, or of all: the controller knows of changes a moment before it."""
    request = MetadataRequest(names, allow_auto_topic_creation=False)
    answer = await ask_any(admin._client, request)  # noqa: SLF001
    found: list[dict[str, Any]] = answer.to_object()["topics"]
    return found


async def _insist(admin: AIOKafkaAdminClient, send: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again while the broker is fenced, as one is that a full machine kept from its heartbeats."""
    while True:
        with suppress(AttributeError):  # aiokafka's word for a controller that is fenced
            entries = await send()
            if not any("fenced" in str(entry[2:3]) for entry in entries):
                return entries
        await asyncio.sleep(_FENCED)
        await admin._client.force_metadata_update()  # noqa: SLF001
