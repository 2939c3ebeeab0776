"""A Kafka of several brokers without one of them: leaders move, or too few replicas are left."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.kafka.admin import administration
from dualstream_lab.faults.kafka.fault import KafkaFault
from dualstream_lab.tasks import in_thread

__all__ = ["LeaderLost", "NotEnoughReplicas"]

_MOVED = 30.0  # s; a broker that is gone is missed after 4 on the local stack, 9 by default
_PAUSE = 0.2
_ENOUGH = "min.insync.replicas"


class LeaderLost(KafkaFault):
    """Every partition is unavailable until the dead broker is missed: followers must leave the ISR."""

    name = "kafka.leader-lost"
    says = "the broker that leads most partitions is killed: others take over; it is back at the end"
    needs_stack = True
    brokers = 3
    _lost = 0
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
        self._lost, self._since = lost, time.monotonic()
        await in_thread(self.process(lost).kill)

    async def bites(self) -> str:
        """Others lead its partitions."""
        await self.until(
            lambda partitions: all(partitions[number].leader not in {self._lost, -1} for number in self._led),
            _MOVED,
        )
        return (
            f"broker {self._lost} led {len(self._led)} partitions; {time.monotonic() - self._since:.1f} s "
            "after its death others lead them"
        )

    async def end(self) -> None:
        """Start it."""
        if self._lost:
            await in_thread(self.process(self._lost).start)

    async def ended(self) -> str:
        """It has all that it missed, as every replica has."""
        return f"broker {self._lost} is back; {await super().ended()}"


class NotEnoughReplicas(KafkaFault):
    """Who wants every replica's word gets an error that may pass: so it is tried again, and again.

    More replicas cannot be asked for than a partition has (brokers then count those that there are): so it is
    all of them, and one broker is gone.
    """

    name = "kafka.not-enough-replicas"
    says = "min.insync.replicas becomes all, and a broker is killed: produces with acks=all are refused"
    needs_stack = True
    brokers = 3
    _lost = 0

    async def begin(self) -> None:
        """The setting of the topic, and SIGKILL to who leads least."""
        async with administration(self.target.direct) as admin:
            partitions = await admin.partitions()
            self.note(enough=await admin.topic_setting(_ENOUGH))
            copies = max(len(one.replicas) for one in partitions.values())
            await admin.set_topic_setting(_ENOUGH, str(copies))
        leads = Counter(one.leader for one in partitions.values())
        self._lost = min(range(1, self.brokers + 1), key=lambda node: leads[node])
        await in_thread(self.process(self._lost).kill)

    async def bites(self) -> str:
        """The leader of every partition refuses."""
        began, seen = time.monotonic(), {""}
        while time.monotonic() - began < _MOVED:
            seen = await self._answers()
            if seen == {"NotEnoughReplicasError"}:
                return (
                    f"a produce with acks=all to any partition is answered NotEnoughReplicas, "
                    f"{time.monotonic() - began:.1f} s after broker {self._lost} is gone"
                )
            await asyncio.sleep(_PAUSE)
        raise FaultInert(f"produces with acks=all are answered {', '.join(sorted(seen))}")

    async def end(self) -> None:
        """Start it, and the setting as it was."""
        if self._lost:
            await in_thread(self.process(self._lost).start)
        if self.found:
            async with administration(self.target.direct) as admin:
                await admin.set_topic_setting(_ENOUGH, self.found["enough"])

    async def ended(self) -> str:
        """Every leader takes produces, the setting is as it was."""
        whole = await super().ended()
        async with administration(self.target.direct) as admin:
            enough = await admin.topic_setting(_ENOUGH)
        if enough != self.found.get("enough", enough):
            raise FaultInert(f"{_ENOUGH} is {enough} (was {self.found['enough']})")
        if "NotEnoughReplicasError" in (seen := await self._answers()):
            raise FaultInert(f"produces with acks=all are answered {', '.join(sorted(seen))}")
        return f"{_ENOUGH} is {enough or 'the default'} again, {whole}"

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
