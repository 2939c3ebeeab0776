"""Redis that works, and is hard on those who use it: cut off, made to wait, or their scripts forgotten."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from contextlib import suppress
from functools import partial
from typing import ClassVar, Final

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.fault import Fault, Parameter
from dualstream_lab.faults.redis.probe import Link, Refused, answers, ask, lifetime, refused
from dualstream_lab.faults.redis.process import RedisFault
from dualstream_lab.faults.repeated import Repeated

__all__ = ["FAULTS"]

_SLACK = 2.0  # s that a machine may be busy with other things
_THRESHOLD = "lua-time-limit"  # ms; the name that all versions know
_ENDLESS = "for i = 1, 1e11 do end"  # some minutes, should nobody be there to end it
_LONGEST = 3600.0  # s
_KILLS = 500  # tries
_EVERY = Parameter("every_ms", 200, 10, 60_000, "so often")


class Again(RedisFault):
    """Something is done to Redis again and again, on a connection that is kept."""

    parameters: ClassVar = (_EVERY,)
    _repeated: Repeated | None = None

    @abstractmethod
    async def once(self, admin: Link) -> None:
        """It."""

    @property
    def within(self) -> float:
        """s in which it surely happens."""
        return self.value["every_ms"] / 1e3 + _SLACK

    @property
    def twice(self) -> float:
        """s in which it would happen twice."""
        return 2 * self.value["every_ms"] / 1e3

    async def begin(self) -> None:
        """From now on."""
        self._admin = Link(self.url)
        self._repeated = Repeated(partial(self.once, self._admin), self.value["every_ms"] / 1e3)

    async def end(self) -> None:
        """No more."""
        if self._repeated is not None:
            await self._repeated.stop()
            await self._admin.close()
            self._repeated.check()


class KillClients(Again):
    """Connections break again and again; Redis itself is well."""

    name = "redis.kill-clients"
    says = "every connection is closed by Redis, again and again (CLIENT KILL)"

    async def once(self, admin: Link) -> None:
        """Subscribers and all others, but not this one."""
        for kind in ("pubsub", "normal"):
            await admin.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def bites(self) -> str:
        """A subscriber and another client lose their connections."""
        subscriber, other = await asyncio.gather(
            lifetime(self.url, "SUBSCRIBE", "dualstream-fault", within=self.within),
            lifetime(self.url, "PING", within=self.within),
        )
        if subscriber is None or other is None:
            raise FaultInert(f"a connection stays for {self.within:g} s")
        return (
            f"a subscriber is cut off after {subscriber * 1e3:.0f} ms, another client after {other * 1e3:.0f}"
        )

    async def ended(self) -> str:
        """A connection stays."""
        if (seconds := await lifetime(self.url, "PING", within=self.twice)) is not None:
            raise FaultInert(f"a connection is closed after {seconds * 1e3:.0f} ms")
        return f"a connection stays for {self.twice:g} s"


class ScriptFlush(Again):
    """Whoever counts on a loaded script is told NOSCRIPT."""

    name = "redis.script-flush"
    says = "loaded scripts are forgotten, again and again (SCRIPT FLUSH)"

    async def once(self, admin: Link) -> None:
        """All scripts."""
        await admin.ask("SCRIPT", "FLUSH", "SYNC")

    async def bites(self) -> str:
        """A script that was loaded is not there any more."""
        if (seconds := await _forgotten(self.url, self.within)) is None:
            raise FaultInert(f"a loaded script is there for {self.within:g} s")
        return f"a loaded script is forgotten after {seconds * 1e3:.0f} ms"

    async def ended(self) -> str:
        """A loaded script stays."""
        if (seconds := await _forgotten(self.url, self.twice)) is not None:
            raise FaultInert(f"a loaded script is forgotten after {seconds * 1e3:.0f} ms")
        return f"a loaded script is there for {self.twice:g} s"


async def _forgotten(url: str, within: float) -> float | None:
    """After how many s a script that was loaded was gone; None: it was not."""
    began = time.perf_counter()
    async with Link(url) as link:
        name = await link.ask("SCRIPT", "LOAD", "return 1")
        while (seconds := time.perf_counter() - began) < within:
            try:
                await link.ask("EVALSHA", name, 0)
            except Refused:
                return seconds
            await asyncio.sleep(0.01)
    return None


class Busy(RedisFault):
    """First mute, then everything is refused with BUSY: Redis runs one script and nothing else."""

    name = "redis.busy"
    says = "a script that does not end: no answer at first, then BUSY (SCRIPT KILL ends it)"
    parameters: ClassVar = (
        Parameter("mute_ms", 500, 10, 60_000, "before it says BUSY (busy-reply-threshold)"),
    )
    _script: asyncio.Task[None] | None = None

    @property
    def _answer(self) -> float:
        return self.value["mute_ms"] / 1e3 + _SLACK

    async def begin(self) -> None:
        """The script is told to end, too, if this process is not there to do it."""
        async with Link(self.url) as admin:
            self.note(threshold=await admin.setting(_THRESHOLD))
            await admin.ask("CONFIG", "SET", _THRESHOLD, round(self.value["mute_ms"]))
        self._script = asyncio.create_task(self._run())
        with suppress(StreamUnavailable):
            while not self._script.done():
                await answers(self.url, timeout=0.05)

    async def _run(self) -> None:
        with suppress(StreamUnavailable):  # killed
            await ask(self.url, "EVAL", _ENDLESS, 0, timeout=_LONGEST)

    async def bites(self) -> str:
        """Mute for so long, then BUSY."""
        began = time.perf_counter()
        error = await refused(self.url, "BUSY", "PING", timeout=self._answer)
        return (
            f"PING is refused ({error.partition('.')[0]}) after {(time.perf_counter() - began) * 1e3:.0f} ms"
        )

    async def end(self) -> None:
        """Kill the script, also one that only just arrives, then as it was."""
        if not self.found:
            return
        for _ in range(_KILLS):
            try:
                await ask(self.url, "SCRIPT", "KILL", timeout=self._answer)
            except Refused:  # NOTBUSY; one that was told to end still runs for a moment
                if self._script is None or self._script.done():
                    break
            await asyncio.sleep(0.02)
        await ask(self.url, "CONFIG", "SET", _THRESHOLD, self.found["threshold"])


FAULTS: Final[tuple[type[Fault], ...]] = (KillClients, ScriptFlush, Busy)
