"""What a gateway receives of Redis: which channels, and subscriptions that outlive their connection."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from dualstream_lab.event import Notification, channel_of, resync_channel, shard_channel
from dualstream_lab.gateway.redis_connection import Connection, Subscription, connected_client
from dualstream_lab.kafka_log import Repeats

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT: Final = 2.0
_BACKOFF: Final = (0.05, 2.0)  # s: of the first retry, and at most; drawn in full, so that gateways spread
_REFUSED: Final = (1.0, 60.0)  # s until a channel that Redis refused is asked for again: first, and at most
_WARN_EVERY: Final = 60.0
_BATCH: Final = 500  # channels in one SUBSCRIBE


class Channels:
    """``source``: a channel each. ``aggregate``: the publisher's shard channels. ``pattern``: all by one.

    ``shared``: whether a channel is several sources'.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._prefix = settings.channel_prefix
        self._head = len(f"{self._prefix}events:".encode())
        self._shards = settings.channel_shards if settings.upstream == "aggregate" else None
        self.shared = self._shards is not None
        self.resync = resync_channel(self._prefix).encode()
        self.pattern = f"{self._prefix}events:*".encode() if settings.upstream == "pattern" else None

    def channel(self, source: str) -> bytes:
        """The channel that the source is announced on."""
        source_type, _, source_id = source.partition(":")
        if self._shards is None:
            return channel_of(source_type, source_id, self._prefix).encode()
        return shard_channel(source_type, source_id, self._shards, self._prefix).encode()

    def source(self, channel: bytes, note: Notification) -> str:
        """The source that a message on a channel is about, also where several share the channel."""
        source_type = channel[self._head :].partition(b":")[0].decode("utf-8", "replace")
        return f"{source_type}:{note.source_id}"


