"""The independent client of the faults by proxy and by signal: what happens to bytes sent to an address."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Final, Literal, NamedTuple, TypeAlias

from dualstream_lab.errors import FaultInert

Address: TypeAlias = tuple[str, int]
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Refusal: TypeAlias = Literal["mute", "refused", "reset"]
_LONG = 10.0  # s for what works
_PUSHED = 60.0  # s for much, on a road that others use, too
_TRIES = 5  # on a busy machine one may take long
_SIGNAL = 1.0  # s for the guard of a process to pass SIGSTOP on
_SILENCE = 0.5  # s without an answer, of a server on the same machine
_MUTE = f"accepted, and has no answer within {_SILENCE:g} s"


class Dialect(NamedTuple):
    """How to ask servers of one kind: ``question(size)`` makes a question of about so many bytes, at most
    ``longest``, that they answer to anyone.
    """

    question: Callable[[int], bytes]
    longest: int


# ApiVersions
KAFKA: Final = Dialect(lambda size: struct.pack(">ihhih", 10 + size, 18, 0, 1, size) + b"x" * size, 32_000)
# PING: if only that a password is needed; without it no more is read
REDIS: Final = Dialect(lambda size: b"PING " + b"x" * size + b"\r\n", 16_000)
_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: "
HTTP: Final = Dialect(lambda size: _GET + b"x" * size + b"\r\n\r\n", 8_000)


def address_of(servers: str) -> Address:
    """Parse the first address of ``host:port[,…]``."""
    host, _, port = servers.partition(",")[0].rpartition(":")
    return host.strip("[]"), int(port)


class Server(NamedTuple):
    """A server as a stranger sees it: where it is reached, and what it can be asked."""

    address: Address
    dialect: Dialect

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Streams]:
        """Open a connection, which is aborted after the block. Raises OSError and TimeoutError."""
        async with asyncio.timeout(_LONG):
            reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def ask(self, streams: Streams, timeout: float | None = None) -> float:
        """Measure how many s the answer to a question takes. Raises OSError and TimeoutError."""
        reader, writer = streams
        began = time.perf_counter()
        writer.write(self.dialect.question(0))
        async with asyncio.timeout(timeout or _LONG):
            if not await reader.read(65_536):
                raise ConnectionError("closed")
        return time.perf_counter() - began

    async def refuses(self, refusal: Refusal) -> str:
        """See a new connection refused, reset, or without any answer. Raises FaultInert."""
        expected = _MUTE if refusal == "mute" else refusal

        async def differs() -> str:
            try:
                async with self.connected() as streams:
                    try:
                        seconds = await self.ask(streams, _SILENCE)
                        seen = f"accepted, and has its answer in {seconds * 1e3:.1f} ms"
                    except TimeoutError:
                        seen = _MUTE
            except ConnectionRefusedError:
                seen = "refused"
            except (ConnectionResetError, BrokenPipeError):
                seen = "reset"
            except (OSError, TimeoutError) as error:
                seen = f"one that fails: {error!r}"
            return "" if seen == expected else f"a new connection is {seen}"

        await until(differs, _SIGNAL if refusal == "mute" else 0)
        return f"a new connection is {expected}"

    async def answers(self, *, within: float = inf) -> str:
        """See a new connection get its answer ``within`` s, once in a few times. Raises FaultInert."""
        seconds = await at_most(within, self.answer_time, "an answer takes")
        return f"a new connection has its answer in {seconds * 1e3:.1f} ms"

    async def answer_time(self) -> float:
        """Measure how many s a new connection takes to have its answer. Raises FaultInert if it has none."""
        try:
            async with self.connected() as streams:
                return await self.ask(streams)
        except (OSError, TimeoutError) as error:
            raise FaultInert(f"a new connection has no answer: {error!r}") from error

    async def pushed(self, size: int) -> float:
        """Send ``size`` bytes of questions, and then the end of the connection; measure how many s it takes
        until the server ends it, too. Raises FaultInert.
        """
        question, longest = self.dialect
        try:
            async with self.connected() as (reader, writer):
                began = time.perf_counter()
                for left in range(size, 0, -longest):
                    writer.write(question(min(left, longest)))
                writer.write_eof()
                async with asyncio.timeout(_PUSHED):
                    while await reader.read(65_536):
                        pass
                return time.perf_counter() - began
        except (OSError, TimeoutError) as error:
            raise FaultInert(f"{size / 1024:,.0f} KiB do not pass: {error!r}") from error


async def at_most(limit: float, measure: Callable[[], Awaitable[float]], subject: str) -> float:
    """Measure once or a few times, until it takes ``limit`` s at most; return the s. Raises FaultInert."""
    seen = [await measure()]
    while seen[-1] > limit:
        if len(seen) == _TRIES:
            raise FaultInert(f"{subject} {min(seen) * 1e3:.0f} ms at best")
        seen.append(await measure())
    return seen[-1]


async def until(differs: Callable[[], Awaitable[str]], within: float, pause: float = 0.01) -> float:
    """Wait until nothing differs any more; how many s that takes. Raises FaultInert with what still does."""
    began = time.monotonic()
    while difference := await differs():
        if time.monotonic() - began > within:
            raise FaultInert(difference)
        await asyncio.sleep(pause)
    return time.monotonic() - began
