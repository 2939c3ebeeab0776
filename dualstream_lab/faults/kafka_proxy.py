"""The fault proxy of a whole Kafka cluster: a port for each broker, and nobody is told of another way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.faults.kafka_codec import KafkaCodec
from dualstream_lab.faults.loop_thread import LoopThread
from dualstream_lab.faults.relay import Relay
from dualstream_lab.stack.ports import HOST

if TYPE_CHECKING:
    from dualstream_lab.faults.toxics import Toxic

__all__ = ["KafkaProxy"]


class KafkaProxy:
    """Stands before every broker of the cluster at ``kafka_url``. Use as a context manager.

    In what brokers say of the cluster their addresses are replaced by ports of 127.0.0.1, so that clients
    stay on this way; a broker met for the first time gets its port then. Clients are offered only the
    versions of requests whose answers are read here (produce 9, fetch 15; no share groups); one that sends a
    later version all the same is reset. Otherwise as :class:`~dualstream_lab.faults.proxy.Proxy`. Raises
    ConfigError for TLS or SASL, which cannot be read.
    """

    def __init__(self, kafka_url: str) -> None:
        options = kafka_client_options(kafka_url)
        if options["security_protocol"] != "PLAINTEXT":
            raise ConfigError(
                "kafka_url: a fault proxy cannot read TLS or SASL; allowed for faults by a proxy: "
                "host:port[,host:port…] of listeners without both"
            )
        self._servers = [_address(server) for server in options["bootstrap_servers"]]
        self._thread: LoopThread | None = None
        self._relays: dict[tuple[str, int], Relay] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._toxic: Toxic | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def kafka_url(self) -> str:
        """What clients are given instead: as many servers as the URL had."""
        return ",".join(f"{HOST}:{self._relays[server].port}" for server in self._servers)

    @property
    def connections(self) -> int:
        """Open ones of clients, to all brokers."""
        return sum(relay.connections for relay in tuple(self._relays.values()))

    def start(self) -> None:
        """Listen. Raises StackError."""
        self._thread = LoopThread("dualstream-kafka-proxy")
        try:
            self._thread.run(self._open())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Reset every connection, close the ports, end the thread. Nothing if it is not started."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.run(self._close())
        finally:
            thread.stop()
            self._relays.clear()

    def set(self, toxic: Toxic | None) -> None:
        """Exert this toxic before every broker, in place of another; in force when this returns.

        Raises StackError if a port cannot be listened on again after ``Refuse``.
        """
        if self._thread is None:
            raise StackError("the fault proxy is not started; use it as a context manager")
        self._thread.run(self._become(toxic))

    def clear(self) -> None:
        """Let everything pass."""
        self.set(None)

    async def _open(self) -> None:
        for server in self._servers:
            self._place(*server)
        await self._opened()

    async def _close(self) -> None:
        await self._opened()
        for relay in self._relays.values():
            await relay.close()

    async def _become(self, toxic: Toxic | None) -> None:
        await self._opened()
        self._toxic = toxic
        for relay in self._relays.values():
            await relay.become(toxic)

    async def _opened(self) -> None:
        if self._opening:
            await asyncio.wait(self._opening)

    def _place(self, host: str, port: int) -> tuple[str, int]:
        """Where clients reach this broker. It listens when this returns, and accepts in a moment."""
        relay = self._relays.get((host, port))
        if relay is None:
            relay = Relay((host, port), codec=lambda: KafkaCodec(self._place))
            self._relays[host, port] = relay
            opening = asyncio.get_running_loop().create_task(self._admit(relay))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        return HOST, relay.port

    async def _admit(self, relay: Relay) -> None:
        await relay.open()
        await relay.become(self._toxic)


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)
