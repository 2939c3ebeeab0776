"""The fault proxy of a whole Kafka cluster: a port for each broker, and nobody is told of another way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dualstream_lab.config import kafka_client_options
from dualstream_lab.errors import ConfigError
from dualstream_lab.faults.proxy.kafka_codec import KafkaCodec
from dualstream_lab.faults.proxy.relay import Relay
from dualstream_lab.faults.proxy.threaded import ThreadedProxy
from dualstream_lab.stack.ports import HOST

if TYPE_CHECKING:
    from dualstream_lab.faults.proxy.toxics import Toxic

__all__ = ["KafkaProxy"]


class KafkaProxy(ThreadedProxy):
    """Stands before every broker of the cluster at ``kafka_url``. Use as a context manager.

    In what brokers say of the cluster their addresses are replaced by ports of 127.0.0.1, so that clients
    stay on this way; a broker met for the first time gets its port then. Clients are offered only the
    versions of requests whose answers are read here (produce 9, fetch 15; no share groups); one that sends a
    later version all the same is reset. Otherwise as
    :class:`~dualstream_lab.faults.proxy.proxy.Proxy`. Raises ConfigError for TLS or SASL, which cannot be
    read.
    """

    thread_name = "dualstream-kafka-proxy"

    def __init__(self, kafka_url: str) -> None:
        super().__init__()
        options = kafka_client_options(kafka_url)
        if options["security_protocol"] != "PLAINTEXT":
            raise ConfigError(
                "kafka_url: a fault proxy cannot read TLS or SASL; allowed for faults by a proxy: "
                "host:port[,host:port…] of listeners without both"
            )
        self._servers = [_address(server) for server in options["bootstrap_servers"]]
        self._relays: dict[tuple[str, int], Relay] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._toxic: Toxic | None = None

    @property
    def kafka_url(self) -> str:
        """What clients are given instead: as many servers as the URL had."""
        return ",".join(f"{HOST}:{self._relays[server].port}" for server in self._servers)

    @property
    def connections(self) -> int:
        """Open ones of clients, to all brokers."""
        return sum(relay.connections for relay in tuple(self._relays.values()))

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
