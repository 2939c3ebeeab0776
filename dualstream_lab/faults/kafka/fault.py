"""What the faults of Kafka have in common: brokers, and how a topic's partitions are seen to be whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.faults.evidence import KAFKA, address_of, until
from dualstream_lab.faults.kafka.admin import administration
from dualstream_lab.faults.process import ServerFault
from dualstream_lab.kafka_log import open_consumer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dualstream_lab.faults.evidence import Address
    from dualstream_lab.faults.kafka.admin import Partition
    from dualstream_lab.stack import ManagedProcess

__all__ = ["KafkaFault"]

_BACK = 30.0  # s for a broker that returned to have all that it missed
_PAUSE = 0.1


class KafkaFault(ServerFault):
    """A fault of Kafka, by default of the first broker."""

    breaks = "kafka"
    dialect = KAFKA

    @property
    def process(self) -> ManagedProcess:
        """Of the stack's first broker."""
        return self.stack.brokers[0]

    @property
    def address(self) -> Address:
        """Of the stack's first broker, past any proxy."""
        return address_of(self.stack.kafka_url)

    async def partitions(self) -> Mapping[int, Partition]:
        """Of the topic, as a live broker sees them. Raises StreamUnavailable."""
        async with administration(self.target.direct) as admin:
            return await admin.partitions()

    async def until(self, true: Callable[[Mapping[int, Partition]], bool], within: float) -> float:
        """How many s it takes until that is true of the partitions. Raises FaultInert."""

        async def differs() -> str:
            try:
                partitions = await self.partitions()
            except StreamUnavailable as error:
                return str(error)
            seen = "; ".join(f"partition {number}: {one}" for number, one in partitions.items())
            return "" if true(partitions) else f"seen after {within:g} s: {seen}"

        return await until(differs, within, _PAUSE)

    async def verify_ended(self) -> str:
        """Every partition has a leader, which answers, and all of its replicas."""
        await self.until(lambda partitions: all(one.whole for one in partitions.values()), _BACK)
        numbers = list(await self.partitions())
        async with open_consumer(self.target.direct) as consumer:

            async def refused() -> str:
                return "; ".join((await consumer.bounds(numbers)).refused.values())

            await until(refused, _BACK, _PAUSE)
        return f"all {len(numbers)} partitions have all their replicas, and say where they end"
