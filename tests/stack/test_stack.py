"""The local stack: every control, data kept, nothing left behind."""

from __future__ import annotations

import gc
import socket
import warnings

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from dualstream_lab.errors import StackError
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.valkey import find_redis, redis_process


async def produce(url: str, topic: str, value: bytes) -> int:
    producer = AIOKafkaProducer(bootstrap_servers=url, acks="all", request_timeout_ms=20_000)
    await producer.start()
    try:
        return (await producer.send_and_wait(topic, value, partition=0)).offset
    finally:
        await producer.stop()


async def first_value(url: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=url, auto_offset_reset="earliest")
    await consumer.start()
    try:
        batches = await consumer.getmany(timeout_ms=15_000, max_records=1)
        return next((records[0].value for records in batches.values()), None)
    finally:
        await consumer.stop()


async def test_a_killed_broker_returns_with_its_port_and_data(stack: LocalStack, topic: str) -> None:
    await produce(stack.kafka_url, topic, b"kept")
    broker, url = stack.brokers[0], stack.kafka_url
    broker.kill()
    assert not broker.running
    assert broker.pid is None
    broker.start()
    assert stack.kafka_url == url
    assert await first_value(url, topic) == b"kept"


async def test_a_stopped_broker_returns_with_its_data(stack: LocalStack, topic: str) -> None:
    await produce(stack.kafka_url, topic, b"kept")
    stack.brokers[0].stop()
    assert not stack.brokers[0].running
    stack.brokers[0].start()
    assert await first_value(stack.kafka_url, topic) == b"kept"


def test_a_killed_redis_returns_on_its_port(stack: LocalStack) -> None:
    stack.redis.kill()
    with redis.Redis.from_url(stack.redis_url, retry=None) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    stack.redis.start()
    with redis.Redis.from_url(stack.redis_url) as client:
        assert client.ping()


def ping_on(client: redis.Redis) -> None:
    """As long as it answers: it stands still a moment after the signal."""
    while True:
        client.ping()


def test_a_paused_redis_is_mute_until_resumed(stack: LocalStack) -> None:
    with redis.Redis.from_url(stack.redis_url, socket_timeout=0.2, retry=None) as client:
        stack.redis.pause()
        assert stack.redis.paused
        with pytest.raises(redis.TimeoutError):
            ping_on(client)
    stack.redis.resume()
    with redis.Redis.from_url(stack.redis_url) as client:
        assert client.ping()


def test_a_topic_is_created_once(stack: LocalStack, topic: str) -> None:
    with pytest.raises(StackError, match=f"{topic!r} could not be created.*exists"):
        stack.create_topic(topic)


def test_a_full_disk_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("dualstream_lab.stack.directory._MIN_FREE", 2**62)  # what no disk has
    with pytest.raises(StackError, match="MiB free, and brokers need"):
        LocalStack(directory=tmp_path).start()


def test_a_redis_that_cannot_start_leaves_no_pipe_open(tmp_path) -> None:
    """Its port is taken, and the next test would hear of files that nobody closed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = redis_process(
            find_redis(),
            port=taken.getsockname()[1],
            directory=tmp_path,
            remove=None,
            settings=(),
            tls=None,
            tls_port=0,
        )
        for _ in range(2):
            with pytest.raises(StackError, match="its port is in use"):
                process.start()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del process
        gc.collect()
    assert [warning for warning in said if issubclass(warning.category, ResourceWarning)] == []
