"""Subscribers on Redis itself, thousands in a process: one plain connection each.

redis-py makes the connection (URL, log-in, TLS); from then on its bytes are read here, because what its
PubSub costs a message would be measured as latency.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.recording import Ending

__all__ = ["Listening", "Presence", "RedisSubscriber", "all_channels", "all_ready", "allow_connections"]

_BACKOFF = (0.02, 1.0)  # s: of the first retry, and at most
_CONNECT_TIMEOUT = 10.0
_SPARE_FILES = 256


def all_channels(prefix: str) -> str:
    """The pattern of all channels of an estate; no prefix holds what a pattern is made of."""
    return f"{prefix}events:*"


def allow_connections(count: int) -> None:
    """Raise this process's limit of open files for so many connections, where that is allowed.

    Raises ConfigError saying what to set.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise ConfigError(
            f"{count:,} connections need {wanted:,} open files, and this process may have {hard:,}: "
            f"`ulimit -Hn {wanted}` (as root), or use more processes"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Listening(Protocol):
    """A subscriber of either kind; see :class:`RedisSubscriber`."""

    number: int
    sources: Sequence[int]
    ready: asyncio.Event
    joined: int
    lost: int
    trouble: str

    def over(self, ending: Ending, now: int) -> None:
        """Tell that the subscription ended. Nothing if it has, or was never confirmed."""


Presence = Callable[[Listening, int, int, Ending], None]


class RedisSubscriber(asyncio.Protocol):
    """One connection that subscribes and listens, for ever, also after it is lost.

    ``heard(subscriber, message, now)`` gets every notification; ``now`` is when its bytes were read (ns,
    monotonic). ``slow``: s that it stops reading after every read. ``stay``: s after which it leaves and
    comes again. ``ready`` is set while the subscription is confirmed; ``lost`` counts connections that ended
    without being asked to; ``trouble`` is why it could not connect, the last time.
    ``listening(subscriber, begin, end, ending)`` is told each subscription at its confirmation (``end`` 0),
    and when it ends (ns, monotonic). ``sources``: the ranks of those that it is for, -1 for all.
    """

    def __init__(
        self,
        url: str,
        targets: Sequence[str],
        heard: Callable[[int, bytes, int], None],
        *,
        number: int = 0,
        pattern: bool = False,
        slow: float = 0.0,
        stay: float | None = None,
        listening: Presence | None = None,
        sources: Sequence[int] = (-1,),
    ) -> None:
        self._url = url
        self._verb = "PSUBSCRIBE" if pattern else "SUBSCRIBE"
        self._kind = b"pmessage" if pattern else b"message"
        self._targets = list(targets)
        self._heard = heard
        self._listening = listening
        self.number = number
        self.sources = sources
        self.since = 0
        """When the subscription was confirmed; 0 while there is none."""
        self._slow = slow
        self._stay = stay
        self._transport: asyncio.Transport | None = None
        self._writer: Any = None
        self._reader = hiredis.Reader()
        self._ended = asyncio.Event()
        self._confirmed = 0
        self.ready = asyncio.Event()
        self.lost = 0
        self.joined = 0
        self.trouble = ""

    async def run(self) -> None:
        """Until cancelled."""
        backoff = _BACKOFF[0]
        while True:
            ending = Ending.LOST
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    await self._connect()
                    await self.ready.wait()
                backoff = _BACKOFF[0]
                try:
                    # Never asyncio.wait_for: it swallows a cancellation that comes as the wait is over.
                    async with asyncio.timeout(self._stay):
                        await self._ended.wait()
                except TimeoutError:
                    ending = Ending.LEFT
            except (RedisError, OSError, TimeoutError) as error:
                self.trouble = str(error) or f"no answer within {_CONNECT_TIMEOUT:g} s"
            except asyncio.CancelledError:
                ending = Ending.CLOSED
                raise
            finally:
                self._leave(ending)
            # spread, so that thousands do not return in one moment
            await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311
            backoff = min(backoff * 2, _BACKOFF[1])

    async def _connect(self) -> None:
        # Without a socket_timeout, or redis-py puts every command of its handshake into asyncio.wait_for.
        pool: Any = ConnectionPool.from_url(
            self._url, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0)
        )
        connection = pool.make_connection()
        await connection.connect()
        # Taken over: either of them would close the transport when it is collected.
        self._writer, connection._writer = connection._writer, None  # noqa: SLF001
        transport = self._writer.transport
        self._reader, self._confirmed = hiredis.Reader(), 0
        self._ended.clear()
        self._transport = transport
        transport.set_protocol(self)
        words = [self._verb, *self._targets]
        packed = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        transport.write(b"*%d\r\n%s" % (len(words), packed))

    def _leave(self, ending: Ending) -> None:
        self.over(ending, time.monotonic_ns())
        self.ready.clear()
        if self._transport is not None:
            self._transport.abort()
            self._transport = self._writer = None

    def over(self, ending: Ending, now: int) -> None:
        """As :class:`Listening`."""
        since, self.since = self.since, 0
        if since and self._listening is not None:
            self._listening(self, since, now, ending)

    def data_received(self, data: bytes) -> None:
        """Bytes from Redis."""
        now = time.monotonic_ns()
        reader, heard, number, kind = self._reader, self._heard, self.number, self._kind
        reader.feed(data)
        while message := reader.gets():
            if isinstance(message, Exception):
                self._ended.set()
            elif message[0] == kind:
                heard(number, message[-1], now)
            elif message[0].endswith(b"subscribe"):
                self._confirmed += 1
                if self._confirmed == len(self._targets):
                    self.joined += 1
                    self.since = now
                    if self._listening is not None:
                        self._listening(self, now, 0, Ending.OPEN)
                    self.ready.set()
        if self._slow and self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._slow, self._resume, self._transport)

    @staticmethod
    def _resume(transport: asyncio.Transport) -> None:
        with suppress(RuntimeError):
            transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The connection ended: :meth:`run` makes a new one."""
        if self.ready.is_set():
            self.lost += 1
        self.over(Ending.LOST, time.monotonic_ns())
        self._ended.set()


async def all_ready(
    subscribers: Sequence[Listening], timeout: float, *, where: str = "Redis", option: str = "--redis"
) -> None:
    """Wait until all have their subscription. Raises StreamUnavailable."""
    try:
        async with asyncio.timeout(timeout):
            for subscriber in subscribers:
                await subscriber.ready.wait()
    except TimeoutError as error:
        missing = [subscriber for subscriber in subscribers if not subscriber.ready.is_set()]
        trouble = next((one.trouble for one in missing if one.trouble), "")
        raise StreamUnavailable(
            f"{len(missing)} of {len(subscribers)} subscribers could not subscribe on {where} within "
            f"{timeout:g} s{': ' * bool(trouble)}{trouble}; check {option}"
        ) from error
