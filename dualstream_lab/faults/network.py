"""The way to Redis or to Kafka in trouble: what the fault proxy does to all that passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from dualstream_lab.errors import FaultInert, StackError
from dualstream_lab.faults.evidence import KAFKA, REDIS, Refusal, Server, at_most
from dualstream_lab.faults.fault import Fault, Parameter, derived
from dualstream_lab.faults.proxy.toxics import EARLY, Bandwidth, BlackHole, Delay, Refuse, Reset, Toxic
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from dualstream_lab.faults.proxy.proxy import Proxy

_SLACK = 0.05  # s that an answer may take on a busy machine
_QUESTIONS = 10
_PUSH = 0.3  # s that what is pushed takes at the rate


class NetworkFault(Fault):
    """A toxic of the proxy before Redis, or of the one before every broker of Kafka.

    The toxic takes the fault's parameters; ``word`` ends the fault's name.
    """

    word: ClassVar[str]
    toxic: ClassVar[type[Toxic]]
    needs_proxy = True

    @property
    def proxy(self) -> Proxy:
        """The proxy before the broken server. Raises StackError where none was started."""
        if self.breaks not in self.target.proxies:
            raise StackError(f"no proxy was started before {self.breaks}")
        return self.target.proxies[self.breaks]

    @property
    def server(self) -> Server:
        """The proxy, as the load meets it."""
        return Server(self.proxy.address, REDIS if self.breaks == "redis" else KAFKA)

    async def begin(self) -> None:
        """Let the toxic act from now on."""
        await in_thread(self.proxy.set, self.toxic(**self.value))

    async def end(self) -> None:
        """Let everything pass again."""
        await in_thread(self.proxy.clear)

    async def verify_ended(self) -> str:
        """See that a new connection has its answer."""
        return await self.server.answers()


class Delayed(NetworkFault):
    """Everything is late; an answer is so twice, as it takes both ways."""

    word = "delay"
    toxic = Delay
    says = "everything to and from {} is late"
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("delay_ms", 100, 1, 10_000, "each way"),)

    async def verify_active(self) -> str:
        """See that an answer takes as long as both ways."""
        seen = await self.server.answer_time()
        if seen < EARLY * 2 * self.value["delay_ms"] / 1e3:
            raise FaultInert(f"an answer takes {seen * 1e3:.1f} ms")
        return f"an answer takes {seen * 1e3:.0f} ms"

    async def verify_ended(self) -> str:
        """See that an answer takes less than both ways did."""
        return await self.server.answers(within=max(_SLACK, 1.5 * self.value["delay_ms"] / 1e3))


class _Jittered(Delayed):
    word = "jitter"
    says = "everything to and from {} is late, now more, now less"
    parameters: ClassVar = (
        Parameter("delay_ms", 50, 1, 2_000, "each way"),
        Parameter("jitter_ms", 25, 1, 2_000, "more or less"),
    )

    async def verify_active(self) -> str:
        seen = [await self.server.answer_time() * 1e3 for _ in range(_QUESTIONS)]
        least = 2 * (self.value["delay_ms"] - self.value["jitter_ms"])
        if min(seen) < least or max(seen) - min(seen) < self.value["jitter_ms"] / 5:
            raise FaultInert(f"answers take {min(seen):.1f} to {max(seen):.1f} ms")
        return f"answers take {min(seen):.0f} to {max(seen):.0f} ms"


class _Narrow(NetworkFault):
    """A narrow road, which all connections share: what one sends, the others wait for."""

    word = "bandwidth"
    toxic = Bandwidth
    says = "{} is behind a narrow road, each way"
    parameters: ClassVar = (Parameter("rate_kib", 1024, 1, 10_000, "KiB/s, of all connections to a server"),)

    async def verify_active(self) -> str:
        seen = await self._push()
        if seen < 0.9 * _PUSH:
            raise FaultInert(f"{self._size / 1024:,.0f} KiB pass in {seen * 1e3:.0f} ms")
        return f"{self._size / 1024:,.1f} KiB pass in {seen * 1e3:.0f} ms"

    async def verify_ended(self) -> str:
        kib = self._size / 1024
        seen = await at_most(_PUSH / 2, self._push, f"{kib:,.0f} KiB pass in")
        return f"{kib:,.1f} KiB pass in {seen * 1e3:.0f} ms"

    @property
    def _size(self) -> int:
        return int(self.value["rate_kib"] * 1024 * _PUSH)

    async def _push(self) -> float:
        return await self.server.pushed(self._size)


class _Refused(NetworkFault):
    """No new connection has an answer."""

    refusal: ClassVar[Refusal]

    async def verify_active(self) -> str:
        return await self.server.refuses(self.refusal)


class _Swallowed(_Refused):
    word, toxic, refusal = "blackhole", BlackHole, "mute"
    says = "what goes to and from {} is swallowed: connections stay, and are reset at the end"


class _ResetAll(_Refused):
    word, toxic, refusal = "reset", Reset, "reset"
    says = "every connection to {} is reset (RST), and each new one"


class _Gone(_Refused):
    word, toxic, refusal = "refuse", Refuse, "refused"
    says = "every connection to {} is reset, and new ones are refused"


_KINDS = (Delayed, _Jittered, _Narrow, _Swallowed, _ResetAll, _Gone)
FAULTS: Final[tuple[type[Fault], ...]] = tuple(
    derived(f"net.{server}.{kind.word}", kind.says.format(server.capitalize()), kind, breaks=server)
    for server in ("redis", "kafka")
    for kind in _KINDS
)
