"""The independent client of the faults by proxy and by signal: what happens to bytes sent to an address."""

from __future__ import annotations

import asyncio
import struct
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from dualstream_lab.errors import FaultInert

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "HTTP",
    "KAFKA",
    "REDIS",
    "Address",
    "Speech",
    "Wire",
    "address_of",
    "answers",
    "is_mute",
    "is_refused",
    "is_reset",
    "pushed",
    "took",
]

Address: TypeAlias = tuple[str, int]
_LONG = 10.0  # s for what works
_PUSHED = 60.0  # s for much, on a road that others use, too
_TRIES = 5  # on a busy machine one may take long
_SIGNAL = 1.0  # s for the guard of a process to pass SIGSTOP on
_SILENCE = 0.5  # s without an answer, of a server on the same machine


def address_of(servers: str) -> Address:
    """The first one of ``host:port[,…]``."""
    host, _, port = servers.partition(",")[0].rpartition(":")
    return host.strip("[]"), int(port)


class _Kafka:
    """ApiVersions, which is answered to anyone."""

    longest = 32_000
    question: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)

    @staticmethod
    def long(size: int) -> bytes:
        """A question of about ``size`` bytes."""
        return struct.pack(">ihhih", 10 + size, 18, 0, 1, size) + b"x" * size


class _Redis:
    """PING, answered to anyone: if only that a password is needed."""

    longest = 16_000  # without the password
    question: Final = b"PING\r\n"

    @staticmethod
    def long(size: int) -> bytes:
        """A question of about ``size`` bytes."""
        return b"PING " + b"x" * max(1, size) + b"\r\n"


class _Http:
    """A page."""

    longest = 8_000
    question: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    @staticmethod
    def long(size: int) -> bytes:
        """A question of about ``size`` bytes."""
        return b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * size + b"\r\n\r\n"


KAFKA, REDIS, HTTP = _Kafka(), _Redis(), _Http()
Speech: TypeAlias = _Kafka | _Redis | _Http


class Wire:
    """A connection. Raises OSError and TimeoutError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, speech: Speech) -> None:
        self._reader = reader
        self._writer = writer
        self._speech = speech

    @classmethod
    @asynccontextmanager
    async def to(cls, address: Address, speech: Speech) -> AsyncIterator[Wire]:
        """A new one."""
        async with asyncio.timeout(_LONG):
            reader, writer = await asyncio.open_connection(*address)
        try:
            yield cls(reader, writer, speech)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def ask(self, timeout: float | None = None) -> float:
        """How many s the answer to a question takes; at most ``timeout``."""
        began = time.perf_counter()
        self._writer.write(self._speech.question)
        async with asyncio.timeout(timeout or _LONG):
            if not await self._reader.read(65_536):
                raise ConnectionError("closed")
        return time.perf_counter() - began

    async def push(self, size: int, timeout: float) -> float:
        """How many s ``size`` bytes of questions take: they and the word that this is all go there, and the
        server's word that it has ended comes back.
        """
        began = time.perf_counter()
        most = self._speech.longest
        for left in range(size, 0, -most):
            self._writer.write(self._speech.long(min(left, most)))
        self._writer.write_eof()
        async with asyncio.timeout(timeout):
            while await self._reader.read(65_536):
                pass
        return time.perf_counter() - began


async def is_refused(address: Address) -> str:
    """That nobody listens. Raises FaultInert."""
    try:
        async with Wire.to(address, KAFKA):
            pass
    except ConnectionRefusedError:
        return "a new connection is refused"
    except (OSError, TimeoutError) as error:
        raise FaultInert(f"a new connection is not refused, but fails: {error!r}") from error
    raise FaultInert("a new connection is accepted")


async def is_mute(address: Address, speech: Speech) -> str:
    """That a connection is accepted, and a question never answered. Raises FaultInert."""
    till = time.monotonic() + _SIGNAL
    while True:
        try:
            async with Wire.to(address, speech) as wire:
                try:
                    seen = await wire.ask(_SILENCE)
                except TimeoutError:
                    return f"a new connection is accepted, and has no answer within {_SILENCE:g} s"
        except (OSError, TimeoutError) as error:
            raise FaultInert(f"a new connection is not mute, but fails: {error!r}") from error
        if time.monotonic() > till:
            raise FaultInert(f"an answer comes after {seen * 1e3:.1f} ms")
        await asyncio.sleep(0.01)


async def is_reset(address: Address, speech: Speech) -> str:
    """That a new connection ends with RST. Raises FaultInert."""
    try:
        async with Wire.to(address, speech) as wire:
            await wire.ask(_SILENCE)
    except (ConnectionResetError, BrokenPipeError):
        return "a new connection is reset"
    except (OSError, TimeoutError) as error:
        raise FaultInert(f"a new connection is not reset: {error!r}") from error
    raise FaultInert("a new connection has its answer")


async def took(address: Address, speech: Speech) -> float:
    """How many s a new connection takes to have its answer. Raises FaultInert if it has none."""
    try:
        async with Wire.to(address, speech) as wire:
            return await wire.ask()
    except (OSError, TimeoutError) as error:
        raise FaultInert(f"a new connection has no answer: {error!r}") from error


async def answers(address: Address, speech: Speech, *, within: float | None = None) -> str:
    """How soon a new connection has its answer: ``within`` s, once in a few times. Raises FaultInert."""
    seen = [await took(address, speech)]
    while within is not None and seen[-1] > within:
        if len(seen) == _TRIES:
            raise FaultInert(f"an answer takes {min(seen) * 1e3:.0f} ms at best")
        seen.append(await took(address, speech))
    return f"a new connection has its answer in {seen[-1] * 1e3:.1f} ms"


async def pushed(address: Address, speech: Speech, size: int) -> float:
    """How many s it takes to send ``size`` bytes of questions and to hear from the server, which closes after
    the last one, that it has. Raises FaultInert.
    """
    try:
        async with Wire.to(address, speech) as wire:
            return await wire.push(size, _PUSHED)
    except (OSError, TimeoutError) as error:
        raise FaultInert(f"{size / 1024:,.0f} KiB do not pass: {error!r}") from error
