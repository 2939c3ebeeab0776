"""A stretch of one partition."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log.consumer import open_consumer
from dualstream_lab.kafka_log.fetched import Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.config import Settings
    from dualstream_lab.record import Record

__all__ = ["read_range"]


async def read_range(
    settings: Settings, partition: int, first: int, end: int, *, limit: int
) -> Sequence[Record]:
    """All committed records of a partition with first <= offset < end; at most ``limit`` offsets.

    Raises StreamUnavailable, also when some of them are not in Kafka any more (retention, compaction), or
    cannot be decoded.
    """
    if end - first > limit:
        raise StreamUnavailable(f"{end - first:,} records are too many to read at once (at most {limit:,})")
    found: list[Record] = []
    async with open_consumer(settings) as consumer:
        try:
            # 50,000 records take a second, and several on a busy machine.
            async with asyncio.timeout(2 * settings.request_timeout):
                consumer.assign({partition: first})
                while consumer.positions[partition] < end:
                    for part in await consumer.poll(Records, timeout=0.2):
                        if any(hole < end for hole, _ in part.holes):
                            raise StreamUnavailable(f"partition {partition} was compacted behind {first}")
                        found += [record for record in part.records if record.offset < end]
                    if (trouble := consumer.troubles.get(partition)) is not None:
                        raise StreamUnavailable(
                            f"partition {partition} cannot be read at {trouble.offset}: {trouble.reason}"
                        )
        except TimeoutError as error:
            raise StreamUnavailable(f"partition {partition} could not be read: no answer") from error
    return found
