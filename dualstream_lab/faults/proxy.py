"""The fault proxy: a TCP port before a server, which can delay, throttle, swallow, reset and refuse.

It has a thread and an event loop of its own, so that the loop of the load is not slowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from dualstream_lab.errors import StackError
from dualstream_lab.faults.loop_thread import LoopThread
from dualstream_lab.faults.relay import Relay
from dualstream_lab.stack.ports import HOST

if TYPE_CHECKING:
    from dualstream_lab.faults.kafka_proxy import KafkaProxy
    from dualstream_lab.faults.toxics import Toxic

__all__ = ["Proxies", "Proxy"]


@dataclass(slots=True, kw_only=True)
class Proxies:
    """Those that stand before the brokers of a target."""

    redis: Proxy | None = None
    kafka: KafkaProxy | None = None


class Proxy:
    """One server behind a port of 127.0.0.1, chosen if ``listen_port`` is 0. Use as a context manager.

    Bytes pass unchanged and in order, and no more are read than can be passed on. What a black hole (or
    ``Forget``) swallowed is lost: connections that lost bytes that way, and those that came meanwhile, are
    reset when it ends, so that no stream goes on with a hole in it; the others go on.
    May be set from any thread.
    """

    def __init__(self, upstream: tuple[str, int], listen_port: int = 0) -> None:
        self._upstream = upstream
        self._port = listen_port
        self._thread: LoopThread | None = None
        self._relay: Relay | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect to."""
        return HOST, self._started.port

    @property
    def connections(self) -> int:
        """Open ones of clients."""
        return self._started.connections

    def start(self) -> None:
        """Listen. Raises StackError if the port is taken."""
        self._thread = LoopThread("dualstream-proxy")
        try:
            self._relay = Relay(self._upstream, self._port)
            self._thread.run(self._relay.open())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Reset every connection, close the port, end the thread. Nothing if it is not started."""
        thread, self._thread = self._thread, None
        relay, self._relay = self._relay, None
        if thread is None:
            return
        try:
            if relay is not None:
                thread.run(relay.close())
        finally:
            thread.stop()

    def set(self, toxic: Toxic | None) -> None:
        """Exert this toxic in place of another; in force when this returns, a moment later.

        Raises StackError if the port cannot be listened on again after ``Refuse``.
        """
        relay = self._started
        assert self._thread is not None  # noqa: S101  (started)
        self._thread.run(relay.become(toxic))

    def clear(self) -> None:
        """Let everything pass."""
        self.set(None)

    @property
    def _started(self) -> Relay:
        if self._relay is None:
            raise StackError("the fault proxy is not started; use it as a context manager")
        return self._relay
