"""Where to run: one frozen ``Settings``, the only reader of the environment (``DUALSTREAM_*``)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dualstream_lab.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_KAFKA_OPTIONS = {"sasl_mechanism", "ssl_cafile", "ssl_certfile", "ssl_keyfile"}
_SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


def _split_url(url: str, example: str) -> SplitResult:
    """The URL's parts. Raises ConfigError, whose message repeats nothing of it: it may hold a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"is not a URL; allowed: {example}") from None  # it quotes the password
    if parts.netloc and ("@" in parts.path + parts.query or parts.fragment):
        raise ConfigError(
            "has an @ or # behind the server; in a user or password write %2F for /, %3F for ?, %23 for #, "
            f"%40 for @; allowed: {example}"
        )
    return parts


def _quoted(text: str, url: str) -> str:
    """A piece of a URL, where that cannot be a piece of its user or password."""
    return "" if "@" in url else f" (is {text!r})"


_KAFKA_EXAMPLE = "host:port[,host:port…] or kafka://[user:password@]host:port"


def _split_kafka_url(url: str) -> tuple[bool, str | None, str | None, list[str], dict[str, str]]:
    """(tls, user, password, bootstrap servers, options). Raises ConfigError."""
    parts = _split_url(url if "://" in url else f"kafka://{url}", _KAFKA_EXAMPLE)
    if parts.scheme not in {"kafka", "kafkas"}:
        raise ConfigError(f"the scheme must be kafka:// or kafkas:// (TLS){_quoted(parts.scheme, url)}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    servers = [server.strip() for server in hosts.split(",")]
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port[:6]) < 65_536:
            raise ConfigError(f"a server must be host:port{_quoted(server, url)}; allowed: {_KAFKA_EXAMPLE}")
    if parts.path.strip("/"):
        raise ConfigError("a path is not allowed; the topic is the setting DUALSTREAM_TOPIC")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(options) - _KAFKA_OPTIONS:
        known = ", ".join(sorted(_KAFKA_OPTIONS))
        raise ConfigError(f"an option is unknown{_quoted(min(unknown), url)}; known: {known}")
    if options.get("sasl_mechanism", "PLAIN") not in _SASL_MECHANISMS:
        raise ConfigError(f"sasl_mechanism must be one of {', '.join(_SASL_MECHANISMS)}")
    user, _, password = credentials.partition(":")
    if "sasl_mechanism" in options and not user:
        raise ConfigError("sasl_mechanism needs user:password@ before the host")
    return parts.scheme == "kafkas", unquote(user) or None, unquote(password) or None, servers, options


def _kafka_url_checked(url: str) -> str:
    _split_kafka_url(url)
    return url


def kafka_client_options(url: str) -> dict[str, Any]:
    """The aiokafka client arguments for a Kafka URL: servers, security protocol, SASL, TLS context.

    Raises ConfigError for a URL, or a certificate file, that cannot be used.
    """
    tls, user, password, servers, options = _split_kafka_url(url)
    protocol = ("SASL_" if user else "") + ("SSL" if tls else "PLAINTEXT")
    arguments: dict[str, Any] = {"bootstrap_servers": servers, "security_protocol": protocol}
    if user:
        arguments |= {
            "sasl_mechanism": options.get("sasl_mechanism", "PLAIN"),
            "sasl_plain_username": user,
            "sasl_plain_password": password or "",
        }
    if tls:
        try:
            context = ssl.create_default_context(cafile=options.get("ssl_cafile"))
            if certificate := options.get("ssl_certfile"):
                context.load_cert_chain(certificate, options.get("ssl_keyfile"))
        except OSError as error:
            raise ConfigError(f"kafka_url: the TLS files cannot be used: {error}") from error
        arguments["ssl_context"] = context
    return arguments


_REDIS_EXAMPLE = "redis://host:port, rediss://host:port or unix:///path"


def redis_url_checked(url: str) -> str:
    """The URL, if it names one plain Redis or Valkey server. Raises ConfigError otherwise."""
    parts = _split_url(url, _REDIS_EXAMPLE)
    scheme = parts.scheme.lower()
    if "sentinel" in scheme:
        raise ConfigError("Redis Sentinel is not supported; give the primary itself: redis://host:port")
    if "cluster" in scheme or "," in parts.netloc.rpartition("@")[2]:
        raise ConfigError("Redis Cluster is not supported; give one server: redis://host:port")
    if scheme not in _REDIS_SCHEMES:
        allowed = ", ".join(f"{name}://" for name in _REDIS_SCHEMES)
        raise ConfigError(f"the scheme must be one of {allowed}{_quoted(scheme, url)}")
    try:
        missing = not (parts.path if scheme == "unix" else parts.hostname)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"the port is not a number below 65,536; allowed: {_REDIS_EXAMPLE}") from None
    if missing:
        raise ConfigError(f"names no server; allowed: {_REDIS_EXAMPLE}")
    return url


