"""Why Kafka cannot be used: each in its own sentence, on real listeners; no password in any of them."""

from __future__ import annotations

import asyncio

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from dualstream_lab import DualPublisher, Settings
from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log.connection import connection_problem
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.settings import TlsMaterial

PASSWORD = "a-secret-of-the-tests"


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """A broker with a plain listener, and one of SASL PLAIN over TLS; and what its addresses are."""
    directory = tmp_path_factory.mktemp("listeners")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    trustme.CA().cert_pem.write_to_path(directory / "other.pem")
    issued.cert_chain_pems[0].write_to_path(directory / "server.pem")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    (directory / "server.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    material = TlsMaterial(
        ca=str(directory / "ca.pem"),
        certificate=str(directory / "server.pem"),
        key=str(directory / "server.key"),
        user="alice",
        password=PASSWORD,
    )
    with LocalStack(tls=material, in_memory=True) as stack:
        secure = stack.kafka_tls_url.rpartition("@")[2].partition("?")[0]
        yield {
            "plain": stack.kafka_url,
            "secure": secure,
            "port": secure.rpartition(":")[2],
            "ca": str(directory / "ca.pem"),
            "other": str(directory / "other.pem"),
            "password": PASSWORD,
        }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "kafkas://alice:wrong-word@{secure}?ssl_cafile={ca}",
            "{secure} refused the log-in of user alice (SASL PLAIN)",
        ),
        (
            "kafkas://alice:{password}@{secure}?ssl_cafile={ca}&sasl_mechanism=SCRAM-SHA-512",
            "{secure} has no SASL SCRAM-SHA-512",
        ),
        ("kafkas://{secure}?ssl_cafile={ca}", "it expects SASL"),
        ("kafka://{secure}", "{secure} expects TLS: use kafkas://"),
        ("kafka://alice:{password}@{secure}", "{secure} expects TLS"),
        ("kafkas://{plain}?ssl_cafile={ca}", "{plain} does not speak TLS: use kafka://"),
        ("kafka://alice:{password}@{plain}", "{plain} expects no log-in"),
        ("kafkas://alice:{password}@{secure}?ssl_cafile={other}", "has a certificate that is not trusted"),
        ("kafkas://alice:{password}@localhost:{port}?ssl_cafile={ca}", "Hostname mismatch"),
        ("kafka://no-such-host.invalid:9092", "its name does not resolve"),
        ("127.0.0.1:1", "127.0.0.1:1 refuses connections: nothing listens there"),
    ],
)
async def test_each_reason_has_its_sentence(where, url, said):
    settings = Settings.load(kafka_url=url.format_map(where), topic="events", start_timeout=5)
    with pytest.raises(StreamUnavailable) as caught:
        await DualPublisher(settings).start()
    assert said.format_map(where) in str(caught.value)
    reached = not said.endswith(("does not resolve", "nothing listens there"))
    assert ("cannot be used: " if reached else "could not be reached: ") in str(caught.value)
    assert "wrong-word" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_where_nothing_is_wrong_nothing_is_said(where):
    url = "kafkas://alice:{password}@{secure}?ssl_cafile={ca}".format_map(where)
    assert await connection_problem(kafka_client_options(url)) is None


async def test_a_server_that_says_nothing_is_left_in_time():
    open_: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: open_.append(writer), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        said = await connection_problem(kafka_client_options(f"127.0.0.1:{port}"))
        for writer in open_:
            writer.close()
            await writer.wait_closed()
    assert said is not None
    assert "does not answer as Kafka does" in said.sentence
    assert not said.reached
