"""One connection to Redis that subscribes, and knows which of its commands an answer is for.

redis-py makes the connection (URL, log-in, TLS); then its bytes are read here, because its PubSub confirms
nothing to the caller, cannot tell a quiet Redis from a dead one, and ends with the first refusal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Connection"]

_QUIET: Final = 2.0  # s of silence after which Redis is asked for a sign
_SIGN: Final = 2.0  # s that it has to give one
_CONFIRMATIONS: Final = frozenset({b"subscribe", b"psubscribe"})
_ENDINGS: Final = frozenset({b"unsubscribe", b"punsubscribe"})


class Named(Protocol):
    """What is subscribed to."""

    name: bytes


N = TypeVar("N", bound=Named)


class _Sent(Generic[N]):
    """A command that is not answered yet, or not for all of its channels."""

    __slots__ = ("answered", "channels", "verb")

    def __init__(self, verb: bytes, channels: Sequence[N]) -> None:
        self.verb = verb
        self.channels = channels
        self.answered = 0


class Connection(asyncio.Protocol, Generic[N]):
    """Until it ends or gives no sign of life.

    ``heard(channel, message)``; ``confirmed(channel)``, one at a time; ``refused(channels, reason)``: all of
    one command. Redis answers commands in their order, and messages come between the answers.
    """

    def __init__(
        self,
        made: Any,
        *,
        heard: Callable[[bytes, bytes], None],
        confirmed: Callable[[N], None],
        refused: Callable[[Sequence[N], str], None],
    ) -> None:
        self._made = made  # it closes the transport when it is collected
        self._transport: asyncio.Transport = made._writer.transport  # noqa: SLF001
        self._reader = hiredis.Reader()
        self._heard = heard
        self._confirmed = confirmed
        self._refused = refused
        self._sent: deque[_Sent[N]] = deque()
        self._signs = 0
        self._reason = asyncio.get_running_loop().create_future()
        self._transport.set_protocol(self)

    def send(self, verb: bytes, channels: Sequence[N] = ()) -> None:
        """Nothing where it has ended and nobody has noticed yet: whoever comes next says it all again."""
        if self._transport.is_closing():
            return
        self._sent.append(_Sent(verb, channels))
        parts = [verb, *(channel.name for channel in channels)]
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._transport.write(b"*%d\r\n%b" % (len(parts), packed))

    async def close(self) -> None:
        """At once, also where this is cancelled."""
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
            self._heard(message[1], message[2])
        elif kind == b"pmessage":
            self._heard(message[2], message[3])
        elif kind in _CONFIRMATIONS:
            channel = self._answered()
            if channel is not None and channel.name == message[1]:
                self._confirmed(channel)
            else:
                self._end("an answer to what was not asked")
        elif kind in _ENDINGS or kind == b"pong":
            self._answered()

    def _answered(self) -> N | None:
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
        """The connection ended."""
        self._end(str(exc) if exc else "the connection was closed")

    def _end(self, reason: str) -> None:
        if not self._reason.done():
            self._reason.set_result(reason)
        with suppress(RuntimeError):
            self._transport.abort()
