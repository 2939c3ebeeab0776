"""A store's claim on a log: that it holds this one, and from where each partition is to be read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import Final

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.kafka_log import Bounds, LogConsumer
from dualstream_lab.store import Store

log = logging.getLogger(__name__)

_BEYOND: Final = 5  # times that a position is found beyond the end before that is believed
_PAUSE: Final = 0.5  # s between them


class AnotherLog(StoreError):
    """The store does not hold what Kafka has: no waiting helps."""


class Claim:
    """Made anew after every change of the group.

    ``lost``: offsets that Kafka's retention took before they were read.
    """

    def __init__(self, settings: ServeSettings, store: Store) -> None:
        self._topic = settings.topic
        self._interval = settings.refresh_interval
        self._store = store
        self._epoch = ""
        self._look_at = 0.0
        self._beyond = self.lost = 0
        self.partitions = 0
        """That the topic had when it was last made."""

    async def make(self, consumer: LogConsumer) -> Bounds:
        """Tell the store where the partitions begin. Returns that, and where they end.

        Raises AnotherLog, StoreError; StreamUnavailable and ConfigError as :meth:`LogConsumer.identity`.
        """
        identity = await consumer.identity()
        bounds = await consumer.bounds(range(identity.partitions))
        places = await self._store.places()
        try:
            await self._store.begin(identity.epoch, bounds.begins)
        except StoreError as error:
            if await self._store.epoch() not in {None, identity.epoch}:
                raise AnotherLog(str(error)) from error
            raise
        self._epoch, self.partitions = identity.epoch, identity.partitions
        for partition, begin in bounds.begins.items():
            position = places[partition].position if partition in places else begin
            if position < begin:
                self.lost += begin - position
                sentence = (
                    "partition %d: offsets %d to %d went by Kafka's retention before they were processed"
                )
                log.warning(sentence, partition, position, begin - 1)
        return bounds

    async def positions(
        self, consumer: LogConsumer, partitions: Collection[int]
    ) -> tuple[dict[int, int], dict[int, str]]:
        """Make it; where to read on, and why that is not known of the others. Raises as :meth:`make`."""
        bounds = await self.make(consumer)
        places = await self._store.places()
        unread = {partition: bounds.refused.get(partition, "") for partition in partitions - places.keys()}
        if not all(unread.values()):
            raise StreamUnavailable(f"not every broker knows of partition {max(unread)} yet")
        known = {partition: places[partition].position for partition in partitions - unread.keys()}
        await self._check_ends(known, bounds.ends)
        return known, unread

    async def _check_ends(self, positions: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Raises StreamUnavailable where the log ends before a position, AnotherLog once that is sure.

        A new leader may learn where the log ends a little late.
        """
        beyond = [p for p, position in positions.items() if ends.get(p, position) < position]
        self._beyond = self._beyond + 1 if beyond else 0
        if not beyond:
            return
        partition = beyond[0]
        found = (
            f"partition {partition} of {self._topic} ends at {ends[partition]} and the store is at "
            f"{positions[partition]}"
        )
        if self._beyond < _BEYOND:
            await asyncio.sleep(_PAUSE)
            raise StreamUnavailable(found)
        raise AnotherLog(
            f"{found}: Kafka has lost a part of its log, or it was made anew; build the store anew: "
            "dualstream serve --rebuild-store, or choose another --store"
        )

    async def check(self, consumer: LogConsumer) -> None:
        """Whether the topic is still that log, once in a ``refresh_interval``. Raises as :meth:`make`.

        Asked in the way of what is applied, so that after a sleep nothing is taken from a topic that was made
        anew meanwhile.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        if (await consumer.identity()).epoch != self._epoch:
            await self.make(consumer)
        self._look_at = now + self._interval
