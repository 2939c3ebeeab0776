"""A look at the live stream: what comes out of it."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, DualStreamError, EventError, StreamUnavailable
from dualstream_lab.event import channel_of, decode_notification, shard_channel, source_invalid_reason
from dualstream_lab.kafka_log import log_identity
from dualstream_lab.record import one_line

_GONE = 30.0
_ANSWER = 5.0


def source_of(text: str) -> tuple[str, str]:
    """The type and the id of a source that is written ``type:id``. Raises ConfigError."""
    source_type, colon, source_id = text.partition(":")
    reason = source_invalid_reason(source_type, source_id) if colon else "there is no ':'"
    if reason:
        raise ConfigError(f"source {text!r}: {reason}; allowed: type:id, for example repo:owner/name")
    return source_type, source_id


class OwnLog:
    """Tells the notifications of the topic's own log from those of other estates that share the Redis.

    Kafka is asked which log it is, and again, at most every ``refresh_interval``, when another is named: the
    topic may have been made anew. While it cannot be asked all are taken, and ``say`` is told so once.
    ``left_out``: how many were of others.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._epoch: str | None = None
        self._ask_at = 0.0
        self._said: set[str] = set()
        self.left_out = 0
        if settings.kafka_url is None:
            self._say_once("no Kafka is given: notifications of other logs on this Redis are shown, too")

    async def has(self, log: str | None) -> bool:
        """Whether a notification that names this log, or none, is to be shown."""
        if log is None or log == self._epoch:
            return True
        now = asyncio.get_running_loop().time()
        if self._settings.kafka_url is not None and now >= self._ask_at:
            await self._ask()
            self._ask_at = asyncio.get_running_loop().time() + self._settings.refresh_interval
        if self._epoch in {None, log}:
            return True
        self.left_out += 1
        self._say_once(
            f"notifications of another log ({log}) come here, too, and are left out: give each estate that "
            "shares this Redis its own DUALSTREAM_CHANNEL_PREFIX"
        )
        return False

    async def _ask(self) -> None:
        try:
            self._epoch = (await log_identity(self._settings)).epoch
        except DualStreamError as error:
            if self._epoch is None:
                self._say_once(f"notifications of other logs are shown, too, for Kafka does not say: {error}")

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(sentence)


async def notifications(
    settings: Settings, source: str, own: OwnLog, *, pattern: bool
) -> AsyncIterator[tuple[str, bytes]]:
    """The notifications of a source, or of every source that matches the glob, for ever: each as its channel
    and its message on one line.

    Those that are not of ``own`` log are left out, and so is what is no notification. The first item is an
    empty message: from then on everything is received. Another empty message later says that the connection
    was lost and made anew: what was said between is missed. Raises StreamUnavailable when Redis is away for
    30 s, ConfigError when it refuses the log-in or the channel.
    """
    if settings.redis_url is None:
        raise ConfigError("redis_url (DUALSTREAM_REDIS_URL) is not set; allowed: redis://host:port")
    name = _channel(settings, source, pattern=pattern)
    loop = asyncio.get_running_loop()
    answered = loop.time()
    while True:
        # Bounded here: redis-py's own timeout is asyncio.wait_for, which can swallow a Ctrl-C.
        client = Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=None)
        try:
            async with client, client.pubsub() as pubsub:
                async with asyncio.timeout(_ANSWER):
                    await (pubsub.psubscribe(name) if pattern else pubsub.subscribe(name))
                while True:
                    message = await pubsub.get_message(timeout=1)
                    answered = loop.time()
                    if message is not None:
                        item = await _item(message, settings, source, own, pattern=pattern)
                        if item is not None:
                            yield item
        except AuthenticationError as error:
            raise ConfigError(f"redis_url: Redis refused the log-in: {error}") from error
        except NoPermissionError as error:
            raise ConfigError(f"redis_url: this user may not listen on {name}: {error}") from error
        except (RedisError, OSError) as error:
            if loop.time() - answered > _GONE:
                reason = str(error) or "no answer"
                raise StreamUnavailable(f"Redis could not be reached for {_GONE:g} s: {reason}") from error
            await asyncio.sleep(0.2)


def _channel(settings: Settings, source: str, *, pattern: bool) -> str:
    """The channel to listen on, or the pattern of several."""
    shards, prefix = settings.channel_policy == "shard", settings.channel_prefix
    if pattern:
        return f"{prefix}events:{'*' if shards else source}"
    source_type, source_id = source_of(source)
    if shards:
        return shard_channel(source_type, source_id, settings.channel_shards, prefix)
    return channel_of(source_type, source_id, prefix)


async def _item(
    message: dict[str, Any], settings: Settings, source: str, own: OwnLog, *, pattern: bool
) -> tuple[str, bytes] | None:
    """The channel and the line of a message of Redis; None for one that is not to be shown."""
    channel = message["channel"].decode(errors="replace")
    if not message["type"].endswith("message"):
        return channel, b""
    try:
        notification = decode_notification(message["data"])
    except EventError:
        return None  # anybody may publish anything, and gateways are spoken to, too
    if settings.channel_policy == "shard":  # such a channel has many sources
        source_type = channel.removeprefix(f"{settings.channel_prefix}events:").partition(":")[0]
        name = f"{source_type}:{notification.source_id}"
        if not (fnmatch.fnmatchcase(name, source) if pattern else name == source):
            return None
    return (channel, one_line(message["data"])) if await own.has(notification.log) else None
