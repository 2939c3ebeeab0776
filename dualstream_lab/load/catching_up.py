"""Reading a topic to its end, by a consumer whose rows somebody else writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["catch_up"]

_LOOK = 0.02  # s
_WRITTEN = 0.05  # s that what was fetched last takes to the rows


async def catch_up(consumer: AIOKafkaConsumer, targets: Sequence[TopicPartition], timeout: float) -> bool:
    """Wait until it has read on to the log's end, as it is now; False if that takes too long."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    try:
        async with asyncio.timeout(timeout):
            for target, end in (await consumer.end_offsets(targets)).items():
                while await consumer.position(target) < end:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK)
    except (KafkaError, OSError, TimeoutError):
        return False
    await asyncio.sleep(_WRITTEN)
    return True
