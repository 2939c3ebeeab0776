"""Connecting to Kafka: with which options, within which time, and why it cannot be used, in a sentence.

aiokafka itself only says that it could not bootstrap.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from dualstream_lab.config import Settings, kafka_client_options
from dualstream_lab.errors import ConfigError, StreamUnavailable

_CLOSE_TIMEOUT: Final = 2.0
_TIMEOUT: Final = 3.0  # s for one look at one server
_SERVERS: Final = 3  # looked at, at most
_TLS_ALERT: Final = range(0x15030000, 0x15040000)  # read as a length: a TLS listener's answer to plain text

_LOG_IN: Final = "refused the log-in of user {user} (SASL {mechanism}): {said}"
_SENTENCES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (kafka_errors.SaslAuthenticationFailed, _LOG_IN),
    (kafka_errors.AuthenticationFailedError, _LOG_IN),
    (
        kafka_errors.UnsupportedSaslMechanismError,
        "has no SASL {mechanism}: set sasl_mechanism to one that its listener enables",
    ),
    (
        kafka_errors.IllegalSaslStateError,
        "expects no log-in: leave user:password@ out, or give the port of its SASL listener",
    ),
    (ssl.SSLCertVerificationError, "has a certificate that is not trusted: {said}; check ssl_cafile"),
    (socket.gaierror, "cannot be found: its name does not resolve"),
    (ConnectionRefusedError, "refuses connections: nothing listens there"),
)


class ConnectionProblem(NamedTuple):
    """Why servers cannot be used, as a sentence. ``reached``: a Kafka's own answer says it."""

    sentence: str
    reached: bool = True


def client_options(settings: Settings) -> dict[str, Any]:
    """aiokafka's arguments for this Kafka, with its time-out. Raises ConfigError."""
    if settings.kafka_url is None:
        raise ConfigError("kafka_url (DUALSTREAM_KAFKA_URL) is not set; allowed: host:port[,host:port…]")
    options = kafka_client_options(settings.kafka_url)
    return options | {"request_timeout_ms": round(settings.request_timeout * 1000)}


@asynccontextmanager
async def connecting(settings: Settings) -> AsyncIterator[None]:
    """Bounds what it encloses by ``start_timeout``; Kafka's errors in it are StreamUnavailable, with why."""
    try:
        async with asyncio.timeout(settings.start_timeout):
            yield
    except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
        raise await _unreachable(settings, error) from error


@asynccontextmanager
async def open_admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client. The caller bounds it. Raises KafkaError, OSError, ConfigError."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        yield admin
    finally:
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await admin.close()


async def close_producer(producer: AIOKafkaProducer, *, hard: bool = False) -> None:
    """Within seconds, whatever the brokers do; hard, if it takes too long in order.

    Then futures that are pending stay so, and bytes that are in a socket may still be written.
    """
    if not hard:
        with suppress(kafka_errors.KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await producer.stop()
                return
    producer._closed = True  # noqa: SLF001  (so that it does not warn when collected)
    sender = producer._sender.sender_task  # noqa: SLF001
    with suppress(Exception):
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender], timeout=_CLOSE_TIMEOUT)
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await producer.client.close()


async def _unreachable(settings: Settings, error: BaseException) -> StreamUnavailable:
    """The error for a Kafka that cannot be used, with what its servers say when asked anew, in seconds."""
    options = kafka_client_options(settings.kafka_url or "")
    servers = ", ".join(options["bootstrap_servers"])
    if (refused := refusal(error, options, settings.topic)) is not None:
        return StreamUnavailable(f"Kafka at {servers} cannot be used: {refused}")
    silence = str(error) or f"no answer within {settings.start_timeout:g} s"
    problem = await connection_problem(options) or ConnectionProblem(silence, reached=False)
    verdict = "cannot be used" if problem.reached else "could not be reached"
    return StreamUnavailable(f"Kafka at {servers} {verdict}: {problem.sentence}; check kafka_url")


