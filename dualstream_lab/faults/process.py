"""A server's process killed, stopped in place, restarted, or coming and going; the gateway's at that."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from dualstream_lab.errors import ConfigError, FaultInert, StreamUnavailable
from dualstream_lab.faults.evidence import HTTP, answer_time, answers, ask, connected, refuses, until
from dualstream_lab.faults.fault import Fault, Parameter, RepeatedFault, ServedGateway
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from dualstream_lab.faults.evidence import Address, Dialect, Refusal
    from dualstream_lab.stack import ManagedProcess

__all__ = ["FAULTS", "Flap", "Kill", "Restart", "ServerFault", "Stop"]


class ServerFault(Fault):
    """A fault of a server."""

    dialect: ClassVar[Dialect]

    @property
    @abstractmethod
    def process(self) -> ManagedProcess:
        """Raises StackError where it is not ours."""

    @property
    @abstractmethod
    def address(self) -> Address:
        """Of the process, past any proxy."""


class Kill(ServerFault):
    """Refused, as by a server that is not there."""

    needs_stack = True
    refusal: ClassVar[Refusal] = "refused"

    async def begin(self) -> None:
        """SIGKILL."""
        await in_thread(self.process.kill)

    async def verify_active(self) -> str:
        """A new connection is refused."""
        return await refuses(self.address, self.dialect, self.refusal)

    async def end(self) -> None:
        """Start it."""
        await in_thread(self.process.start)


class Stop(Kill):
    """Mute: worse for clients than refusal."""

    refusal = "mute"

    async def begin(self) -> None:
        """SIGSTOP."""
        await in_thread(self.process.pause)

    async def end(self) -> None:
        """SIGCONT."""
        await in_thread(self.process.resume)


class Restart(Kill):
    """Gone for as long as it takes to start."""

    instant = True
    _broke = False

    async def begin(self) -> None:
        """SIGKILL, and start."""
        try:
            async with connected(self.address) as streams:
                await ask(streams, self.dialect)
                await in_thread(self.process.kill)
                await in_thread(self.process.start)
                try:
                    await ask(streams, self.dialect)
                except ConnectionError:
                    self._broke = True
        except (OSError, TimeoutError) as error:
            raise StreamUnavailable(f"{self.breaks.capitalize()}: {error!r}") from error

    async def verify_active(self) -> str:
        """A connection of before has ended."""
        if not self._broke:
            raise FaultInert("a connection of before goes on")
        return f"a connection of before has ended; {await answers(self.address, self.dialect)}"


class Flap(RepeatedFault, ServerFault):
    """Never there for long: circuit breakers and reconnects are at work all the time."""

    needs_stack = True
    every = "up_ms"
    parameters: ClassVar = (
        Parameter("up_ms", 500, 50, 60_000, "there for so long"),
        Parameter("down_ms", 500, 50, 60_000, "away for so long"),
    )

    async def once(self) -> None:
        """Away, and back."""
        await in_thread(self.process.kill)
        await asyncio.sleep(self.value["down_ms"] / 1e3)
        await in_thread(self.process.start)

    async def verify_active(self) -> str:
        """It refuses, answers, and refuses again."""
        seen: list[str] = []
        name = self.breaks.capitalize()

        async def differs() -> str:
            state = "refuses"
            with suppress(FaultInert):
                await answer_time(self.address, self.dialect)
                state = "answers"
            if seen[-1:] != [state] and (seen or state == "refuses"):
                seen.append(state)
            whole = seen == ["refuses", "answers", "refuses"]
            return "" if whole else f"{name} does not come and go; seen: {', then '.join(seen)}"

        await until(differs, 2 * (self.value["up_ms"] + self.value["down_ms"]) / 1e3 + 3)
        return f"{name} {', then '.join(seen)}"

    async def end(self) -> None:
        """Start it for good."""
        try:
            await super().end()
        finally:
            await in_thread(self.process.start)


class _KillGateway(Kill):
    """What clients have not yet read is gone with it; they connect again, and go on where they were."""

    name = "gateway.kill"
    says = "the run's gateway is killed, and started again at the end"
    breaks = "gateway"
    dialect = HTTP

    @property
    def _gateway(self) -> ServedGateway:
        if self.target.gateway is None:
            raise ConfigError("gateway.kill: this run has no gateway of its own")
        return self.target.gateway

    @property
    def process(self) -> ManagedProcess:
        return self._gateway.process

    @property
    def address(self) -> Address:
        return self._gateway.address

    async def verify_ended(self) -> str:
        return await answers(self.address, HTTP)


FAULTS = (_KillGateway,)