class Upstream:
    """Subscriptions that outlive their connection. :meth:`run` is the task that keeps it.

    ``received(channel, message)`` gets every message. ``confirmed(channels)`` is told which are in effect
    from now on: also after the connection was made anew, and what was said between is lost.
    ``refused(channels, reason)`` is told of those that Redis does not allow; they are asked for again, with
    growing pauses. ``lost(reason)``: nothing is received any more. None may block. ``pattern``: covers every
    channel.
    """

    def __init__(
        self,
        url: str,
        *,
        received: Callable[[bytes, bytes], None],
        confirmed: Callable[[list[bytes]], None],
        lost: Callable[[str], None],
        refused: Callable[[list[bytes], str], None] = lambda _channels, _reason: None,
        pattern: bytes | None = None,
        resync: bytes = resync_channel().encode(),
    ) -> None:
        self._url = url
        self._received = received
        self._on_confirmed = confirmed
        self._on_refused = refused
        self._on_lost = lost
        self._pattern = None if pattern is None else Subscription(pattern)
        self._wanted: dict[bytes, Subscription] = {}  # each its own, or all of them the pattern
        self._connection: Connection | None = None
        self._confirmations = 0
        self._repeats = Repeats(_WARN_EVERY)
        self.connects = 0
        if pattern is None:
            self._wanted[resync] = Subscription(resync)

    @property
    def up(self) -> bool:
        """Whether Redis is connected."""
        return self._connection is not None

    @property
    def channels(self) -> int:
        """How many channels are wanted."""
        return len(self._wanted)

    def confirms(self, channel: bytes) -> bool:
        """Whether the channel's subscription is in effect."""
        wanted = self._wanted.get(channel)
        return wanted is not None and wanted.confirmed

    async def subscribe(self, channel: bytes) -> str | None:
        """Want a channel. Returns when Redis confirmed it, whenever that is: bound it; or why it refuses it.

        A caller that is cancelled leaves it wanted.
        """
        wanted = self._wanted.get(channel)
        if wanted is None:
            wanted = self._wanted[channel] = self._pattern or Subscription(channel)
            if wanted is not self._pattern:
                self._ask([wanted])
        await wanted.settled.wait()
        return wanted.refusal

    def unsubscribe(self, channel: bytes) -> None:
        """Want it no more. Nothing if it was not wanted."""
        wanted = self._wanted.pop(channel, None)
        if wanted is None or wanted is self._pattern:
            return
        wanted.cancel()
        if self._connection is not None:
            self._connection.send(b"UNSUBSCRIBE", [wanted])

    async def run(self) -> None:
        """Work until it is cancelled."""
        backoff = _BACKOFF[0]
        while True:
            confirmations = self._confirmations
            try:
                reason = await (await self._connect()).ended()
            except (RedisError, OSError, TimeoutError) as error:
                reason = str(error) or "no answer"
            finally:
                await self._disconnect()
            if self._repeats.due("connection"):
                log.warning("Redis: %s. Clients are served from the store meanwhile", reason)
            self._on_lost(reason)
            if self._confirmations > confirmations:  # a connection alone is no success
                backoff = _BACKOFF[0]
            await asyncio.sleep(random.uniform(backoff / 4, backoff))  # noqa: S311
            backoff = min(backoff * 2, _BACKOFF[1])

    async def _connect(self) -> Connection:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            client = await connected_client(self._url)
        connection = Connection(
            client, received=self._received, confirmed=self._in_effect, refused=self._not_allowed
        )
        self.connects += 1
        self._connection = connection
        if self._pattern is not None:
            self._ask([self._pattern])
            return connection
        for channel in self._wanted.values():
            if channel.refusal is not None:
                self._ask_later(channel)
        channels = [channel for channel in self._wanted.values() if channel.refusal is None]
        for first in range(0, len(channels), _BATCH):
            self._ask(channels[first : first + _BATCH])
        return connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        for channel in [self._pattern] if self._pattern is not None else self._wanted.values():
            channel.lose()
        if connection is not None:
            await connection.close()

    def _ask(self, channels: Sequence[Subscription]) -> None:
        if self._connection is not None:
            verb = b"SUBSCRIBE" if self._pattern is None else b"PSUBSCRIBE"
            self._connection.send(verb, channels)

    def _ask_later(self, channel: Subscription) -> None:
        pause = min(_REFUSED[0] * 2**channel.tries, _REFUSED[1])
        channel.tries = min(channel.tries + 1, 10)
        delay = random.uniform(pause / 2, pause)  # noqa: S311
        channel.cancel()
        channel.retry = asyncio.get_running_loop().call_later(delay, self._ask, [channel])

    def _in_effect(self, channel: Subscription) -> None:
        """Redis confirmed a channel, or the pattern that covers all of them."""
        self._confirmations += 1
        names = self._settle(channel, None)
        if names or channel is self._pattern:
            self._on_confirmed(names)

    def _settle(self, channel: Subscription, refusal: str | None) -> list[bytes]:
        """Note Redis' answer; returns the names of the wanted channels that it is for."""
        channel.settle(refusal)
        if channel is self._pattern:
            return list(self._wanted)
        # Else it was left, and perhaps is wanted anew.
        return [channel.name] if self._wanted.get(channel.name) is channel else []

    def _not_allowed(self, channels: Sequence[Subscription], reason: str) -> None:
        """Redis refused a command. It does not say because of which channel."""
        channels = [c for c in channels if c is self._pattern or self._wanted.get(c.name) is c]
        if len(channels) != 1:
            half = len(channels) // 2
            for part in filter(None, (channels[:half], channels[half:])):
                self._ask(part)
            return
        (channel,) = channels
        self._on_refused(self._settle(channel, reason), reason)
        self._ask_later(channel)
        if self._repeats.due("channel"):
            refused = sum(1 for channel in self._wanted.values() if channel.refusal is not None)
            name = channel.name.decode("utf-8", "replace")
            log.warning("Redis: %s. %d channels are refused, %s last", reason, refused, name)
