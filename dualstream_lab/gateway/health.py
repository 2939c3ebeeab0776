"""Whether a gateway can serve, and what is not as it should be: sampled every second, told at ``/readyz``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from dualstream_lab.config import ServeSettings
from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.log import Log
from dualstream_lab.gateway.past import Lag, Positions
from dualstream_lab.gateway.reads import Reads
from dualstream_lab.kafka_log import LogClient
from dualstream_lab.store import Feeder, Store

_EVERY: Final = 1.0  # s
_SEEN: Final = 6.0  # s since a processor's last word, given every two, in which it counts as alive
_OLD: Final = 3.0  # s without a new look after which the one before says nothing any more
_LISTED: Final = 20  # partitions that are named


class Health:
    """What is known of Kafka, the store and its processors (``feeders``: those alive). :meth:`run` it.

    ``held``: what open transactions hold back, in messages by partition. ``beside``: what is wrong with a
    processor in the same process; empty: nothing, or there is none.
    """

    def __init__(
        self, settings: ServeSettings, log: Log, store: Store, reads: Reads, consumer: LogClient
    ) -> None:
        self._settings = settings
        self._log = log
        self._store = store
        self._reads = reads
        self._consumer = consumer
        self._looked_at = float("-inf")
        self._covered: dict[int, float] = {}
        self._kafka = self._store_says = "it has not been asked yet"
        self._first = asyncio.Event()
        self.lag = Lag()
        self.held: Positions = {}
        self.feeders: list[Feeder] = []
        self._last_feeder: Feeder | None = None
        self.beside: Callable[[], str] = str

    async def run(self) -> None:
        """Work until it is cancelled."""
        while True:
            began = time.monotonic()
            await self._check()
            self._first.set()
            await asyncio.sleep(max(0.0, began + _EVERY - time.monotonic()))

    def renew(self) -> None:
        """The log was made anew: the store is not read before it is known to be of this one."""
        self._reads.refusal = "the topic was made anew; whether the store is of it has not been looked at yet"
        self._reads.forget()
        self.lag.forget()
        self._covered.clear()

    async def _check(self) -> None:
        ends, away = await self._log.each_end(range(self._log.identity.partitions))
        self._kafka = next(iter(away.values()), "up")
        if ends and away:
            self._kafka = f"{_named(away)}: {self._kafka}"
        try:
            await self._ask_store(ends)
            self._store_says = "up"
        except StoreError as error:
            self._store_says = self._without_path(str(error))
        try:
            self.held = await self._consumer.behind_transactions(ends)
        except StreamUnavailable:
            self.held = {}
        self._looked_at = time.monotonic()

    async def _ask_store(self, ends: Positions) -> None:
        epoch = self._log.identity.epoch
        held = await self._store.epoch()
        places = await self._store.places()
        feeders = await self._store.feeders()
        if epoch != self._log.identity.epoch:
            return
        if held not in {None, epoch}:
            self._reads.refusal = (
                f"{self._settings.store.name} holds another log (epoch {held}; the topic's is {epoch}): "
                "`dualstream serve --rebuild-store` moves it away and fills a new one"
            )
            self.feeders = []
            raise StoreError(self._reads.refusal)
        self._reads.refusal = None
        now = time.monotonic()
        positions = {partition: place.position for partition, place in places.items()}
        self._log.reached(positions)
        self.lag.sample(now, ends, positions)
        self.feeders = [feeder for feeder in feeders if feeder.seen <= _SEEN]
        self._last_feeder = feeders[0] if feeders else None
        for feeder in self.feeders:
            self._covered.update(dict.fromkeys(feeder.partitions, now))

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether it can serve, and of each part ``up``, or what is wrong; as of the last look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_OLD):
                await self._first.wait()
        age = time.monotonic() - self._looked_at
        kafka = self._kafka if age <= _OLD else f"no answer for {min(age, 1e6):.0f} s"
        parts = {"kafka": kafka, "store": self._store_says, "processor": self.processor()}
        ready = all(said == "up" for said in parts.values())
        if self.held:
            parts["open_transactions"] = f"{sum(self.held.values()):,} messages wait in {_named(self.held)}"
        return ready, parts

    def processor(self) -> str:
        """``up``, or why what is published does not come into the store."""
        wrong = self._silence() or self._uncovered() or self._troubled() or self._behind()
        return self._without_path("; ".join(filter(None, (self.beside(), wrong)))) or "up"

    def _without_path(self, reason: str) -> str:
        """The reason with the store's file name only: whoever asks is not told where the store is."""
        return reason.replace(str(self._settings.store), self._settings.store.name)

    def _behind(self) -> str:
        lag, most = self.lag, self._settings.ready_lag
        partitions = [partition for partition in lag.messages if lag.seconds(partition) > most]
        if not partitions:
            return ""
        seconds, lacks = lag.longest(partitions), sum(lag.messages[partition] for partition in partitions)
        return f"{_named(partitions)}: the store is {seconds:.0f} s behind the log, by {lacks:,} messages"

    def _silence(self) -> str:
        if self.feeders:
            return ""
        silence = "no processor feeds this store"
        if last := self._last_feeder:
            silence += f"; the last one, of group {last.group}, was seen {last.seen:.0f} s ago"
        return silence

    def _uncovered(self) -> str:
        since = time.monotonic() - _SEEN
        missing = [p for p in range(self._log.identity.partitions) if self._covered.get(p, 0.0) < since]
        if not missing:
            return ""
        groups = ", ".join(sorted({feeder.group for feeder in self.feeders}))
        perhaps = f"perhaps one of group {groups} that feeds another store"
        return f"{_named(missing)}: no processor that feeds this store has them; {perhaps}"

    def _troubled(self) -> str:
        said = {f"{part}: {why}" for feeder in self.feeders for part, why in feeder.troubles.items()}
        return "; ".join(sorted(said)[:_LISTED])

    @property
    def troubled_partitions(self) -> int:
        """How many partitions a processor cannot read on in."""
        names = {part for feeder in self.feeders for part in feeder.troubles}
        return sum(1 for name in names if name.startswith("partition "))


def _named(partitions: Iterable[int]) -> str:
    """``partition 3``, or ``partitions 3, 4``."""
    numbers = sorted(partitions)
    listed = ", ".join(map(str, numbers[:_LISTED])) + (", …" if len(numbers) > _LISTED else "")
    return f"partition {listed}" if len(numbers) == 1 else f"partitions {listed}"
