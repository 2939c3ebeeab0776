"""The topics of a Kafka, as who administers it sees them: listed, described, created, deleted.

An admin client that is given is connected (:func:`open_admin`), and the caller bounds what is done with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from aiokafka.protocol.metadata import MetadataRequest

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.kafka_log.client import Bounds
from dualstream_lab.kafka_log.consumer import open_consumer
from dualstream_lab.kafka_log.topic import TopicInfo, ask_any, topic_info

SETTINGS: Final = (
    *("cleanup.policy", "compression.type", "max.message.bytes"),
    *("min.insync.replicas", "retention.bytes", "retention.ms"),
)
"""A topic's settings that matter to this project."""
_PAUSE: Final = 0.05  # s between looks for a change that the controller has made
_FENCED: Final = 0.2  # s until a broker is asked again that does not serve yet


class TopicExists(ConfigError):
    """The topic is there already."""


async def list_topics(admin: AIOKafkaAdminClient) -> dict[str, tuple[int, int]]:
    """How many partitions and replicas each topic has that this user may see; without Kafka's own."""
    return {
        one["topic"]: (len(one["partitions"]), min(len(each["replicas"]) for each in one["partitions"]))
        for one in sorted(await _known(admin), key=lambda one: str(one["topic"]))
        if one["partitions"] and not one["is_internal"]
    }


async def describe_topic(settings: Settings) -> tuple[TopicInfo, Bounds]:
    """What the topic of the settings promises, where its partitions are, and where they begin and end.

    Raises as :func:`topic_info`.
    """
    info = await topic_info(settings)
    async with open_consumer(settings) as consumer:
        return info, await consumer.bounds([one.partition for one in info.placements])


async def create_topic(
    admin: AIOKafkaAdminClient, name: str, *, partitions: int, replication_factor: int,
    settings: Mapping[str, str],
) -> None:  # fmt: skip
    """Create a topic, and wait until every partition has a leader.

    Raises TopicExists; ConfigError with what Kafka refuses of it; KafkaError, OSError.
    """
    new = NewTopic(name, partitions, replication_factor, topic_configs=dict(settings))
    await _change(admin, name, "created", lambda: admin.create_topics([new]))


async def delete_topic(admin: AIOKafkaAdminClient, name: str) -> None:
    """Delete a topic with all of its events, and wait until a broker does not know it any more.

    Raises ConfigError with what Kafka refuses; KafkaError, OSError.
    """
    await _change(admin, name, "deleted", lambda: admin.delete_topics([name]))


async def _change(
    admin: AIOKafkaAdminClient, name: str, change: str, send: Callable[[], Awaitable[Any]]
) -> None:
    entry = await _insist(admin, send)
    message, reason = "".join(map(str, entry[2:3])), for_code(entry[1]).message
    if entry[1]:
        kind = TopicExists if reason == "TOPIC_ALREADY_EXISTS" else ConfigError
        hint = f"; there are {', '.join(SETTINGS)} and others" if "Unknown topic config" in message else ""
        raise kind(f"topic {name!r} could not be {change}: {message or reason}{hint}")
    while True:
        (found,) = await _known(admin, [name])
        there = not found["error_code"] and all(one["leader"] >= 0 for one in found["partitions"])
        if there if change == "created" else found["error_code"]:
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
            answer = await send()
            (entry,) = answer.get_item(answer.SCHEMA.names[-1])
            if "fenced" not in str(entry[2:3]):
                return entry
        await asyncio.sleep(_FENCED)
        await admin._client.force_metadata_update()  # noqa: SLF001
