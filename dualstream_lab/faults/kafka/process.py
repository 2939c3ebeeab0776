"""Kafka gone, mute, slow, or throttled: what is done to a broker, or to all."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar, Final

from dualstream_lab.errors import FaultInert
from dualstream_lab.faults.evidence import until
from dualstream_lab.faults.fault import Fault, Parameter
from dualstream_lab.faults.kafka.admin import administration
from dualstream_lab.faults.kafka.fault import KafkaFault
from dualstream_lab.faults.kafka.replicas import LeaderLost, NotEnoughReplicas
from dualstream_lab.faults.network import Delayed
from dualstream_lab.faults.process import Kill, Restart, Stop

__all__ = ["FAULTS"]

_SPREAD = 30.0  # s for brokers to know of a quota, and to say so
_PAUSE = 0.1


class _Kill(Kill, KafkaFault):
    name = "kafka.kill"
    says = "the (first) Kafka broker is killed, and started again at the end: connections are refused"


class _Stop(Stop, KafkaFault):
    name = "kafka.stop"
    says = "the (first) Kafka broker is stopped in place (SIGSTOP): connections stay, nothing answers"


class _Restart(Restart, KafkaFault):
    name = "kafka.restart"
    says = "the (first) Kafka broker is killed and started at once"


class _Slow(Delayed):
    """Every request takes longer, and one at a time is all that a producer sends a broker."""

    name = "kafka.slow"
    says = "everything to and from every Kafka broker is late (through the fault proxy)"
    breaks = "kafka"
    parameters: ClassVar = (Parameter("delay_ms", 200, 1, 10_000, "each way"),)


class _Throttled(KafkaFault):
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
            self.note({"quota": await admin.quota()})
            await admin.set_quota(self.value["rate_kib"] * 1024)

    async def verify_active(self) -> str:
        """A broker says so to a producer that has sent what the quota allows in its window (11 s)."""
        piece = int(min(2**20, max(2**16, self.value["rate_kib"] * 1024)))
        most = piece + int(30 * self.value["rate_kib"] * 1024)
        sent, deadline = 0, time.monotonic() + _SPREAD
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
        if self.original:
            async with administration(self.target.direct) as admin:
                await admin.set_quota(self.original["quota"])

    async def verify_ended(self) -> str:
        """The quota is as before; if there was none, nobody is held back."""
        before = self.original.get("quota")
        async with administration(self.target.direct) as admin:

            async def differs() -> str:
                quota = await admin.quota()
                held = 0 if before is not None else await admin.throttled(admin.brokers()[0], 2**16)
                if quota == before and not held:
                    return ""
                return f"the quota is {quota} (was {before}), a producer is held for {held} ms"

            await until(differs, _SPREAD, _PAUSE)
        return "there is no quota" if before is None else f"the quota is {before:g} bytes/s again"


FAULTS: Final[tuple[type[Fault], ...]] = (
    _Kill, _Stop, _Restart, _Slow, LeaderLost, NotEnoughReplicas, _Throttled
)  # fmt: skip
