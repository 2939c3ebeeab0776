"""What the faults of Kafka have in common: brokers, and how a topic's partitions are seen to be whole."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dualstream_lab.errors import FaultInert, StackError, StreamUnavailable
from dualstream_lab.faults.evidence import address_of
from dualstream_lab.faults.fault import Fault
from dualstream_lab.faults.kafka.admin import administration
from dualstream_lab.kafka_log import open_consumer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dualstream_lab.faults.evidence import Address
    from dualstream_lab.faults.kafka.admin import Partition
    from dualstream_lab.stack import LocalStack, ManagedProcess

__all__ = ["KafkaFault"]

_BACK = 30.0  # s for a broker that returned to have all that it missed
_PAUSE = 0.1


class KafkaFault(Fault):
    """A fault of Kafka."""

    breaks = "kafka"

    @property
    def stack(self) -> LocalStack:
        """Raises StackError where the brokers are not ours."""
        if self.target.stack is None:
            raise StackError("this Kafka is not of the local stack")
        return self.target.stack

    def process(self, node: int) -> ManagedProcess:
        """Of a broker of the stack, from 1."""
        return self.stack.brokers[node - 1]

    def address(self, node: int) -> Address:
        """Of a broker of the stack, past any proxy."""
        return address_of(self.stack.kafka_url.split(",")[node - 1])

    async def partitions(self) -> Mapping[int, Partition]:
        """Of the topic, as a live broker sees them. Raises StreamUnavailable."""
        async with administration(self.target.direct) as admin:
            return await admin.partitions()

    async def until(self, true: Callable[[Mapping[int, Partition]], bool], within: float) -> float:
        """How many s it takes until that is true of the partitions. Raises FaultInert."""
        began = time.monotonic()
        while True:
            try:
                partitions = await self.partitions()
                if true(partitions):
                    return time.monotonic() - began
                seen = "; ".join(f"partition {number}: {one}" for number, one in partitions.items())
            except StreamUnavailable as error:
                seen = str(error)
            if time.monotonic() - began > within:
                raise FaultInert(f"seen after {within:g} s: {seen}")
            await asyncio.sleep(_PAUSE)

    async def ended(self) -> str:
        """Every partition has a leader, which answers, and all of its replicas."""
        await self.until(lambda partitions: all(one.whole for one in partitions.values()), _BACK)
        numbers = list(await self.partitions())
        began = time.monotonic()
        async with open_consumer(self.target.direct) as consumer:
            while refused := (await consumer.bounds(numbers)).refused:
                if time.monotonic() - began > _BACK:
                    raise FaultInert(f"seen after {_BACK:g} s: {'; '.join(refused.values())}")
                await asyncio.sleep(_PAUSE)
        return f"all {len(numbers)} partitions have all their replicas, and say where they end"
