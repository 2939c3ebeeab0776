"""Topics and rights, changed while a publisher runs. aiokafka cannot grant rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

from dualstream_lab.kafka_log.topic import info_of

TOPIC, CLUSTER = 2, 4
WRITE, DESCRIBE = 4, 8
_LITERAL, _ALLOW = 3, 3


@asynccontextmanager
async def admin(kafka_url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_url)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def alter_topic(kafka_url: str, topic: str, **settings: str) -> None:
    """Set these (with _ for .) and no others. Returns when the broker says so, too."""
    named = {name.replace("_", "."): value for name, value in settings.items()}
    async with admin(kafka_url) as client, asyncio.timeout(20):
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])
        described: dict[str, str] = {}
        while not named.items() <= described.items():
            described = (await info_of(client._client, topic)).settings


async def add_partitions(kafka_url: str, topic: str, count: int) -> None:
    async with admin(kafka_url) as client:
        await client.create_partitions({topic: NewPartitions(count)})


async def make_anew(kafka_url: str, topic: str, partitions: int = 6) -> None:
    """Delete the topic and create it."""
    async with admin(kafka_url) as client:
        await client.delete_topics([topic])
        while True:
            answer = await client.create_topics([NewTopic(topic, partitions, 1)])
            if not answer.topic_errors[0][1]:
                return


class _Granted(Response):
    API_KEY, API_VERSION = 30, 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("results", Array(("error_code", Int16), ("error_message", String("utf-8")))),
    )


class _GrantStruct(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE = 30, 1, _Granted
    SCHEMA = Schema(
        (
            "creations",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                ("pattern_type", Int8),
                ("principal", String("utf-8")),
                ("host", String("utf-8")),
                ("operation", Int8),
                ("permission_type", Int8),
            ),
        )
    )


class _Revoked(Response):
    API_KEY, API_VERSION = 31, 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                (
                    "matches",
                    Array(
                        ("error_code", Int16),
                        ("error_message", String("utf-8")),
                        ("resource_type", Int8),
                        ("resource_name", String("utf-8")),
                        ("pattern_type", Int8),
                        ("principal", String("utf-8")),
                        ("host", String("utf-8")),
                        ("operation", Int8),
                        ("permission_type", Int8),
                    ),
                ),
            ),
        ),
    )


class _RevokeStruct(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE = 31, 1, _Revoked
    SCHEMA = _GrantStruct.SCHEMA  # filters look like what they match


class _Grant(Request[_GrantStruct]):
    API_KEY = 30

    def __init__(self, rows: list[tuple]) -> None:
        self.rows = rows

    def build(self, request_struct_class: type[_GrantStruct]) -> _GrantStruct:
        return request_struct_class(self.rows)


class _Revoke(Request[_RevokeStruct]):
    API_KEY = 31

    def __init__(self, rows: list[tuple]) -> None:
        self.rows = rows

    def build(self, request_struct_class: type[_RevokeStruct]) -> _RevokeStruct:
        return request_struct_class(self.rows)


async def _change(kind: type, kafka_url: str, topic: str, user: str, operation: int) -> None:
    row = (TOPIC, topic, _LITERAL, f"User:{user}", "*", operation, _ALLOW)
    async with admin(kafka_url) as client:
        answer = await client._client.send(client._client.get_random_node(), kind([row]))
    assert [result[0] for result in answer.results] == [0], answer
    if kind is _Revoke:
        assert len(answer.results[0][2]) == 1, "that right was there"


async def grant(kafka_url: str, topic: str, user: str, operation: int) -> None:
    await _change(_Grant, kafka_url, topic, user, operation)


async def revoke(kafka_url: str, topic: str, user: str, operation: int) -> None:
    await _change(_Revoke, kafka_url, topic, user, operation)
