"""The fault proxy: TCP ports before servers, which can delay, throttle, swallow, reset and refuse.

It has a thread and an event loop of its own, so that the loop of the load is not slowed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

import uvloop

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.faults.evidence import Address, address_of
from dualstream_lab.faults.proxy.kafka_codec import KafkaCodec
from dualstream_lab.faults.proxy.relay import Relay
from dualstream_lab.faults.proxy.toxics import Toxic
from dualstream_lab.stack.ports import HOST

_TIMEOUT = 10.0  # s
_NOT_STARTED = "the fault proxy is not started; use it as a context manager"


class Proxy:
    """One server behind a free port of 127.0.0.1. Use as a context manager.

    Bytes pass unchanged and in order, and no more are read than can be passed on. What a black hole
    swallowed is lost: connections that lost bytes that way, and those that came meanwhile, are
    reset when it ends, so that no stream goes on with a hole in it; the others go on.
    May be set from any thread. Raises StackError where the proxy does not answer within 10 s.
    """

    def __init__(self, upstream: Address) -> None:
        self._servers = [upstream]
        self._relays: dict[Address, Relay] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._toxic: Toxic | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._codec: Callable[[], KafkaCodec | None] = lambda: None  # for a new connection

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> Address:
        """The address that clients connect to; with several servers, the one before the first."""
        return HOST, self._port_before(self._servers[0])

    def start(self) -> None:
        """Start the thread, and listen."""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dualstream-proxy", daemon=True)
        self._thread.start()
        try:
            self._run(self._open())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Reset every connection, close the ports, end the thread. Nothing if it is not started."""
        if (loop := self._loop) is None:
            return
        try:
            self._run(self._close())
        finally:
            self._loop = None
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(_TIMEOUT)
            if not self._thread.is_alive():
                loop.close()

    def set(self, toxic: Toxic | None) -> None:
        """Exert this toxic in place of another; in force when this returns, a moment later.

        Raises StackError if a port cannot be listened on again after ``Refuse``.
        """
        self._run(self._become(toxic))

    def clear(self) -> None:
        """Let everything pass."""
        self.set(None)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in the proxy's thread, and wait until it has ended."""
        if self._loop is None:
            work.close()
            raise StackError(_NOT_STARTED)
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            running.result(_TIMEOUT)
        except TimeoutError as error:
            running.cancel()
            raise StackError(f"the fault proxy did not answer within {_TIMEOUT:g} s") from error

    def _port_before(self, server: Address) -> int:
        if server not in self._relays:
            raise StackError(_NOT_STARTED)
        return self._relays[server].port

    async def _open(self) -> None:
        for server in self._servers:
            self._place(*server)
        await self._opened()

    async def _close(self) -> None:
        await self._opened()
        try:
            for relay in self._relays.values():
                await relay.close()
        finally:
            self._relays.clear()
            self._toxic = None

    async def _become(self, toxic: Toxic | None) -> None:
        await self._opened()
        self._toxic = toxic
        for relay in self._relays.values():
            await relay.become(toxic)

    async def _opened(self) -> None:
        if self._opening:
            await asyncio.wait(self._opening)

    def _place(self, host: str, port: int) -> Address:
        """Give the address where clients reach this server. It listens already, and accepts in a moment."""
        relay = self._relays.get((host, port))
        if relay is None:
            relay = self._relays[host, port] = Relay((host, port), codec=self._codec)
            opening = asyncio.get_running_loop().create_task(relay.become(self._toxic))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        return HOST, relay.port


class KafkaProxy(Proxy):
    """Stands before every broker of the cluster at ``kafka_url``.

    In what brokers say of the cluster their addresses are replaced by ports of 127.0.0.1, so that clients
    stay on this way; a broker met for the first time gets its port then. Clients are offered only the
    versions of requests whose answers are read here (produce 9, fetch 15; no share groups); one that sends a
    later version all the same is reset. Otherwise as :class:`Proxy`. Raises ConfigError for TLS or SASL,
    which cannot be read.
    """

    def __init__(self, kafka_url: str) -> None:
        options = kafka_client_options(kafka_url)
        if options["security_protocol"] != "PLAINTEXT":
            raise ConfigError(
                "kafka_url: a fault proxy cannot read TLS or SASL; allowed for faults by a proxy: "
                "host:port[,host:port…] of listeners without both"
            )
        servers = [address_of(server) for server in options["bootstrap_servers"]]
        super().__init__(servers[0])
        self._servers = servers
        self._codec = lambda: KafkaCodec(self._place)

    @property
    def kafka_url(self) -> str:
        """The URL that clients are given instead, with as many servers as the proxied one has."""
        return ",".join(f"{HOST}:{self._port_before(server)}" for server in self._servers)