def refusal(error: BaseException, options: Mapping[str, Any], topic: str) -> str | None:
    """What Kafka itself refused, where the error says it; None for one that says nothing of the kind."""
    user = options.get("sasl_plain_username")
    client = f"user {user}" if user else "a client without a log-in"
    if isinstance(error, kafka_errors.TopicAuthorizationFailedError):
        return f"{client} may not use topic {topic} (TOPIC_AUTHORIZATION_FAILED)"
    if isinstance(error, kafka_errors.ClusterAuthorizationFailedError):
        return (
            f"{client} may not write to topic {topic}: neither WRITE on it nor IDEMPOTENT_WRITE is allowed "
            "(CLUSTER_AUTHORIZATION_FAILED)"
        )
    if isinstance(error, kafka_errors.GroupAuthorizationFailedError):
        return f"{client} may not use the group (GROUP_AUTHORIZATION_FAILED); check DUALSTREAM_GROUP"
    return None


async def connection_problem(options: Mapping[str, Any]) -> ConnectionProblem | None:
    """Connect to each of the first servers as a client would, and say what goes wrong; None: nothing does.

    ``options``: aiokafka's, as ``config.kafka_client_options`` makes them. Within some 6 s.
    No password is in the answer.
    """
    servers = options["bootstrap_servers"][:_SERVERS]
    problems = await asyncio.gather(*(_problem_of(server, options) for server in servers))
    found = dict.fromkeys(problem for problem in problems if problem is not None)
    if None in problems:
        return None
    return ConnectionProblem("; ".join(one.sentence for one in found), all(one.reached for one in found))


async def _problem_of(server: str, options: Mapping[str, Any]) -> ConnectionProblem | None:
    given = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    try:
        await _talk(server, given)
    except (OSError, kafka_errors.KafkaError, TimeoutError) as error:
        about = {
            "user": given.get("sasl_plain_username"),
            "mechanism": given.get("sasl_mechanism", "PLAIN"),
            "said": getattr(error, "verify_message", None) or (str(error.args[-1]) if error.args else ""),
        }
        for kind, sentence in _SENTENCES:
            if isinstance(error, kind):
                reached = not isinstance(error, (socket.gaierror, ConnectionRefusedError))
                return ConnectionProblem(f"{server} {sentence.format_map(about)}", reached)
        if given.get("ssl_context") and not isinstance(error, TimeoutError) and await _is_plain(server):
            sentence = f"{server} does not speak TLS: use kafka://, or give the port of its TLS listener"
            return ConnectionProblem(sentence)
        return _silence(server, error, logged_in=about["user"] is not None)
    return None


def _silence(server: str, error: BaseException, *, logged_in: bool) -> ConnectionProblem:
    """A listener that hangs up says nothing; what came before that says something."""
    cause = error.__cause__
    if isinstance(cause, asyncio.IncompleteReadError):
        if cause.expected in _TLS_ALERT:
            return ConnectionProblem(f"{server} expects TLS: use kafkas://")
        if not logged_in:
            hangs_up = "hangs up on a client without a log-in: it expects SASL, give user:password@"
            return ConnectionProblem(f"{server} {hangs_up}")
    reason = str(error) or f"no answer within {_TIMEOUT:g} s"
    return ConnectionProblem(f"{server} does not answer as Kafka does: {reason}", reached=False)


async def _talk(server: str, options: Mapping[str, Any]) -> None:
    """As a client begins: connect, log in, ask for metadata."""
    host, _, port = server.rpartition(":")
    bounded = {**options, "request_timeout_ms": round(_TIMEOUT * 1000)}
    async with asyncio.timeout(_TIMEOUT):
        connection = await create_conn(host.strip("[]"), int(port), **bounded)
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()


async def _is_plain(server: str) -> bool:
    with suppress(OSError, kafka_errors.KafkaError, TimeoutError):
        await _talk(server, {"security_protocol": "PLAINTEXT"})
        return True
    return False
