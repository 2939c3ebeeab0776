"""Redis that works, and is hard on those who use it: cut off, made to wait, or their scripts forgotten."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.fault import Fault, Parameter, RepeatedFault
from dualstream_lab.faults.redis.probe import Link, Refused, ask, lifetime, refused
from dualstream_lab.faults.redis.process import RedisFault
from dualstream_lab.faults.redis.settings import ConfiguredFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FAULTS"]

_SLACK = 2.0  # s that a machine may be busy with other things
_ENDLESS = "for i = 1, 1e11 do end"  # some minutes, should nobody be there to end it
_LONGEST = 3600.0  # s
_KILLS = 500  # tries


class _Repeated(RepeatedFault, RedisFault):
    """Commands again and again, on a connection that is kept."""

    parameters: ClassVar = (Parameter("every_ms", 200, 10, 60_000, "so often"),)
    commands: ClassVar[tuple[str, ...]]
    kept: ClassVar[str]
    lost: ClassVar[str]

    @property
    def pause(self) -> float:
        return self.value["every_ms"] / 1e3

    async def begin(self) -> None:
        self._admin = Link(self.url)
        await super().begin()

    async def once(self) -> None:
        for command in self.commands:
            await self._admin.ask(*command.split())

    async def end(self) -> None:
        try:
            await super().end()
        finally:
            if self._task is not None:
                await self._admin.close()

    @abstractmethod
    async def losses(self, within: float) -> Sequence[float | None]:
        """After how many s what was there is lost; None: it stays for so long."""

    async def verify_active(self) -> str:
        within = self.pause + _SLACK
        if None in (losses := await self.losses(within)):
            raise FaultInert(f"{self.kept} for {within:g} s")
        return self._lost(losses)

    async def verify_ended(self) -> str:
        within = 2 * self.pause
        if any(losses := await self.losses(within)):
            raise FaultInert(self._lost(losses))
        return f"{self.kept} for {within:g} s"

    def _lost(self, losses: Sequence[float | None]) -> str:
        return f"{self.lost} after {' and '.join(f'{seconds * 1e3:.0f}' for seconds in losses if seconds)} ms"


class _KillClients(_Repeated):
    """Connections break again and again; Redis itself is well."""

    name = "redis.kill-clients"
    says = "every connection is closed by Redis, again and again (CLIENT KILL)"
    commands = ("CLIENT KILL TYPE pubsub SKIPME yes", "CLIENT KILL TYPE normal SKIPME yes")
    kept, lost = "connections stay", "a subscriber and another client are cut off"

    async def losses(self, within: float) -> Sequence[float | None]:
        return await asyncio.gather(
            lifetime(self.url, "SUBSCRIBE", "dualstream-fault", within=within),
            lifetime(self.url, "PING", within=within),
        )


class _ScriptFlush(_Repeated):
    """Whoever counts on a loaded script is told NOSCRIPT."""

    name = "redis.script-flush"
    says = "loaded scripts are forgotten, again and again (SCRIPT FLUSH)"
    commands = ("SCRIPT FLUSH SYNC",)
    kept, lost = "a loaded script is there", "a loaded script is forgotten"

    async def losses(self, within: float) -> Sequence[float | None]:
        began = time.perf_counter()
        async with Link(self.url) as link:
            name = await link.ask("SCRIPT", "LOAD", "return 1")
            while (seconds := time.perf_counter() - began) < within:
                try:
                    await link.ask("EVALSHA", name, 0)
                except Refused:
                    return [seconds]
                await asyncio.sleep(0.01)
        return [None]


class _Busy(ConfiguredFault):
    """First mute, then everything is refused with BUSY: Redis runs one script and nothing else."""

    name = "redis.busy"
    says = "a script that does not end: no answer at first, then BUSY (SCRIPT KILL ends it)"
    parameters: ClassVar = (
        Parameter("mute_ms", 500, 10, 60_000, "before it says BUSY (busy-reply-threshold)"),
    )
    _script: asyncio.Task[None] | None = None

    @property
    def settings(self) -> Mapping[str, str]:
        """By the name that all versions know."""
        return {"lua-time-limit": str(round(self.value["mute_ms"]))}

    @property
    def _answer(self) -> float:
        return self.value["mute_ms"] / 1e3 + _SLACK

    async def begin(self) -> None:
        """The script is told to end, too, if this process is not there to do it."""
        await super().begin()
        self._script = asyncio.create_task(self._run())
        with suppress(StreamUnavailable):
            while not self._script.done():
                await ask(self.url, "PING", timeout=0.05)

    async def _run(self) -> None:
        with suppress(StreamUnavailable):  # killed
            await ask(self.url, "EVAL", _ENDLESS, 0, timeout=_LONGEST)

    async def verify_active(self) -> str:
        began = time.perf_counter()
        error = (await refused(self.url, "BUSY", "PING", timeout=self._answer)).partition(".")[0]
        return f"PING is refused ({error}) after {(time.perf_counter() - began) * 1e3:.0f} ms"

    async def end(self) -> None:
        """Kill the script, also one that only just arrives, then as it was."""
        if not self.original:
            return
        for _ in range(_KILLS):
            try:
                await ask(self.url, "SCRIPT", "KILL", timeout=self._answer)
            except Refused:  # NOTBUSY; one that was told to end still runs for a moment
                if self._script is None or self._script.done():
                    break
            await asyncio.sleep(0.02)
        await super().end()


FAULTS: Final[tuple[type[Fault], ...]] = (_KillClients, _ScriptFlush, _Busy)
