"""The way to Redis or to Kafka in trouble: what the fault proxy does to all that passes."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from dualstream_lab.errors import FaultInert, StackError
from dualstream_lab.faults.evidence import (
    KAFKA,
    REDIS,
    address_of,
    answers,
    is_mute,
    is_refused,
    is_reset,
    pushed,
    took,
)
from dualstream_lab.faults.fault import Fault, Parameter
from dualstream_lab.faults.proxy.toxics import EARLY, Bandwidth, BlackHole, Delay, Refuse, Reset
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from dualstream_lab.faults.evidence import Address, Speech
    from dualstream_lab.faults.proxy.kafka_proxy import KafkaProxy
    from dualstream_lab.faults.proxy.proxy import Proxy
    from dualstream_lab.faults.proxy.toxics import Toxic

__all__ = ["FAULTS", "Delayed", "NetworkFault"]

_SLACK = 0.05  # s that an answer may take on a busy machine
_QUESTIONS = 10
_PUSH = 0.3  # s that what is pushed takes at the rate
_TRIES = 5


class NetworkFault(Fault):
    """A toxic of the proxy before Redis, or before every broker of Kafka. ``word`` ends its name."""

    word: ClassVar[str]
    needs_proxy = True

    @abstractmethod
    def toxic(self) -> Toxic:
        """What the proxy does."""

    @property
    def proxy(self) -> Proxy | KafkaProxy:
        """Raises StackError where none was started."""
        proxies = self.target.proxies
        proxy = None if proxies is None else proxies.redis if self.breaks == "redis" else proxies.kafka
        if proxy is None:
            raise StackError(f"no proxy was started before {self.breaks}")
        return proxy

    @property
    def address(self) -> Address:
        """Where the load goes."""
        proxy = self.proxy
        return address_of(proxy.kafka_url) if hasattr(proxy, "kafka_url") else proxy.address

    @property
    def speech(self) -> Speech:
        """Of the server."""
        return REDIS if self.breaks == "redis" else KAFKA

    async def begin(self) -> None:
        """From now on."""
        await in_thread(self.proxy.set, self.toxic())

    async def end(self) -> None:
        """Everything passes again."""
        await in_thread(self.proxy.clear)

    async def ended(self) -> str:
        """A new connection has its answer."""
        return await answers(self.address, self.speech)


class Delayed(NetworkFault):
    """One answer takes both ways."""

    word = "delay"
    says = "everything to and from {} is late"
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("delay_ms", 100, 1, 10_000, "each way"),)

    def toxic(self) -> Toxic:
        """Late both ways."""
        return Delay(delay_ms=self.value["delay_ms"])

    async def bites(self) -> str:
        """An answer takes as long as both ways."""
        seen = await took(self.address, self.speech)
        if seen < EARLY * 2 * self.value["delay_ms"] / 1e3:
            raise FaultInert(f"an answer takes {seen * 1e3:.1f} ms")
        return f"an answer takes {seen * 1e3:.0f} ms"

    async def ended(self) -> str:
        """An answer takes less than both ways did."""
        within = max(_SLACK, 1.5 * self.value["delay_ms"] / 1e3)
        return await answers(self.address, self.speech, within=within)


class _Jittered(Delayed):
    """No two answers take the same; their order is kept."""

    word = "jitter"
    says = "everything to and from {} is late, now more, now less"
    parameters: ClassVar = (
        Parameter("delay_ms", 50, 1, 2_000, "each way"),
        Parameter("jitter_ms", 25, 1, 2_000, "more or less"),
    )

    def toxic(self) -> Toxic:
        return Delay(delay_ms=self.value["delay_ms"], jitter_ms=self.value["jitter_ms"])

    async def bites(self) -> str:
        """Ten answers are late, and differ."""
        seen = [await took(self.address, self.speech) * 1e3 for _ in range(_QUESTIONS)]
        least = 2 * (self.value["delay_ms"] - self.value["jitter_ms"])
        if min(seen) < least or max(seen) - min(seen) < self.value["jitter_ms"] / 5:
            raise FaultInert(f"answers take {min(seen):.1f} to {max(seen):.1f} ms")
        return f"answers take {min(seen):.0f} to {max(seen):.0f} ms"


class _Narrow(NetworkFault):
    """All connections share it: what one sends, the others wait for."""

    word = "bandwidth"
    says = "{} is behind a narrow road, each way"
    parameters: ClassVar = (Parameter("rate_kib", 1024, 1, 10_000, "KiB/s, of all connections to a server"),)

    def toxic(self) -> Toxic:
        return Bandwidth(rate_kib=self.value["rate_kib"])

    async def bites(self) -> str:
        """A push takes as long as it must."""
        seen = await self._push()
        if seen < 0.9 * _PUSH:
            raise FaultInert(f"{self._size / 1024:,.0f} KiB pass in {seen * 1e3:.0f} ms")
        return f"{self._size / 1024:,.1f} KiB pass in {seen * 1e3:.0f} ms"

    async def ended(self) -> str:
        """It takes less than half of that."""
        seen = [await self._push()]
        while seen[-1] > _PUSH / 2:
            if len(seen) == _TRIES:
                raise FaultInert(f"{self._size / 1024:,.0f} KiB pass in {min(seen) * 1e3:.0f} ms at best")
            seen.append(await self._push())
        return f"{self._size / 1024:,.1f} KiB pass in {seen[-1] * 1e3:.0f} ms"

    @property
    def _size(self) -> int:
        return int(self.value["rate_kib"] * 1024 * _PUSH)

    async def _push(self) -> float:
        return await pushed(self.address, self.speech, self._size)


class _Swallowed(NetworkFault):
    """Nobody is told: clients find out by their own timeouts."""

    word = "blackhole"
    says = "what goes to and from {} is swallowed: connections stay, and are reset at the end"

    def toxic(self) -> Toxic:
        return BlackHole()

    async def bites(self) -> str:
        """A new connection is mute."""
        return await is_mute(self.address, self.speech)


class _ResetAll(NetworkFault):
    """Clients are told at once, again and again."""

    word = "reset"
    says = "every connection to {} is reset (RST), and each new one"

    def toxic(self) -> Toxic:
        return Reset()

    async def bites(self) -> str:
        """A new connection is reset."""
        return await is_reset(self.address, self.speech)


class _Refused(NetworkFault):
    """As of a process that has ended."""

    word = "refuse"
    says = "every connection to {} is reset, and new ones are refused"

    def toxic(self) -> Toxic:
        return Refuse()

    async def bites(self) -> str:
        """A new connection is refused."""
        return await is_refused(self.address)


def _on(server: Literal["redis", "kafka"], kind: type[NetworkFault]) -> type[NetworkFault]:
    """The fault of one of the servers: ``net.redis.delay``."""
    what = {"redis": "Redis", "kafka": "Kafka"}[server]
    members = {
        "__doc__": kind.__doc__,
        "__module__": __name__,
        "name": f"net.{server}.{kind.word}",
        "says": kind.says.format(what),
        "breaks": server,
    }
    return cast("type[NetworkFault]", ABCMeta(kind.__name__, (kind,), members))


_KINDS = (Delayed, _Jittered, _Narrow, _Swallowed, _ResetAll, _Refused)
FAULTS: tuple[type[NetworkFault], ...] = tuple(
    _on(server, kind) for server in ("redis", "kafka") for kind in _KINDS
)
