"""Brokers behind TLS and a password: Kafka's SASL_SSL listener, and a TLS Redis with an ACL user."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest
import redis
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from dualstream_lab import DualPublisher, Event, Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.event import decode_event
from dualstream_lab.replay import Start, replay
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.settings import TlsMaterial
from dualstream_lab.stack.valkey import tls_capable_redis

PASSWORD = "a-secret-of-the-tests"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A stack with TLS listeners beside the plain ones."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(directory / "server.pem")
    # Kafka reads PKCS #8 only.
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "server.key").write_bytes(pem)
    material = TlsMaterial(
        ca=str(directory / "ca.pem"),
        certificate=str(directory / "server.pem"),
        key=str(directory / "server.key"),
        user="alice",
        password=PASSWORD,
    )
    with LocalStack(tls=material) as stack:
        yield stack


@pytest.fixture
def rediss_url(secured):
    if tls_capable_redis() is None:
        reason = "no valkey-server or redis-server with TLS on PATH (Debian: apt install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return secured.rediss_url


def event(number: int = 0) -> Event:
    return Event(type="push", source_type="repo", source_id="o/r", data={"n": number})


async def test_kafka_with_tls_and_a_password(secured):
    settings = Settings.load(kafka_url=secured.kafka_tls_url, topic=secured.topic)
    async with DualPublisher(settings) as publisher:
        receipt = await publisher.publish(event(7))
    plain = Settings.load(kafka_url=secured.kafka_url, topic=secured.topic)
    found = [record async for record in replay(plain, Start(offset=0), follow=False)]
    assert [decode_event(record.value).id for record in found] == [receipt.event_id]


async def test_a_wrong_kafka_password_is_said_and_not_repeated(secured):
    url = secured.kafka_tls_url.replace(PASSWORD, "wrong-word")
    settings = Settings.load(kafka_url=url, topic=secured.topic, start_timeout=5)
    with pytest.raises(StreamUnavailable, match=r"cannot be used: .* refused the log-in") as caught:
        await DualPublisher(settings).start()
    assert "wrong-word" not in str(caught.value)


async def test_a_kafka_certificate_of_a_stranger_is_refused(secured, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    url = secured.kafka_tls_url.partition("?")[0] + f"?ssl_cafile={tmp_path / 'other.pem'}"
    with pytest.raises(StreamUnavailable, match=r"cannot be used: .* not trusted"):
        await DualPublisher(Settings.load(kafka_url=url, topic=secured.topic, start_timeout=5)).start()


async def test_redis_with_tls_and_an_acl_user(secured, rediss_url):
    settings = Settings.load(kafka_url=secured.kafka_url, redis_url=rediss_url, topic=secured.topic)
    with redis.Redis.from_url(rediss_url) as client, client.pubsub() as listener:
        listener.subscribe("events:repo:o/r")
        assert listener.get_message(timeout=20)["type"] == "subscribe"
        async with DualPublisher(settings) as publisher:
            receipt = await publisher.publish(event())
            assert await publisher.flush()
            assert publisher.stats().notified == 1
        message = listener.get_message(timeout=20)
        assert message is not None
        assert receipt.event_id.encode() in message["data"]


async def test_a_wrong_redis_password_never_fails_a_publish(secured, rediss_url, caplog):
    assert urlsplit(rediss_url).password == PASSWORD
    url = rediss_url.replace(PASSWORD, "wrong-word")
    settings = Settings.load(kafka_url=secured.kafka_url, redis_url=url, topic=secured.topic)
    async with DualPublisher(settings) as publisher:
        assert (await publisher.publish(event())).offset >= 0
        assert not publisher.stats().redis_up
    assert "Publishing goes on" in caplog.text
    assert "wrong-word" not in caplog.text
