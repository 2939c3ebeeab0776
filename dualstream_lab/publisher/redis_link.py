"""The adapter of redis-py: one connection, packed commands out, replies in, each exchange bounded."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dualstream_lab.errors import ConfigError, StreamUnavailable

_INCOMPLETE: Final = object()
_GRACE = 0.01
_IDLE, _TURNS = 0.005, 3
_INFO = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"


class RedisLink:
    """A connection to one Redis server. redis-py does address, TLS and log-in; no command is retried.

    Whatever goes wrong is a StreamUnavailable, and the link is closed then: what was sent may have been
    executed or not. Not for use by several tasks at once.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self._timeout = timeout
        self._pool = ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            # Bounded in connect(). redis-py's own is asyncio.wait_for, which on Python 3.11 can swallow the
            # cancellation that ends the notifier; close() then waits for ever.
            socket_timeout=None,
            socket_connect_timeout=timeout,
            health_check_interval=0,
        )
        self._connection: Any = None
        self._answered = 0.0  # when, by the loop's clock
        self._replies = hiredis.Reader(notEnoughData=_INCOMPLETE)

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    async def check(self) -> bool:
        """Whether there is a connection to send on.

        One that the server has ended since its last answer is closed. Nothing was sent on it since then, so
        nothing is lost with it.
        """
        connection = self._connection
        if connection is None:
            return False
        if asyncio.get_running_loop().time() - self._answered > _IDLE:
            for _ in range(_TURNS):  # of the loop, in which it reads whatever the server has done meanwhile
                await asyncio.sleep(0)
        reader, transport = connection._reader, connection._writer.transport  # noqa: SLF001
        if transport.is_closing() or reader.at_eof() or reader.exception() is not None:
            await self.close()
            return False
        return True

    async def connect(self) -> None:
        """Connect and log in. Raises StreamUnavailable; ConfigError for a Cluster or a Sentinel."""
        await self.close()
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            # A TLS handshake and a log-in are several exchanges.
            async with asyncio.timeout(4 * self._timeout):
                await connection.connect()
        except BaseException as error:
            with suppress(Exception):
                await connection.disconnect(nowait=True)
            if isinstance(error, (RedisError, OSError, TimeoutError)):
                raise StreamUnavailable(str(error) or "no answer to the connection") from error
            raise
        self._connection = connection
        self._replies = hiredis.Reader(notEnoughData=_INCOMPLETE)
        mode = await self._info(b"redis_mode") or await self._info(b"server_mode")
        if mode in {"cluster", "sentinel"}:
            await self.close()
            raise ConfigError(
                f"redis_url names a Redis {mode.title()}, which is not supported; give one plain server "
                "(of a Sentinel, the primary itself)"
            )

    async def role(self) -> str:
        """``master``, ``slave``, or ``unknown`` where this user may not ask."""
        return await self._info(b"role") or "unknown"

    async def _info(self, name: bytes) -> str:
        """A field of what the server says of itself; empty where it does not."""
        for reply in await self.exchange(_INFO, 2):
            for line in reply.splitlines() if isinstance(reply, bytes) else ():
                if line.startswith(name + b":"):
                    return str(line[len(name) + 1 :], "ascii", "replace")
        return ""

    async def exchange(self, packed: bytes, count: int) -> list[Any]:
        """Send packed commands and read ``count`` replies; an error reply is an exception in the list."""
        connection = self._connection
        if connection is None:
            raise StreamUnavailable("not connected")
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout):
                connection._writer.write(packed)  # noqa: SLF001
                await self._receive(connection, replies, count)
        except BaseException as error:
            if isinstance(error, TimeoutError) and await self._had_arrived(connection, replies, count):
                return replies
            await self.close()
            if isinstance(error, TimeoutError):
                raise StreamUnavailable(f"no answer within {self._timeout:g} s") from error
            # RuntimeError: uvloop's word for writing to a connection that was reset
            if isinstance(error, (OSError, RuntimeError, hiredis.ProtocolError, AttributeError)):
                raise StreamUnavailable(str(error)) from error
            raise
        self._answered = asyncio.get_running_loop().time()
        return replies

    async def _receive(self, connection: Any, replies: list[Any], count: int) -> None:
        reader, gets = self._replies, self._replies.gets
        while True:
            while (reply := gets()) is not _INCOMPLETE:
                replies.append(reply)
            if len(replies) >= count:
                return
            data = await connection._reader.read(65_536)  # noqa: SLF001
            if not data:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(data)

    async def _had_arrived(self, connection: Any, replies: list[Any], count: int) -> bool:
        """Whether the answers were there, and only this process was too busy to read them in time."""
        with suppress(OSError, TimeoutError, hiredis.ProtocolError):
            async with asyncio.timeout(_GRACE):
                await self._receive(connection, replies, count)
                return True
        return False

    async def close(self) -> None:
        """Drop the connection; nothing if there is none."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await connection.disconnect(nowait=True)
