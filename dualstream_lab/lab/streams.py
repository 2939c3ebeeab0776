"""A look at both streams: what comes out of them."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from dualstream_lab.errors import ConfigError, EventError, StreamUnavailable
from dualstream_lab.event import channel_of, shard_channel, source_invalid_reason
from dualstream_lab.replay import Selection, Start, replay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from dualstream_lab.config import Settings

__all__ = ["notifications", "source_of", "stored_events"]

_GONE = 30.0
_ANSWER = 5.0


def source_of(text: str) -> tuple[str, str]:
    """``type:id``. Raises ConfigError."""
    source_type, colon, source_id = text.partition(":")
    reason = source_invalid_reason(source_type, source_id) if colon else "there is no ':'"
    if reason:
        raise ConfigError(f"source {text!r}: {reason}; allowed: type:id, for example repo:owner/name")
    return source_type, source_id


async def notifications(
    settings: Settings, source: str, *, pattern: bool
) -> AsyncIterator[tuple[str, bytes]]:
    """(channel, message) of a source, or of every source that matches the glob ``type:id``.

    The first item is an empty message: from then on everything is heard. Another empty message later
    says that the connection was lost and made anew: what was said between is missed. Raises
    StreamUnavailable when Redis is away for 30 s, ConfigError when it refuses the log-in.
    """
    if settings.redis_url is None:
        raise ConfigError("redis_url (DUALSTREAM_REDIS_URL) is not set; allowed: redis://host:port")
    channel, chosen = _channel(settings, source, pattern=pattern)
    loop = asyncio.get_running_loop()
    heard_at = loop.time()
    while True:
        # Bounded here: redis-py's own timeout is asyncio.wait_for, which can swallow a Ctrl-C.
        client = Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=None)
        try:
            async with client, client.pubsub() as pubsub:
                async with asyncio.timeout(_ANSWER):
                    await (pubsub.psubscribe(channel) if pattern else pubsub.subscribe(channel))
                while True:
                    message = await pubsub.get_message(timeout=1)
                    heard_at = loop.time()
                    if message is None:
                        continue
                    if message["type"].endswith("message"):
                        if chosen is None or chosen in message["data"]:
                            yield message["channel"].decode(), message["data"]
                    else:
                        yield channel, b""
        except AuthenticationError as error:
            raise ConfigError(f"redis_url: Redis refused the log-in: {error}") from error
        except (RedisError, OSError) as error:
            if loop.time() - heard_at > _GONE:
                reason = str(error) or "no answer"
                raise StreamUnavailable(f"Redis could not be reached for {_GONE:g} s: {reason}") from error
            await asyncio.sleep(0.2)


def _channel(settings: Settings, source: str, *, pattern: bool) -> tuple[str, bytes | None]:
    """The channel to listen on, and what a message must contain where a channel has many sources."""
    if pattern:
        return f"events:{source}", None
    source_type, source_id = source_of(source)
    if settings.channel_policy == "shard":
        return shard_channel(source_type, source_id, settings.channel_shards), source_id.encode()
    return channel_of(source_type, source_id), None


async def stored_events(
    settings: Settings, source: str, start: Start, *, pattern: bool, follow: bool
) -> AsyncGenerator[bytes, None]:
    """The whole events of a source, or of every source that matches the glob, as they are in the log."""
    source_id = None if pattern else source_of(source)[1]
    wanted = Selection(pattern=source) if pattern else Selection(source=source)
    async with aclosing(replay(settings, start, source_id=source_id, follow=follow)) as records:
        async for record in records:
            try:
                if wanted.event_of(record) is not None:
                    yield record.value
            except EventError as error:
                print(f"partition {record.partition} offset {record.offset}: {error}", file=sys.stderr)
