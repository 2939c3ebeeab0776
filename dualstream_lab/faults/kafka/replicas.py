"""A Kafka of several brokers without one of them: leaders move, or too few replicas are left."""

from __future__ import annotations

import time
from collections import Counter

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.evidence import until
from dualstream_lab.faults.kafka.admin import administration
from dualstream_lab.faults.kafka.fault import KafkaFault
from dualstream_lab.tasks import in_thread

__all__ = ["LeaderLost", "NotEnoughReplicas"]

_MOVED = 30.0  # s; a broker that is gone is missed after 4 on the local stack, 9 by default
_PAUSE = 0.2
_ENOUGH = "min.insync.replicas"


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


class LeaderLost(_BrokerLost):
    """Every partition is unavailable until the dead broker is missed: followers must leave the ISR."""

    name = "kafka.leader-lost"
    says = "the broker that leads most partitions is killed: others take over; it is back at the end"
    _led: frozenset[int] = frozenset()
    _since = 0.0

    async def begin(self) -> None:
        """Find it, and SIGKILL."""
        partitions = await self.partitions()
        leads = Counter(one.leader for one in partitions.values() if one.leader > 0)
        if not leads:
            raise FaultInert("no partition has a leader to lose")
        lost = leads.most_common(1)[0][0]
        self._led = frozenset(number for number, one in partitions.items() if one.leader == lost)
        self._since = time.monotonic()
        await self.kill(lost)

    async def verify_active(self) -> str:
        """Others lead its partitions."""
        await self.until(
            lambda partitions: all(partitions[number].leader not in {self._lost, -1} for number in self._led),
            _MOVED,
        )
        return (
            f"broker {self._lost} led {len(self._led)} partitions; {time.monotonic() - self._since:.1f} s "
            "after its death others lead them"
        )

    async def verify_ended(self) -> str:
        """It has all that it missed, as every replica has."""
        return f"broker {self._lost} is back; {await super().verify_ended()}"


class NotEnoughReplicas(_BrokerLost):
    """Who wants every replica's word gets an error that may pass: so it is tried again, and again.

    More replicas cannot be asked for than a partition has (brokers then count those that there are): so it is
    all of them, and one broker is gone.
    """

    name = "kafka.not-enough-replicas"
    says = "min.insync.replicas becomes all, and a broker is killed: produces with acks=all are refused"

    async def begin(self) -> None:
        """The setting of the topic, and SIGKILL to who leads least."""
        async with administration(self.target.direct) as admin:
            partitions = await admin.partitions()
            self.note({_ENOUGH: await admin.topic_setting(_ENOUGH)})
            replication_factor = max(len(one.replicas) for one in partitions.values())
            await admin.set_topic_setting(_ENOUGH, str(replication_factor))
        leads = Counter(one.leader for one in partitions.values())
        await self.kill(min(range(1, self.brokers + 1), key=lambda node: leads[node]))

    async def verify_active(self) -> str:
        """The leader of every partition refuses."""

        async def differs() -> str:
            answers = await self._answers()
            return "" if answers == {"NotEnoughReplicasError"} else self._answered(answers)

        seconds = await until(differs, _MOVED, _PAUSE)
        return (
            f"a produce with acks=all to any partition is answered NotEnoughReplicas, {seconds:.1f} s after "
            f"broker {self._lost} is gone"
        )

    async def end(self) -> None:
        """Start it, and the setting as it was."""
        await super().end()
        if self.original:
            async with administration(self.target.direct) as admin:
                await admin.set_topic_setting(_ENOUGH, self.original[_ENOUGH])

    async def verify_ended(self) -> str:
        """Every leader takes produces, the setting is as it was."""
        whole = await super().verify_ended()
        async with administration(self.target.direct) as admin:
            enough = await admin.topic_setting(_ENOUGH)
        if enough != self.original.get(_ENOUGH, enough):
            raise FaultInert(f"{_ENOUGH} is {enough} (was {self.original[_ENOUGH]})")
        if "NotEnoughReplicasError" in (answers := await self._answers()):
            raise FaultInert(self._answered(answers))
        return f"{_ENOUGH} is {enough or 'the default'} again, {whole}"

    @staticmethod
    def _answered(answers: set[str]) -> str:
        return f"produces with acks=all are answered {', '.join(sorted(answers))}"

    async def _answers(self) -> set[str]:
        """Of the leaders, to what would never be written."""
        try:
            async with administration(self.target.direct) as admin:
                partitions = await admin.partitions()
                return {
                    await admin.try_to_write(number, one.leader) if one.leader > 0 else "no leader"
                    for number, one in partitions.items()
                }
        except StreamUnavailable as error:
            return {str(error)}
