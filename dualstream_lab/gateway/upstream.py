"""A gateway's one connection to Redis: it subscribes, notices when it is not heard any more, and comes back.

redis-py makes the connection (URL, log-in, TLS); then its bytes are read here, because its PubSub confirms
nothing to the caller and cannot tell a quiet Redis from a dead one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dualstream_lab.event import RESYNC_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Upstream"]

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT: Final = 2.0
_BACKOFF: Final = (0.05, 2.0)  # s: of the first retry, and at most; drawn in full, so that gateways spread
_QUIET: Final = 2.0  # s of silence after which Redis is asked for a sign
_SIGN: Final = 2.0  # s that it has to give one
_BATCH: Final = 500  # channels in one SUBSCRIBE


class Upstream:
    """Subscriptions that outlive their connection.

    ``heard(channel, message)`` gets every message. ``confirmed(channels)`` is told which channels are in
    effect from now on: also after the connection was made anew, and then what was said between is lost.
    ``lost(reason)`` is told when nothing is heard any more. All three are called in the loop and must not
    block. ``pattern``: one subscription that covers every channel. :meth:`run` is the task that keeps it.
    """

    def __init__(
        self,
        url: str,
        *,
        heard: Callable[[bytes, bytes], None],
        confirmed: Callable[[list[bytes]], None],
        lost: Callable[[str], None],
        pattern: bytes | None = None,
    ) -> None:
        self._url = url
        self._heard = heard
        self._told_confirmed = confirmed
        self._told_lost = lost
        self._pattern = pattern
        self._wanted: dict[bytes, asyncio.Event] = {}
        self._resync = RESYNC_CHANNEL.encode()
        self._connection: _Connection | None = None
        self.connects = 0
        if pattern is None:
            self._wanted[self._resync] = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether a connection is there."""
        return self._connection is not None

    @property
    def channels(self) -> int:
        """Channels that are wanted."""
        return len(self._wanted)

    def confirms(self, channel: bytes) -> bool:
        """Whether the channel's subscription is in effect."""
        effective = self._wanted.get(channel)
        return effective is not None and effective.is_set()

    async def subscribe(self, channel: bytes) -> None:
        """Want a channel; returns when Redis confirmed it, whenever that is: bound it.

        A caller that is cancelled leaves it wanted.
        """
        effective = self._wanted.get(channel)
        if effective is None:
            effective = self._wanted[channel] = asyncio.Event()
            if self._connection is not None:
                if self._pattern is None:
                    self._connection.send(b"SUBSCRIBE", [channel])
                elif self._connection.covered:
                    effective.set()
        await effective.wait()

    def unsubscribe(self, channel: bytes) -> None:
        """Want it no more. Nothing if it was not wanted."""
        if self._wanted.pop(channel, None) and self._connection is not None and self._pattern is None:
            self._connection.send(b"UNSUBSCRIBE", [channel])

    async def run(self) -> None:
        """Until cancelled."""
        backoff = _BACKOFF[0]
        while True:
            try:
                connection = await self._connect()
                backoff = _BACKOFF[0]
                reason = await connection.ended()
            except (RedisError, OSError, TimeoutError) as error:
                reason = str(error) or "no answer"
            finally:
                await self._disconnect()
            log.warning("Redis: %s. Clients are served from the store meanwhile", reason)
            self._told_lost(reason)
            await asyncio.sleep(random.uniform(backoff / 4, backoff))  # noqa: S311
            backoff = min(backoff * 2, _BACKOFF[1])

    async def _connect(self) -> _Connection:
        # Bounded below: redis-py's own time-outs can swallow a cancellation on Python 3.11.
        pool: Any = ConnectionPool.from_url(
            self._url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None
        )
        made = pool.make_connection()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await made.connect()
        except BaseException:
            with suppress(Exception):
                await made.disconnect(nowait=True)
            raise
        connection = _Connection(made, self._heard, self._in_effect)
        self.connects += 1
        self._connection = connection
        if self._pattern is not None:
            connection.send(b"PSUBSCRIBE", [self._pattern])
        channels = list(self._wanted) if self._pattern is None else []
        for first in range(0, len(channels), _BATCH):
            connection.send(b"SUBSCRIBE", channels[first : first + _BATCH])
        return connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        for effective in self._wanted.values():
            effective.clear()

    def _in_effect(self, channel: bytes) -> None:
        """Redis confirmed a channel, or the pattern that covers all of them."""
        channels = list(self._wanted) if channel == self._pattern else [channel]
        channels = [name for name in channels if name in self._wanted]
        for name in channels:
            self._wanted[name].set()
        if channel == self._pattern and self._connection is not None:
            self._connection.covered = True
        self._told_confirmed(channels)


class _Connection(asyncio.Protocol):
    """One connection, until it ends or gives no sign of life."""

    def __init__(
        self, made: Any, heard: Callable[[bytes, bytes], None], in_effect: Callable[[bytes], None]
    ) -> None:
        self._made = made  # it closes the transport when it is collected
        self._transport: asyncio.Transport = made._writer.transport  # noqa: SLF001
        self._reader = hiredis.Reader()
        self._heard = heard
        self._in_effect = in_effect
        self._signs = 0
        self._reason = asyncio.get_running_loop().create_future()
        self.covered = False
        self._transport.set_protocol(self)

    def send(self, verb: bytes, words: Iterable[bytes] = ()) -> None:
        """Nothing where it has ended and nobody has noticed yet: whoever comes next says it all again."""
        if self._transport.is_closing():
            return
        parts = [verb, *words]
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._transport.write(b"*%d\r\n%b" % (len(parts), packed))

    async def close(self) -> None:
        self._transport.abort()
        with suppress(Exception):  # it is closed already; redis-py only has to know
            await self._made.disconnect(nowait=True)

    async def ended(self) -> str:
        """Why, once it has."""
        while True:
            signs = self._signs
            if (reason := await self._within(_QUIET)) is not None:
                return reason
            if self._signs != signs:
                continue
            self.send(b"PING")
            if (reason := await self._within(_SIGN)) is not None:
                return reason
            if self._signs == signs:
                return f"no sign of life for {_QUIET + _SIGN:g} s"

    async def _within(self, seconds: float) -> str | None:
        await asyncio.wait([self._reason], timeout=seconds)
        return self._reason.result() if self._reason.done() else None

    def data_received(self, data: bytes) -> None:
        """Bytes from Redis."""
        self._signs += 1
        reader = self._reader
        reader.feed(data)
        try:
            while message := reader.gets():
                if isinstance(message, list):
                    self._take(message)
                elif isinstance(message, Exception):
                    self._end(str(message))
        except hiredis.ProtocolError as error:
            self._end(str(error))

    def _take(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == b"message":
            self._heard(message[1], message[2])
        elif kind == b"pmessage":
            self._heard(message[2], message[3])
        elif kind in {b"subscribe", b"psubscribe"}:
            self._in_effect(message[1])

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._end(str(exc) if exc else "the connection was closed")

    def _end(self, reason: str) -> None:
        if not self._reason.done():
            self._reason.set_result(reason)
        with suppress(RuntimeError):
            self._transport.abort()
