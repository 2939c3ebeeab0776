"""Kafka short of brokers, or throttled; and how the partitions of a topic are seen to be whole."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.evidence import KAFKA, Server, address_of, until
from dualstream_lab.faults.fault import Fault, Parameter, ServerFault
from dualstream_lab.faults.kafka.admin import Partition, administration
from dualstream_lab.kafka_log import open_consumer
from dualstream_lab.stack import ManagedProcess
from dualstream_lab.tasks import in_thread
from dualstream_lab.units import quantity

_BACK = 30.0  # s for a broker that returned to have all that it missed
_MOVED = 30.0  # s; a broker that is gone is missed after 4 on the local stack, 9 by default
_SPREAD = 30.0  # s for brokers to know of a quota, and to say so
_PAUSE = 0.1
_ENOUGH = "min.insync.replicas"


class KafkaFault(ServerFault):
    """A fault of Kafka, by default of the first broker."""

    breaks = "kafka"

    @property
    def process(self) -> ManagedProcess:
        """The process of the stack's first broker."""
        return self.stack.brokers[0]

    @property
    def server(self) -> Server:
        """The stack's first broker, past any proxy."""
        return Server(address_of(self.stack.kafka_url), KAFKA)

    async def partitions(self) -> Mapping[int, Partition]:
        """The topic's partitions, as a live broker sees them. Raises StreamUnavailable."""
        async with administration(self.target.direct) as admin:
            return await admin.partitions()

    async def until(self, true: Callable[[Mapping[int, Partition]], bool], within: float) -> float:
        """Wait until ``true`` says so of the partitions; how many s that took. Raises FaultInert."""

        async def differs() -> str:
            try:
                partitions = await self.partitions()
            except StreamUnavailable as error:
                return str(error)
            seen = "; ".join(f"partition {number}: {one}" for number, one in partitions.items())
            return "" if true(partitions) else f"seen after {within:g} s: {seen}"

        return await until(differs, within, _PAUSE)

    async def verify_ended(self) -> str:
        """See that every partition has a leader, which answers, and all of its replicas."""
        await self.until(lambda partitions: all(one.whole for one in partitions.values()), _BACK)
        numbers = list(await self.partitions())
        async with open_consumer(self.target.direct) as consumer:

            async def refused() -> str:
                return "; ".join((await consumer.bounds(numbers)).refused.values())

            await until(refused, _BACK, _PAUSE)
        whole = quantity(
            len(numbers),
            "partition has all its replicas, and says where it ends",
            "partitions have all their replicas, and say where they end",
        )
        return f"all {whole}" if len(numbers) > 1 else whole


class _BrokerLost(KafkaFault):
    """A broker of three, chosen by what it leads, is killed."""

    needs_stack = True
    brokers = 3
    _lost = 0

    async def kill(self, lost: int) -> None:
        self._lost = lost
        await in_thread(self.stack.brokers[lost - 1].kill)

    async def end(self) -> None:
        if self._lost:
            await in_thread(self.stack.brokers[self._lost - 1].start)


class _LeaderLost(_BrokerLost):
    """Every partition is unavailable until the dead broker is missed: followers must leave the ISR."""

    name = "kafka.leader-lost"
    says = "the broker that leads most partitions is killed: others take over; it is back at the end"
    _led: frozenset[int] = frozenset()

    async def begin(self) -> None:
        partitions = await self.partitions()
        leads = Counter(one.leader for one in partitions.values() if one.leader > 0)
        if not leads:
            raise FaultInert("no partition has a leader to lose")
        lost = leads.most_common(1)[0][0]
        self._led = frozenset(number for number, one in partitions.items() if one.leader == lost)
        await self.kill(lost)

    async def verify_active(self) -> str:
        seconds = await self.until(
            lambda partitions: all(partitions[number].leader not in {self._lost, -1} for number in self._led),
            _MOVED,
        )
        led = quantity(len(self._led), "partition")
        others = "another leads it" if len(self._led) == 1 else "others lead them"
        return f"broker {self._lost} led {led}; {seconds:.1f} s after its death {others}"

    async def verify_ended(self) -> str:
        return f"broker {self._lost} is back; {await super().verify_ended()}"


class _NotEnoughReplicas(_BrokerLost):
    """A producer that wants every replica's word gets an error that may pass, and tries again and again.

    More replicas cannot be asked for than a partition has (brokers then count those that there are): so it is
    all of them, and one broker is gone.
    """

    name = "kafka.not-enough-replicas"
    says = "min.insync.replicas becomes all, and a broker is killed: produces with acks=all are refused"

    async def begin(self) -> None:
        """Change the setting of the topic, and kill the broker that leads least."""
        async with administration(self.target.direct) as admin:
            partitions = await admin.partitions()
            self.note({_ENOUGH: await admin.topic_setting(_ENOUGH)})
            replication_factor = max(len(one.replicas) for one in partitions.values())
            await admin.set_topic_setting(_ENOUGH, str(replication_factor))
        leads = Counter(one.leader for one in partitions.values())
        await self.kill(min(range(1, self.brokers + 1), key=lambda node: leads[node]))

    async def verify_active(self) -> str:
        async def differs() -> str:
            answers = await self._answers()
            refused = answers == "NotEnoughReplicasError"
            return "" if refused else f"produces with acks=all are answered {answers}"

        seconds = await until(differs, _MOVED, _PAUSE)
        return (
            f"a produce with acks=all to any partition is answered NotEnoughReplicas, {seconds:.1f} s after "
            f"broker {self._lost} is gone"
        )

    async def end(self) -> None:
        await super().end()
        if self.original:
            async with administration(self.target.direct) as admin:
                await admin.set_topic_setting(_ENOUGH, self.original[_ENOUGH])

    async def verify_ended(self) -> str:
        whole = await super().verify_ended()
        async with administration(self.target.direct) as admin:
            enough = await admin.topic_setting(_ENOUGH)
        if enough != self.original.get(_ENOUGH, enough):
            raise FaultInert(f"{_ENOUGH} is {enough} (was {self.original[_ENOUGH]})")
        if "NotEnoughReplicasError" in (answers := await self._answers()):
            raise FaultInert(f"produces with acks=all are answered {answers}")
        return f"{_ENOUGH} is {enough or 'the default'} again, {whole}"

    async def _answers(self) -> str:
        """Ask the leaders to write what is never written; the names of their errors."""
        try:
            async with administration(self.target.direct) as admin:
                partitions = await admin.partitions()
                answers = {
                    await admin.try_to_write(number, one.leader) if one.leader > 0 else "no leader"
                    for number, one in partitions.items()
                }
        except StreamUnavailable as error:
            return str(error)
        return ", ".join(sorted(answers))


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
        """Set the quota that clients have by default."""
        async with administration(self.target.direct) as admin:
            self.note({"quota": await admin.quota()})
            await admin.set_quota(self.value["rate_kib"] * 1024)

    async def verify_active(self) -> str:
        """Send what the quota allows in its window (11 s), until a broker says that it holds us back."""
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
        if self.original:
            async with administration(self.target.direct) as admin:
                await admin.set_quota(self.original["quota"])

    async def verify_ended(self) -> str:
        """See that the quota is as before and, if there was none, that nobody is held back."""
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


FAULTS: Final[tuple[type[Fault], ...]] = (_LeaderLost, _NotEnoughReplicas, _Throttled)
