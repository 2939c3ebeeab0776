"""A server gone, mute, slow, or coming and going: what is done to its process, and to the way there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import ClassVar, Final

from dualstream_lab.errors import ConfigError, FaultInert, StreamUnavailable
from dualstream_lab.faults.evidence import HTTP, Refusal, Server, until
from dualstream_lab.faults.fault import Fault, Parameter, RepeatedFault, ServedGateway, ServerFault, derived
from dualstream_lab.faults.kafka.cluster import KafkaFault
from dualstream_lab.faults.network import Delayed
from dualstream_lab.faults.redis.probe import RedisFault
from dualstream_lab.stack import ManagedProcess
from dualstream_lab.tasks import in_thread


class _Kill(ServerFault):
    """The process is killed: connections are refused, as by a server that is not there."""

    needs_stack = True
    refusal: ClassVar[Refusal] = "refused"

    async def begin(self) -> None:
        await in_thread(self.process.kill)

    async def verify_active(self) -> str:
        return await self.server.refuses(self.refusal)

    async def end(self) -> None:
        await in_thread(self.process.start)


class _Stop(_Kill):
    """The process is stopped in place and answers nothing, which is worse for clients than a refusal."""

    refusal = "mute"

    async def begin(self) -> None:
        await in_thread(self.process.pause)

    async def end(self) -> None:
        await in_thread(self.process.resume)


class _Restart(_Kill):
    """The process is killed and started at once: it is gone for as long as its start takes."""

    instant = True
    _broke = False

    async def begin(self) -> None:
        try:
            async with self.server.connected() as streams:
                await self.server.ask(streams)
                await in_thread(self.process.kill)
                await in_thread(self.process.start)
                try:
                    await self.server.ask(streams)
                except ConnectionError:
                    self._broke = True
        except (OSError, TimeoutError) as error:
            raise StreamUnavailable(f"{self.breaks.capitalize()}: {error!r}") from error

    async def verify_active(self) -> str:
        if not self._broke:
            raise FaultInert("a connection of before goes on")
        return f"a connection of before has ended; {await self.server.answers()}"


class _Flap(RepeatedFault, ServerFault):
    """The process comes and goes, so that circuit breakers and reconnects are at work all the time."""

    needs_stack = True
    every = "up_ms"
    parameters: ClassVar = (
        Parameter("up_ms", 500, 50, 60_000, "there for so long"),
        Parameter("down_ms", 500, 50, 60_000, "away for so long"),
    )

    async def once(self) -> None:
        await in_thread(self.process.kill)
        await asyncio.sleep(self.value["down_ms"] / 1e3)
        await in_thread(self.process.start)

    async def verify_active(self) -> str:
        seen: list[str] = []
        name = self.breaks.capitalize()

        async def differs() -> str:
            state = "refuses"
            with suppress(FaultInert):
                await self.server.answer_time()
                state = "answers"
            if seen[-1:] != [state] and (seen or state == "refuses"):
                seen.append(state)
            whole = seen == ["refuses", "answers", "refuses"]
            return "" if whole else f"{name} does not come and go; seen: {', then '.join(seen)}"

        await until(differs, 2 * (self.value["up_ms"] + self.value["down_ms"]) / 1e3 + 3)
        return f"{name} {', then '.join(seen)}"

    async def end(self) -> None:
        try:
            await super().end()
        finally:
            await in_thread(self.process.start)


class _Slow(Delayed):
    parameters: ClassVar = (Parameter("delay_ms", 200, 1, 10_000, "each way"),)


class _KillGateway(_Kill):
    """What clients have not yet read is gone with it; they connect again, and go on where they were."""

    name = "gateway.kill"
    says = "the run's gateway is killed, and started again at the end"
    breaks = "gateway"

    @property
    def _gateway(self) -> ServedGateway:
        if self.target.gateway is None:
            raise ConfigError("gateway.kill: this run has no gateway of its own")
        return self.target.gateway

    @property
    def process(self) -> ManagedProcess:
        return self._gateway.process

    @property
    def server(self) -> Server:
        return Server(self._gateway.address, HTTP)

    async def verify_ended(self) -> str:
        return await self.server.answers()


_KINDS: Final = {"kill": _Kill, "stop": _Stop, "restart": _Restart, "slow": _Slow, "flap": _Flap}
_FAMILIES: Final = {"redis": RedisFault, "kafka": KafkaFault}
_SAYS: Final = {
    "redis.kill": "Redis is killed, and started again at the end: connections are refused",
    "redis.stop": "Redis is stopped in place (SIGSTOP): connections stay, nothing answers",
    "redis.restart": "Redis is killed and started at once: connections break, memory is empty",
    "redis.slow": "everything to and from Redis is late (through the fault proxy)",
    "redis.flap": "Redis is killed and comes back, again and again",
    "kafka.kill": "the (first) Kafka broker is killed, and started again at the end: connections are refused",
    "kafka.stop": "the (first) Kafka broker is stopped in place (SIGSTOP): connections stay, nothing answers",
    "kafka.restart": "the (first) Kafka broker is killed and started at once",
    "kafka.slow": "everything to and from every Kafka broker is late (through the fault proxy)",
}


def _fault(name: str, says: str) -> type[Fault]:
    family, _, kind = name.partition(".")
    return derived(name, says, _KINDS[kind], _FAMILIES[family])


FAULTS: Final[tuple[type[Fault], ...]] = (*map(_fault, _SAYS, _SAYS.values()), _KillGateway)
