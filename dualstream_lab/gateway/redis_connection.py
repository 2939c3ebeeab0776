"""One connection to Redis that subscribes, and knows which of its commands an answer is for.

redis-py makes the connection (URL, log-in, TLS); then its bytes are read here, because its PubSub confirms
nothing to the caller, cannot tell a quiet Redis from a dead one, and ends with the first refusal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_QUIET: Final = 2.0  # s of silence after which Redis is asked for a sign
_SIGN: Final = 2.0  # s that it has to give one
_CONFIRMATIONS: Final = frozenset({b"subscribe", b"psubscribe"})
_ENDINGS: Final = frozenset({b"unsubscribe", b"punsubscribe"})


async def connected_client(url: str) -> Any:
    """A connection of redis-py's that is logged in, for its transport to be taken over. The caller bounds it.

    Raises RedisError, OSError.
    """
    # redis-py's own time-outs can swallow a cancellation on Python 3.11.
    once: Any = {"retry": Retry(NoBackoff(), 0), "socket_timeout": None}
    pool: Any = ConnectionPool.from_url(url, protocol=2, **once)
    client = pool.make_connection()
    try:
        await client.connect()
    except BaseException:
        with suppress(Exception):
            await client.disconnect(nowait=True)
        raise
    return client


def packed(*words: bytes) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@dataclass(slots=True, eq=False)
class Subscription:
    """A channel or pattern that is wanted. ``settled``: Redis has answered; ``refusal``: what, if not yes.

    ``tries``: refusals in a row; ``retry``: when it is asked for again.
    """

    name: bytes
    confirmed: bool = False
    refusal: str | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    tries: int = 0
    retry: asyncio.TimerHandle | None = None

    def settle(self, refusal: str | None = None) -> None:
        """Redis has confirmed it, or refused it for this reason."""
        self.confirmed = refusal is None
        self.refusal = refusal
        if self.confirmed:
            self.tries = 0
        self.settled.set()

    def cancel(self) -> None:
        """Do not ask Redis for it again."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None

    def lose(self) -> None:
        """Forget what was confirmed: the connection is gone. What was refused will hardly be allowed: nobody
        need wait for that.
        """
        self.cancel()
        self.confirmed = False
        if self.refusal is None:
            self.settled.clear()


@dataclass(slots=True)
class _Sent:
    """A command that is not answered yet, or not for all of its channels."""

    verb: bytes
    channels: Sequence[Subscription]
    answered: int = 0


class Connection(asyncio.Protocol):
    """Until it ends or gives no sign of life.

    ``received(channel, message)``; ``confirmed(channel)``, one at a time; ``refused(channels, reason)``: all
    of one command. Redis answers commands in their order, and messages come between the answers.
    """

    def __init__(
        self,
        client: Any,
        *,
        received: Callable[[bytes, bytes], None],
        confirmed: Callable[[Subscription], None],
        refused: Callable[[Sequence[Subscription], str], None],
    ) -> None:
        self._client = client  # it closes the transport when it is collected
        self._transport: asyncio.Transport = client._writer.transport  # noqa: SLF001
        self._reader = hiredis.Reader()
        self._received = received
        self._confirmed = confirmed
        self._refused = refused
        self._sent: deque[_Sent] = deque()
        self._signs = 0
        self._reason = asyncio.get_running_loop().create_future()
        self._transport.set_protocol(self)

    def send(self, verb: bytes, channels: Sequence[Subscription] = ()) -> None:
        """Nothing where it has ended and nobody has noticed yet: whoever comes next says it all again."""
        if self._transport.is_closing():
            return
        self._sent.append(_Sent(verb, channels))
        self._transport.write(packed(verb, *(channel.name for channel in channels)))

    async def close(self) -> None:
        """Close the connection at once, also where this is cancelled."""
        self._transport.abort()
        with suppress(Exception):  # it is closed already; redis-py only has to know
            await self._client.disconnect(nowait=True)

    async def ended(self) -> str:
        """Wait for the end of the connection, and say why it ended."""
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
        """asyncio: bytes have come from Redis."""
        self._signs += 1
        reader = self._reader
        reader.feed(data)
        try:
            while (message := reader.gets()) is not False:
                if isinstance(message, list):
                    self._take(message)
                elif isinstance(message, Exception):
                    self._take_error(str(message))
                else:
                    self._answered()  # PONG, while nothing is subscribed to
        except hiredis.ProtocolError as error:
            self._end(str(error))

    def _take(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == b"message":
            self._received(message[1], message[2])
        elif kind == b"pmessage":
            self._received(message[2], message[3])
        elif kind in _CONFIRMATIONS:
            channel = self._answered()
            if channel is None or channel.name != message[1]:
                self._end("an answer to what was not asked")
            else:
                self._confirmed(channel)
        elif kind in _ENDINGS or kind == b"pong":
            self._answered()

    def _answered(self) -> Subscription | None:
        """The channel that the next answer is for, where the command that it answers has any."""
        if not self._sent:
            return None
        sent = self._sent[0]
        channel = sent.channels[sent.answered] if sent.channels else None
        sent.answered += 1
        if sent.answered >= len(sent.channels):
            self._sent.popleft()
        return channel

    def _take_error(self, reason: str) -> None:
        """An error answers a command; one that does not is about the connection."""
        if not self._sent:
            self._end(reason)
            return
        sent = self._sent.popleft()
        if sent.verb in {b"SUBSCRIBE", b"PSUBSCRIBE"}:
            self._refused(sent.channels[sent.answered :], reason)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection has ended."""
        self._end(str(exc) if exc else "the connection was closed")

    def _end(self, reason: str) -> None:
        if not self._reason.done():
            self._reason.set_result(reason)
        with suppress(RuntimeError):
            self._transport.abort()
