"""Rights that are taken away and given back: who waits learns it at once, and nothing has to be restarted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from dualstream_lab import DualPublisher, Settings
from dualstream_lab.errors import PublishRejected, StreamUnavailable
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.settings import TlsMaterial

from .helpers import assert_in_order, events, ids_of, read_log, until
from .kafka_admin import DESCRIBE, WRITE, grant, revoke

PASSWORD = "a-secret-of-the-tests"
USER = "alice"
_PLAIN_SASL = "CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,SASL_SSL:SASL_PLAINTEXT"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A broker that asks for log-in and rights, without TLS; whoever uses its plain listener may do all."""
    directory = tmp_path_factory.mktemp("guarded")
    issued = trustme.CA().issue_cert("127.0.0.1")  # for a listener that would be TLS if it were not changed
    issued.cert_chain_pems[0].write_to_path(directory / "server.pem")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "server.key").write_bytes(pem)
    files = {"certificate": str(directory / "server.pem"), "key": str(directory / "server.key")}
    material = TlsMaterial(ca=files["certificate"], **files, user=USER, password=PASSWORD)
    rights = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.security.protocol.map": _PLAIN_SASL,
    }
    with LocalStack(in_memory=True, redis=False, tls=material, kafka_settings=rights) as stack:
        yield stack


@asynccontextmanager
async def publisher_of_alice(guarded, topic: str, **values: object):
    """Her publisher, with the rights to write and to describe."""
    guarded.create_topic(topic)
    for right in (WRITE, DESCRIBE):
        await grant(guarded.kafka_url, topic, USER, right)
    servers = guarded.kafka_tls_url.partition("@")[2].partition("?")[0]
    where = {"kafka_url": f"kafka://{USER}:{PASSWORD}@{servers}", "topic": topic}
    async with DualPublisher(Settings.load(**where, **values)) as publisher:
        yield publisher
    await revoke(guarded.kafka_url, topic, USER, WRITE)  # who may write to any topic may have a producer


async def rejected(publisher: DualPublisher, start: int) -> tuple[str, float]:
    """Publish until it is refused, as rights take a moment to reach a broker: why, and how long that took."""
    while True:
        started = time.monotonic()
        try:
            await publisher.publish(events(1, start=start)[0])
        except PublishRejected as error:
            return str(error), time.monotonic() - started


async def durable(publisher: DualPublisher, start: int) -> None:
    while True:
        try:
            await publisher.publish_batch(events(20, start=start))
        except PublishRejected:
            await asyncio.sleep(0.05)
        else:
            return


def assert_bounded(records: list[logging.LogRecord]) -> None:
    """No line of a place in the code comes twice within 5 s, and no password at all."""
    times = defaultdict(list)
    for record in records:
        assert PASSWORD not in record.getMessage()
        if record.levelno >= logging.WARNING:
            times[record.pathname, record.lineno].append(record.created)
    for place, each in times.items():
        gaps = [later - earlier for earlier, later in pairwise(each)]
        assert all(gap > 4.9 for gap in gaps), (place, gaps)


async def test_every_call_learns_that_the_right_is_gone_at_once_and_goes_on_when_it_is_back(guarded, caplog):
    async with publisher_of_alice(guarded, "taken-away") as publisher:
        await publisher.publish_batch(events(20))
        await revoke(guarded.kafka_url, "taken-away", USER, WRITE)
        await rejected(publisher, 100)
        with caplog.at_level(logging.INFO):
            for number in range(100):
                why, took = await rejected(publisher, 200 + number)
                assert "TOPIC_AUTHORIZATION_FAILED" in why
                assert took < 5
        assert_bounded(caplog.records)
        await grant(guarded.kafka_url, "taken-away", USER, WRITE)
        await durable(publisher, 1000)
        stats = publisher.stats()
        assert stats.producers == 1
        assert stats.unknown == 0
        assert stats.accepted == stats.durable + stats.rejected
    log = await read_log(guarded.kafka_url, "taken-away")
    assert len(log) == len(set(ids_of(log))) == stats.durable
    assert_in_order(log)


async def test_while_there_can_be_no_new_producer_every_call_learns_why(guarded, caplog):
    async with publisher_of_alice(guarded, "no-producer", delivery_timeout=60) as publisher:
        await publisher.publish_batch(events(20))
        await revoke(guarded.kafka_url, "no-producer", USER, WRITE)
        await rejected(publisher, 100)
        waiting = asyncio.create_task(publisher.publish_batch(events(20, start=500)))
        await asyncio.sleep(0)
        publisher._accumulator.sender._replace("the test says so")
        with caplog.at_level(logging.INFO), pytest.raises(PublishRejected):
            await asyncio.wait_for(waiting, 20)
        with caplog.at_level(logging.INFO):
            for number in range(70):
                why, took = await rejected(publisher, 600 + number)
                assert took < 5
                await asyncio.sleep(0.1)
        assert "user alice may not write to topic no-producer" in why
        assert "delivery_timeout" not in why
        assert publisher.stats().producers == 1
        assert_bounded(caplog.records)
        assert any("no new producer yet" in record.getMessage() for record in caplog.records)
        await grant(guarded.kafka_url, "no-producer", USER, WRITE)
        await durable(publisher, 1000)
        assert publisher.stats().producers == 2
        assert publisher.stats().buffered_events == 0
    log = await read_log(guarded.kafka_url, "no-producer")
    assert len(log) == len(set(ids_of(log))) == publisher.stats().durable


async def test_a_user_who_may_not_write_cannot_start_and_is_told_why(guarded):
    guarded.create_topic("read-only")
    await grant(guarded.kafka_url, "read-only", USER, DESCRIBE)
    servers = guarded.kafka_tls_url.partition("@")[2].partition("?")[0]
    url = f"kafka://{USER}:{PASSWORD}@{servers}"
    with pytest.raises(StreamUnavailable, match="user alice may not write to topic read-only") as caught:
        await DualPublisher(Settings.load(kafka_url=url, topic="read-only")).start()
    assert PASSWORD not in str(caught.value)


async def test_a_topic_that_may_not_be_seen_any_more_rejects_what_waits(guarded):
    """Both rights are gone, and the client has asked anew which brokers lead: it is told of no partition."""
    async with publisher_of_alice(guarded, "unseen", request_timeout=1) as publisher:
        await publisher.publish_batch(events(20))
        for right in (WRITE, DESCRIBE):
            await revoke(guarded.kafka_url, "unseen", USER, right)
        client = publisher._accumulator.sender._writer._producer.client
        await until(lambda: client.force_metadata_update() and "unseen" in client.cluster.unauthorized_topics)
        why, took = await rejected(publisher, 100)
        assert "TOPIC_AUTHORIZATION_FAILED" in why
        assert took < 10
        for right in (WRITE, DESCRIBE):
            await grant(guarded.kafka_url, "unseen", USER, right)
        await durable(publisher, 1000)
        assert publisher.stats().producers == 1
