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
from typing import Any, ClassVar, Protocol

import hiredis
from redis.exceptions import RedisError

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.gateway.redis_connection import connected_client, packed
from dualstream_lab.recording import Ending

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
    """Anybody who holds subscriptions, as :class:`Connection` does."""

    number: int
    sources: Sequence[int]
    ready: asyncio.Event
    joined: int
    lost: int
    trouble: str

    async def run(self) -> None:
        """Listen until cancelled."""

    def over(self, ending: Ending, now: int) -> None:
        """Tell that the subscription ended. Nothing if it has, or was never confirmed."""


Presence = Callable[[Listening, int, int, Ending], None]


class Connection(asyncio.Protocol):
    """One connection that subscribes and listens, for ever, also after it is lost.

    ``on_message(subscriber, message, now)`` gets every notification; ``now`` is when its bytes were read (ns,
    monotonic). ``slow``: s that it stops reading after every read. ``stay``: s after which it leaves and
    comes again. ``listening(subscriber, begin, end, ending)`` is told each subscription at its confirmation
    (``end`` 0), and when it ends (ns, monotonic). ``sources``: the ranks of those that it is for, -1 for all.

    ``ready`` is set while the subscription is confirmed; ``joined`` counts confirmations, ``lost`` the
    connections that ended without being asked to; ``trouble`` is why it could not connect, the last time.
    """

    peer: ClassVar[str]

    def __init__(
        self, on_message: Callable[[int, bytes, int], None], *, number: int = 0, slow: float = 0.0,
        stay: float | None = None, listening: Presence | None = None, sources: Sequence[int] = (-1,),
    ) -> None:  # fmt: skip
        self._on_message = on_message
        self.number = number
        self.sources = sources
        self._slow = slow
        self._stay = stay
        self._listening = listening
        self.since = 0  # when the subscription was confirmed; 0 while there is none
        self._transport: asyncio.Transport | None = None
        self._settled = asyncio.Event()  # ready, or over
        self._ended = asyncio.Event()
        self.ready = asyncio.Event()
        self.joined = 0
        self.lost = 0
        self.trouble = ""

    async def run(self) -> None:
        """Work until it is cancelled."""
        backoff = _BACKOFF[0]
        while True:
            ending = Ending.LOST
            self._ended.clear()
            self._settled.clear()
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    await self._connect()
                    await self._settled.wait()
                if self.ready.is_set():
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
        """Make ``_transport``, and ask for the subscription."""
        raise NotImplementedError

    def _confirm(self, now: int) -> None:
        """Note that the subscription is confirmed, and say so."""
        self.joined += 1
        self.since = now
        if self._listening is not None:
            self._listening(self, now, 0, Ending.OPEN)
        self.ready.set()
        self._settled.set()

    def over(self, ending: Ending, now: int) -> None:
        """As :class:`Listening`."""
        since, self.since = self.since, 0
        if since and self._listening is not None:
            self._listening(self, since, now, ending)

    def _leave(self, ending: Ending) -> None:
        self.over(ending, time.monotonic_ns())
        self.ready.clear()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _pause_if_slow(self, transport: asyncio.Transport) -> None:
        """Stop reading for a while, where this subscriber is a slow one; called after every read."""
        if self._slow:
            transport.pause_reading()
            asyncio.get_running_loop().call_later(self._slow, _resume, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection has ended; :meth:`run` makes a new one."""
        if self._transport is not None:  # not asked to
            self.lost += self.ready.is_set()
            self.trouble = self.trouble or str(exc or f"{self.peer} closed the connection")
            self.over(Ending.LOST, time.monotonic_ns())
        self._settled.set()
        self._ended.set()


def _resume(transport: asyncio.Transport) -> None:
    with suppress(RuntimeError):
        transport.resume_reading()


class RedisSubscriber(Connection):
    """A subscriber to the channels ``targets``, or, with ``pattern``, to what these patterns match.

    ``options``: as of :class:`Connection`.
    """

    peer = "Redis"

    def __init__(
        self, url: str, targets: Sequence[str], on_message: Callable[[int, bytes, int], None], *,
        pattern: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(on_message, **options)
        self._url = url
        self._words = ["PSUBSCRIBE" if pattern else "SUBSCRIBE", *targets]
        self._kind = b"pmessage" if pattern else b"message"
        self._writer: Any = None
        self._reader = hiredis.Reader()
        self._confirmed = 0

    async def _connect(self) -> None:
        connection = await connected_client(self._url)
        # Taken over: either of them would close the transport when it is collected.
        self._writer, connection._writer = connection._writer, None  # noqa: SLF001
        self._transport = transport = self._writer.transport
        self._reader, self._confirmed = hiredis.Reader(), 0
        transport.set_protocol(self)
        transport.write(packed(*map(str.encode, self._words)))

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come from Redis."""
        now = time.monotonic_ns()
        reader, on_message, number, kind = self._reader, self._on_message, self.number, self._kind
        reader.feed(data)
        while message := reader.gets():
            if isinstance(message, Exception):
                self.trouble = str(message)
                self._settled.set()
                self._ended.set()
            elif message[0] == kind:
                on_message(number, message[-1], now)
            elif message[0].endswith(b"subscribe"):
                self._confirmed += 1
                if self._confirmed == len(self._words) - 1:
                    self._confirm(now)
        if self._transport is not None:
            self._pause_if_slow(self._transport)


async def all_ready(
    subscribers: Sequence[Listening], timeout: float, *, server: str = "Redis", option: str = "--redis"
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
            f"{len(missing)} of {len(subscribers)} subscribers could not subscribe on {server} within "
            f"{timeout:g} s{': ' * bool(trouble)}{trouble}; check {option}"
        ) from error