def _jwks_url_checked(url: str) -> str:
    example = "https://issuer/path (http:// on this machine alone)"
    parts = _split_url(url, example)
    local = parts.netloc.rpartition(":")[0] in _THIS_MACHINE or parts.netloc in _THIS_MACHINE
    if not parts.netloc or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ConfigError(f"must be {example}: who can change the keys can make tokens")
    if "@" in parts.netloc:
        raise ConfigError(f"a user or password is not allowed; allowed: {example}")
    return url


class Settings(BaseSettings):
    """Where to publish and within which bounds.

    Every field can be given as an argument or as ``DUALSTREAM_<FIELD>`` in the environment; arguments
    win. Use :meth:`load`, which raises :class:`ConfigError` naming the setting.

    ``kafka_url``, ``kafka://`` or ``kafkas://`` (TLS), takes ``ssl_certfile`` and ``ssl_keyfile``, too.
    ``redis_url`` names one server: Redis Cluster and Sentinel are refused. ``None`` for either means "not
    said". Times are in seconds, sizes in bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix="DUALSTREAM_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    kafka_url: Annotated[str, AfterValidator(_kafka_url_checked)] | None = None
    """``host:port[,…]`` or ``kafka[s]://user:password@host:port?sasl_mechanism=…&ssl_cafile=…``."""
    redis_url: Annotated[str, AfterValidator(redis_url_checked)] | None = None
    """``redis[s]://user:password@host:port?ssl_ca_certs=…``, ``unix://…``; without it, no notifications."""
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = "events"
    """Kafka topic; it must exist."""

    buffer_events: Annotated[int, Field(ge=1, le=10_000_000)] = 150_000
    """Events that are accepted and not yet settled; beyond, a publish waits for room."""
    buffer_bytes: Annotated[int, Field(ge=1024, le=16 * 2**30)] = 64 * 2**20
    """Of their records."""
    buffer_timeout: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 1.0
    """How long a publish waits for room."""
    delivery_timeout: Seconds = 15.0
    """How long a publish waits for Kafka's acknowledgement, then its outcome is unknown or rejected."""
    request_timeout: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    """For one answer of Kafka."""
    start_timeout: Seconds = 10.0
    """For the first connection to Kafka."""
    close_timeout: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 15.0
    """For what is in flight when the publisher is closed."""
    batch_bytes: Annotated[int, Field(ge=1024, le=16 * 2**20)] = 256 * 1024
    """Of one Kafka batch, and never more than the topic's ``max.message.bytes``."""
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "none"
    """Of the batches that are written; all codecs are read, whoever wrote them."""
    refresh_interval: Annotated[float, Field(ge=0.1, le=300)] = 5.0
    """Between looks at the topic: whether it has more partitions, was made anew, or has other limits."""

    redis_timeout: Annotated[float, Field(ge=0.001, le=60)] = 0.2
    """For one exchange with Redis."""
    notify_queue: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Notifications that may wait for Redis; beyond, the oldest are dropped and counted."""
    notify_details: bool = True
    """Position, log, publisher and time in a notification; without them it says that something happened."""
    channel_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{0,64}$")] = ""
    """Before every channel's name, for estates that share a Redis; channels ignore its database number."""
    channel_policy: Literal["source", "shard"] = "source"
    """One channel a source, or ``events:{source_type}:_shard{n}`` for a share of them."""
    channel_shards: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Of the policy ``shard``."""

    @classmethod
    def load(cls, **values: object) -> Self:
        """Build from arguments and the environment. ``None`` counts as "not given".

        Raises ConfigError for every bad value at once, each with its name and what is allowed.
        """
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            known = sorted(cls.model_fields)
            problems = "; ".join(_problem(detail, given, known) for detail in error.errors())
            raise ConfigError(problems) from error


class ServeSettings(Settings):
    """What the delivery side needs beyond :class:`Settings`; the same environment, the same :meth:`load`.

    Times are in seconds, sizes in bytes.
    """

    store: Path = Path("dualstream.db")
    """SQLite file of the recent-events store."""
    retention_age: Annotated[float, Field(gt=0, le=10 * 365 * 86_400)] = 86_400.0
    """How old an event of the store may become."""
    retention_events: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1_000_000
    """How many events the store keeps."""
    retention_bytes: Annotated[int, Field(ge=2**20, le=2**50)] = 8 * 2**30
    """Of the store's file, beside which up to 64 MiB may wait to be written into it."""
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")] = "dualstream-processor"
    """Consumer group of the processors."""
    dead_letter_topic: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = None
    """Left out: the topic's name and ``.dead``."""

    listen: Annotated[str, Field(pattern=r"^([^\s:/]+|\[[0-9a-fA-F:]+\]):\d{1,5}$")] = "127.0.0.1:8080"
    """``host:port``; elsewhere than on loopback only with tokens."""
    upstream: Literal["source", "aggregate", "pattern"] = "source"
    """Redis subscriptions of a gateway: one a source, one a shard channel, or one pattern for all."""
    subscribe_timeout: Seconds = 1.0
    """For Redis to confirm a subscription; then a client is served from the store, and told so."""
    store_timeout: Seconds = 2.0
    """For the store to reach what Kafka had when a client came."""
    catch_up_events: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """The most that one client may be behind and still be caught up."""
    check_interval: Seconds = 10.0
    """Between comparisons of what a source's clients got with the store."""
    ready_lag: Seconds = 10.0
    """How long the store may be behind Kafka's end before ``/readyz`` says so."""
    linger: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """How long a source stays subscribed after its last client left."""
    tick: Annotated[float, Field(ge=0, le=0.1)] = 0.005
    """Longest time that messages wait to be written together."""

    jwt_secret: SecretStr | None = None
    """Shared secret (HS256, 32 bytes or more) of the bearer tokens; claims: ``exp``, ``read``, ``write``."""
    jwt_public_key: Path | None = None
    """PEM file of the key (RS256, ES256, EdDSA) of the bearer tokens."""
    jwks_url: Annotated[str, AfterValidator(_jwks_url_checked)] | None = None
    """Where their issuer publishes its keys, as a JSON Web Key Set."""
    jwt_audience: str | None = None
    """What their ``aud`` must name; left out: anything."""
    jwt_issuer: str | None = None
    """What their ``iss`` must be; left out: anything."""
    allowed_origins: str = ""
    """Origins, besides its own, whose pages may connect; separated by commas, or ``*``."""
    github_secret: SecretStr | None = None
    """Of the webhooks' ``X-Hub-Signature-256``."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Clients at once."""
    max_subscriptions: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Sources of one client."""
    subscribe_rate: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Subscriptions/s of one token (without tokens: of one address); 0: any number."""
    max_message_bytes: Annotated[int, Field(ge=64, le=64 * 2**20)] = 64 * 1024
    """Of one message of a WebSocket client."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1024 * 2**20)] = 32 * 2**20
    """Of one request to ``/ingest``."""
    max_webhook_bytes: Annotated[int, Field(ge=1024, le=64 * 2**20)] = 2**20
    """Of one request to ``/ingest/github``; eight of these are held before their signatures are verified."""
    min_body_rate: Annotated[float, Field(ge=0, le=2**30)] = 1024.0
    """Bytes/s at which a body must come, but for pauses of 5 s in all; 0: any."""
    ingest_request_rate: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Requests/s to ``/ingest`` of one token (without tokens: of one address); 0: any number."""
    ingest_event_rate: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Events/s to ``/ingest`` of one token (without tokens: of one address); 0: any number."""
    max_page_bytes: Annotated[int, Field(ge=1024, le=256 * 2**20)] = 8 * 2**20
    """Of one answer of ``/events``, which has one event in any case; ``more`` says that others follow."""
    client_buffer_bytes: Annotated[int, Field(ge=16_384, le=1024 * 2**20)] = 2**20
    """What may wait for a slow client before it is closed."""
    all_clients_buffer_bytes: Annotated[int, Field(ge=2**20, le=64 * 2**30)] = 96 * 2**20
    """What may wait for all clients together before those are closed that take nothing."""
    auth_timeout: Seconds = 5.0
    """For a client to show its token."""

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic."""
        return self.dead_letter_topic or f"{self.topic}.dead"


def _problem(detail: ErrorDetails, given: Mapping[str, object], known: list[str]) -> str:
    name = str(detail["loc"][0])
    reason = detail["msg"].removeprefix("Value error, ")
    if name not in known:
        return f"unknown setting {name}; known: {', '.join(known)}"
    setting = name if name in given else f"DUALSTREAM_{name.upper()}"
    # A URL may hold a password: never repeat it, nor a secret.
    secret = name.endswith(("_url", "_secret"))
    value = "" if secret else f" (is {detail['input']!r})"
    return f"{setting}: {reason}{value}"
