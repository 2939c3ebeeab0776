"""The fault proxy: a TCP port before a server, which can delay, throttle, swallow, reset and refuse.

It has a thread and an event loop of its own, so that the loop of the load is not slowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dualstream_lab.faults.proxy.relay import Relay
from dualstream_lab.faults.proxy.threaded import ThreadedProxy, not_started
from dualstream_lab.stack.ports import HOST

if TYPE_CHECKING:
    from dualstream_lab.faults.proxy.kafka_proxy import KafkaProxy
    from dualstream_lab.faults.proxy.toxics import Toxic

__all__ = ["Proxies", "Proxy"]


@dataclass(slots=True, kw_only=True)
class Proxies:
    """Those that stand before the brokers of a target."""

    redis: Proxy | None = None
    kafka: KafkaProxy | None = None


class Proxy(ThreadedProxy):
    """One server behind a port of 127.0.0.1, chosen if ``listen_port`` is 0. Use as a context manager.

    Bytes pass unchanged and in order, and no more are read than can be passed on. What a black hole (or
    ``Forget``) swallowed is lost: connections that lost bytes that way, and those that came meanwhile, are
    reset when it ends, so that no stream goes on with a hole in it; the others go on.
    May be set from any thread.
    """

    thread_name = "dualstream-proxy"

    def __init__(self, upstream: tuple[str, int], listen_port: int = 0) -> None:
        super().__init__()
        self._upstream = upstream
        self._port = listen_port
        self._relay: Relay | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect to."""
        return HOST, self._started.port

    @property
    def connections(self) -> int:
        """Open ones of clients."""
        return self._started.connections

    @property
    def _started(self) -> Relay:
        if self._relay is None:
            raise not_started()
        return self._relay

    async def _open(self) -> None:
        self._relay = Relay(self._upstream, self._port)
        await self._relay.open()

    async def _close(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            await relay.close()

    async def _become(self, toxic: Toxic | None) -> None:
        await self._started.become(toxic)
