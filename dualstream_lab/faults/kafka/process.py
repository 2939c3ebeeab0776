"""Kafka gone, mute, slow, or throttled: what is done to a broker, or to all."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.evidence import KAFKA, Wire, answers, is_mute, is_refused
from dualstream_lab.faults.fault import Parameter
from dualstream_lab.faults.kafka.admin import administration
from dualstream_lab.faults.kafka.fault import KafkaFault
from dualstream_lab.faults.kafka.replicas import LeaderLost, NotEnoughReplicas
from dualstream_lab.faults.network import Delayed
from dualstream_lab.tasks import in_thread

__all__ = ["FAULTS"]

_TOLD = 30.0  # s for brokers to know of a quota, and to say so
_PAUSE = 0.1


class Kill(KafkaFault):
    """Refused, as by a server that is not there."""

    name = "kafka.kill"
    says = "the (first) Kafka broker is killed, and started again at the end: connections are refused"
    needs_stack = True

    async def begin(self) -> None:
        """SIGKILL."""
        await in_thread(self.process(1).kill)

    async def bites(self) -> str:
        """A connection is refused."""
        return await is_refused(self.address(1))

    async def end(self) -> None:
        """Start it."""
        await in_thread(self.process(1).start)


class Stop(KafkaFault):
    """Mute: worse for clients than refusal."""

    name = "kafka.stop"
    says = "the (first) Kafka broker is stopped in place (SIGSTOP): connections stay, nothing answers"
    needs_stack = True

    async def begin(self) -> None:
        """SIGSTOP."""
        await in_thread(self.process(1).pause)

    async def bites(self) -> str:
        """A connection is made, and has no answer."""
        return await is_mute(self.address(1), KAFKA)

    async def end(self) -> None:
        """SIGCONT."""
        await in_thread(self.process(1).resume)


class Restart(KafkaFault):
    """Gone for as long as a broker takes to start."""

    name = "kafka.restart"
    says = "the (first) Kafka broker is killed and started at once"
    needs_stack = True
    instant = True
    _broke = False

    async def begin(self) -> None:
        """SIGKILL, and start."""
        try:
            async with Wire.to(self.address(1), KAFKA) as before:
                await before.ask()
                await in_thread(self.process(1).kill)
                await in_thread(self.process(1).start)
                try:
                    await before.ask()
                except ConnectionError:
                    self._broke = True
        except (OSError, TimeoutError) as error:
            raise StreamUnavailable(f"Kafka: {error!r}") from error

    async def bites(self) -> str:
        """A connection of before has ended."""
        if not self._broke:
            raise FaultInert("a connection of before goes on")
        return f"a connection of before has ended; {await answers(self.address(1), KAFKA)}"

    async def end(self) -> None:
        """Start it, if that was cut short."""
        await in_thread(self.process(1).start)


class Slow(Delayed):
    """Every request takes longer, and one at a time is all that a producer sends a broker."""

    name = "kafka.slow"
    says = "everything to and from every Kafka broker is late (through the fault proxy)"
    breaks = "kafka"
    parameters: ClassVar = (Parameter("delay_ms", 200, 1, 10_000, "each way"),)


class Throttled(KafkaFault):
    """Produces are written at once, and what comes after them on the connection waits.

    A connection that the broker holds back at the end is let go when its time is over: seconds later.
    """

    name = "kafka.throttled"
    says = "a quota for every producer that has none of its own: brokers hold its connections back"
    parameters: ClassVar = (
        Parameter("rate_kib", 256, 1, 10_000, "KiB/s that each producer may write to each broker"),
    )

    async def begin(self) -> None:
        """The quota of clients by default."""
        async with administration(self.target.direct) as admin:
            self.note(quota=await admin.quota())
            await admin.set_quota(self.value["rate_kib"] * 1024)

    async def bites(self) -> str:
        """A broker says so to a producer that has sent what the quota allows in its window (11 s)."""
        piece = int(min(2**20, max(2**16, self.value["rate_kib"] * 1024)))
        most = piece + int(30 * self.value["rate_kib"] * 1024)
        sent, deadline = 0, time.monotonic() + _TOLD
        async with administration(self.target.direct) as admin:
            broker = admin.brokers()[0]
            while time.monotonic() < deadline:
                held = await admin.throttled(broker, piece)
                sent += piece
                if held:
                    return f"after {sent / 1024:,.0f} KiB a producer is held back for {held} ms"
                if sent >= most:  # before the broker knew of it
                    await asyncio.sleep(_PAUSE)
        raise FaultInert(f"a producer of {sent / 1024:,.0f} KiB is not held back")

    async def end(self) -> None:
        """The quota that there was, or none."""
        if self.found:
            async with administration(self.target.direct) as admin:
                await admin.set_quota(self.found["quota"])

    async def ended(self) -> str:
        """The quota is as before; if there was none, nobody is held back."""
        before, deadline = self.found.get("quota"), time.monotonic() + _TOLD
        async with administration(self.target.direct) as admin:
            while True:
                quota = await admin.quota()
                held = 0 if before is not None else await admin.throttled(admin.brokers()[0], 2**16)
                if quota == before and not held:
                    return "there is no quota" if before is None else f"the quota is {before:g} bytes/s again"
                if time.monotonic() > deadline:
                    raise FaultInert(f"the quota is {quota} (was {before}), a producer is held for {held} ms")
                await asyncio.sleep(_PAUSE)


FAULTS = (Kill, Stop, Restart, Slow, LeaderLost, NotEnoughReplicas, Throttled)
