"""Redis gone, mute, or coming and going: what is done to its process."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from dualstream_lab.errors import FaultInert, StackError, StreamUnavailable
from dualstream_lab.faults.fault import Fault, Parameter
from dualstream_lab.faults.proxy.toxics import EARLY, Delay
from dualstream_lab.faults.redis.probe import Link, answers, heard
from dualstream_lab.faults.repeated import Repeated
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from dualstream_lab.faults.proxy.proxy import Proxy
    from dualstream_lab.stack import ManagedProcess

__all__ = ["FAULTS", "RedisFault"]

_SLACK = 50.0  # ms that an answer may take on a busy machine
_SIGNAL = 1.0  # s for the guard to pass SIGSTOP on
_MUTE = 0.3  # s without an answer, from a server on the same machine


class RedisFault(Fault):
    """A fault of Redis."""

    breaks = "redis"

    @property
    def url(self) -> str:
        """Of Redis itself, past any proxy. Raises StreamUnavailable where there is none."""
        if self.target.direct.redis_url is None:
            raise StreamUnavailable("no Redis was given")
        return self.target.direct.redis_url

    @property
    def process(self) -> ManagedProcess:
        """The stack's. Raises StackError where it is not ours."""
        if self.target.stack is None:
            raise StackError("this Redis is not a process of the local stack")
        return self.target.stack.redis

    async def ended(self) -> str:
        """A publish is heard again."""
        return await heard(self.url)


class Kill(RedisFault):
    """Refused, as by a server that is not there."""

    name = "redis.kill"
    says = "Redis is killed, and started again at the end: connections are refused"
    needs_stack = True

    async def begin(self) -> None:
        """SIGKILL."""
        await in_thread(self.process.kill)

    async def bites(self) -> str:
        """A connection is refused."""
        return await _refuses(self.url)

    async def end(self) -> None:
        """Start it."""
        await in_thread(self.process.start)


class Stop(RedisFault):
    """Mute: worse for clients than refusal."""

    name = "redis.stop"
    says = "Redis is stopped in place (SIGSTOP): connections stay, nothing answers"
    needs_stack = True

    async def begin(self) -> None:
        """SIGSTOP."""
        await in_thread(self.process.pause)

    async def bites(self) -> str:
        """A connection is made, and has no answer."""
        till = time.monotonic() + _SIGNAL
        while True:
            try:
                answer = await answers(self.url, timeout=_MUTE)
            except StreamUnavailable as error:
                if isinstance(error.__cause__, TimeoutError):
                    return f"a new connection has no answer to PING within {_MUTE:g} s"
                answer = str(error)
            if time.monotonic() > till:
                raise FaultInert(f"Redis is not mute: {answer}")
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        """SIGCONT."""
        await in_thread(self.process.resume)


class Restart(RedisFault):
    """Gone for a moment; another process comes back, with nothing in it."""

    name = "redis.restart"
    says = "Redis is killed and started at once: connections break, memory is empty"
    needs_stack = True
    instant = True

    async def begin(self) -> None:
        """SIGKILL, and start."""
        self._before = await self._run_id()
        await in_thread(self.process.kill)
        await in_thread(self.process.start)

    async def bites(self) -> str:
        """It is another process."""
        after = await self._run_id()
        if after == self._before:
            raise FaultInert("Redis is the same process as before")
        return f"Redis is another process (run id {self._before[:8]}… before, {after[:8]}… now)"

    async def end(self) -> None:
        """Start it, if that was cut short."""
        await in_thread(self.process.start)

    async def _run_id(self) -> str:
        async with Link(self.url) as link:
            return await link.info("run_id")


class Flap(RedisFault):
    """Never there for long: breakers and reconnects are at work all the time."""

    name = "redis.flap"
    says = "Redis is killed and comes back, again and again"
    needs_stack = True
    parameters: ClassVar = (
        Parameter("up_ms", 500, 50, 60_000, "there for so long"),
        Parameter("down_ms", 500, 50, 60_000, "away for so long"),
    )
    _flapping: Repeated | None = None

    async def begin(self) -> None:
        """The first time away begins."""
        self._flapping = Repeated(self._once, self.value["up_ms"] / 1e3)

    async def _once(self) -> None:
        await in_thread(self.process.kill)
        await asyncio.sleep(self.value["down_ms"] / 1e3)
        await in_thread(self.process.start)

    async def bites(self) -> str:
        """It refuses, answers, and refuses again."""
        seen: list[str] = []
        till = time.monotonic() + 2 * (self.value["up_ms"] + self.value["down_ms"]) / 1e3 + 3
        while seen != ["refuses", "answers", "refuses"]:
            if time.monotonic() > till:
                raise FaultInert(f"Redis does not come and go; seen: {', then '.join(seen)}")
            state = await _state(self.url)
            if seen[-1:] != [state] and (seen or state == "refuses"):
                seen.append(state)
            await asyncio.sleep(0.01)
        return "Redis " + ", then ".join(seen)

    async def end(self) -> None:
        """Start it for good."""
        if self._flapping is not None:
            await self._flapping.stop()
        await in_thread(self.process.start)
        if self._flapping is not None:
            self._flapping.check()


class Slow(RedisFault):
    """Answers come late: those who wait for each one are slow, too."""

    name = "redis.slow"
    says = "everything to and from Redis is late (through the fault proxy)"
    needs_proxy = True
    parameters: ClassVar = (Parameter("delay_ms", 200, 1, 10_000, "each way"),)

    @property
    def _proxy(self) -> Proxy:
        if self.target.proxies is None or self.target.proxies.redis is None:
            raise StackError("no proxy was started before Redis")
        return self.target.proxies.redis

    async def begin(self) -> None:
        """Late from now on."""
        await in_thread(self._proxy.set, Delay(delay_ms=self.value["delay_ms"]))

    async def bites(self) -> str:
        """An answer takes as long as both ways, where the load goes."""
        took = await self._took()
        if took < EARLY * 2 * self.value["delay_ms"]:
            raise FaultInert(f"PING is answered in {took:.0f} ms")
        return f"PING is answered in {took:.0f} ms"

    async def end(self) -> None:
        """In time from now on."""
        await in_thread(self._proxy.clear)

    async def ended(self) -> str:
        """An answer takes less than one way did."""
        took = await self._took()
        if took > self.value["delay_ms"] + _SLACK:
            raise FaultInert(f"PING is answered in {took:.0f} ms")
        return f"PING is answered in {took:.1f} ms"

    async def _took(self) -> float:
        began = time.perf_counter()
        await answers(self.target.settings.redis_url or "", timeout=8 * self.value["delay_ms"] / 1e3 + 5)
        return (time.perf_counter() - began) * 1e3


async def _refuses(url: str) -> str:
    try:
        answer = await answers(url)
    except StreamUnavailable as error:
        if "refused" in str(error) or "Connect call failed" in str(error):
            return "a new connection is refused"
        answer = str(error)
    raise FaultInert(f"connections are not refused: {answer}")


async def _state(url: str) -> str:
    with suppress(StreamUnavailable):
        await answers(url, timeout=1)
        return "answers"
    return "refuses"


FAULTS: Final[tuple[type[Fault], ...]] = (Kill, Stop, Restart, Slow, Flap)
