"""What Redis faults share: a client of their own, which administers and sees what others would see."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Any, Self

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.evidence import REDIS, Server, address_of
from dualstream_lab.faults.fault import ServerFault
from dualstream_lab.stack import ManagedProcess

_ANSWER = 5.0  # s
_NAME = "dualstream-fault"  # begins the channels used here, and the key that is never written

# A write to Redis, but nothing is written: only a key that exists would be set.
WRITE = ("SET", f"{_NAME}:{secrets.token_hex(8)}", "", "XX")


class Refused(StreamUnavailable):
    """Redis answered with an error, which is the message."""


class Link:
    """One connection, made with the first command; nothing is retried. Use as an async context manager."""

    def __init__(self, url: str) -> None:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            # Bounded here: redis-py's own bounds can swallow a cancellation.
            socket_timeout=None,
            socket_connect_timeout=None,
            health_check_interval=0,
            driver_info=None,
        )
        self._connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ask(self, *command: str | int, timeout: float = _ANSWER) -> Any:
        """Send a command and read its answer; without a command, read what comes next. Raises Refused for an
        error reply, StreamUnavailable for anything else.
        """
        try:
            async with asyncio.timeout(timeout):
                if command:
                    await self._connection.send_command(*command)
                return await self._connection.read_response()
        except ResponseError as error:
            raise Refused(str(error)) from error
        except TimeoutError as error:
            raise StreamUnavailable(f"Redis gave no answer within {timeout:g} s") from error
        except (RedisError, OSError, RuntimeError) as error:  # uvloop's word for a connection that was reset
            raise StreamUnavailable(f"Redis: {error}") from error

    async def info(self, name: str, timeout: float = _ANSWER) -> str:
        """Read a field of INFO. Raises StreamUnavailable where there is none."""
        for line in str(await self.ask("INFO", timeout=timeout)).splitlines():
            if line.startswith(name + ":"):
                return line[len(name) + 1 :]
        raise StreamUnavailable(f"Redis tells no {name}")

    async def setting(self, name: str) -> str:
        """Read a setting by CONFIG GET. Raises StreamUnavailable where there is none."""
        if not (setting := await self.ask("CONFIG", "GET", name)):
            raise StreamUnavailable(f"Redis has no setting {name}")
        return str(setting[1])

    async def close(self) -> None:
        """Close the connection; nothing if it is not open."""
        with suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)


async def ask(url: str, *command: str | int, timeout: float = _ANSWER) -> Any:
    """Ask one command on a connection of its own. Raises as :meth:`Link.ask`."""
    async with Link(url) as link:
        return await link.ask(*command, timeout=timeout)


async def delivers(url: str, *, size: int = 8) -> str:
    """Publish so many bytes to a subscriber; how soon they came. Raises FaultInert, StreamUnavailable."""
    channel, message = f"{_NAME}:{secrets.token_hex(4)}", "x" * size
    async with Link(url) as subscriber:
        await subscriber.ask("SUBSCRIBE", channel)
        began = time.perf_counter()
        receivers = await ask(url, "PUBLISH", channel, message)
        if not receivers:
            raise FaultInert("a PUBLISH reached no subscriber")
        received = await subscriber.ask()
        if received[-1] != message:
            raise FaultInert(f"the subscriber received something else: {received}")
        return f"a PUBLISH is received in {(time.perf_counter() - began) * 1e3:.1f} ms"


async def refused(url: str, word: str, *command: str | int, timeout: float = _ANSWER) -> str:
    """See the command refused by an error with ``word`` in it. Raises FaultInert for any other answer."""
    try:
        answer = await ask(url, *command, timeout=timeout)
    except StreamUnavailable as error:
        if word in str(error):
            return str(error)
        answer = error
    raise FaultInert(f"{command[0]} is not refused with {word!r}: the answer is {answer!r}")


class RedisFault(ServerFault):
    """A fault of Redis."""

    breaks = "redis"

    @property
    def url(self) -> str:
        """The URL of Redis itself, past any proxy. Raises StreamUnavailable where there is none."""
        if self.target.direct.redis_url is None:
            raise StreamUnavailable("no Redis was given")
        return self.target.direct.redis_url

    @property
    def process(self) -> ManagedProcess:
        """The process of the stack's Redis."""
        return self.stack.redis

    @property
    def server(self) -> Server:
        """The stack's Redis, past any proxy."""
        return Server(address_of(self.stack.redis_url.partition("//")[2]), REDIS)

    async def verify_ended(self) -> str:
        """See that a publish is delivered again."""
        return await delivers(self.url)
