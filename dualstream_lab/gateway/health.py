"""Whether a gateway can serve, and what is not as it should be: sampled every second, told at ``/readyz``."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.lag import Lag

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.log import KafkaLog
    from dualstream_lab.gateway.past import Positions
    from dualstream_lab.gateway.reads import Reads
    from dualstream_lab.store import Feeder, Store

__all__ = ["Health", "Ready"]

_EVERY: Final = 1.0  # s
_SEEN: Final = 6.0  # s since a processor's last word, given every two, in which it counts as alive
_OLD: Final = 3.0  # s without a new look after which the one before says nothing any more
_LISTED: Final = 20  # partitions that are named


class Ready(NamedTuple):
    """``parts``: of each part ``up``, or what is wrong."""

    ready: bool
    parts: Mapping[str, str]


class Health:
    """What is known of Kafka, the store and its processors. :meth:`run` is its task.

    ``held``: asks what open transactions hold back. ``beside``: what is wrong with a
    processor in the same process; empty: nothing, or there is none.
    """

    def __init__(
        self,
        settings: ServeSettings,
        log: KafkaLog,
        store: Store,
        reads: Reads,
        *,
        held: Callable[[Iterable[int]], Awaitable[Positions]],
    ) -> None:
        self._settings = settings
        self._log = log
        self._store = store
        self._reads = reads
        self._ask_held = held
        self._looked_at = float("-inf")
        self._covered: dict[int, float] = {}
        self._kafka = self._store_says = "it has not been asked yet"
        self._first = asyncio.Event()
        self.lag = Lag()
        self.held: Positions = {}
        """Messages that open transactions hold back, by partition."""
        self.feeders: list[Feeder] = []
        """Processors that are alive."""
        self._last_feeder: Feeder | None = None
        self.beside: Callable[[], str] = str

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.monotonic()
            await self._look()
            self._first.set()
            await asyncio.sleep(max(0.0, began + _EVERY - time.monotonic()))

    def renew(self) -> None:
        """The log was made anew: the store is not read before it is known to be of this one."""
        self._reads.refusal = "the topic was made anew; whether the store is of it has not been looked at yet"
        self._reads.forget()
        self.lag.forget()
        self._covered.clear()

    # --- looking

    async def _look(self) -> None:
        partitions = range(self._log.identity.partitions)
        ends, self._kafka = await self._ask_ends(partitions)
        try:
            await self._ask_store(ends)
            self._store_says = "up"
        except StoreError as error:
            self._store_says = self._without_path(str(error))
        try:
            self.held = await self._ask_held(ends)
        except StreamUnavailable:
            self.held = {}
        self._looked_at = time.monotonic()

    async def _ask_ends(self, partitions: Iterable[int]) -> tuple[dict[int, int], str]:
        """Those that can be asked, and what is wrong with the others."""
        asked = list(partitions)
        answers = await asyncio.gather(
            *(self._log.ends([partition]) for partition in asked), return_exceptions=True
        )
        ends: dict[int, int] = {}
        silent: dict[int, str] = {}
        for partition, answer in zip(asked, answers, strict=True):
            if isinstance(answer, StreamUnavailable):
                silent[partition] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                ends.update(answer)
        if not silent:
            return ends, "up"
        reason = next(iter(silent.values()))
        return ends, reason if not ends else f"{_named(silent)}: {reason}"

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
        positions = {partition: place.position for partition, place in places.items()}
        now = time.monotonic()
        self._log.reached(positions)
        self.lag.sample(now, ends, positions)
        self.feeders = [feeder for feeder in feeders if feeder.seen <= _SEEN]
        self._last_feeder = feeders[0] if feeders else None
        for feeder in self.feeders:
            self._covered.update(dict.fromkeys(feeder.partitions, now))

    # --- what is said

    async def ready(self) -> Ready:
        """As of the last look."""
        if not self._first.is_set():
            try:
                async with asyncio.timeout(_OLD):
                    await self._first.wait()
            except TimeoutError:
                pass
        age = time.monotonic() - self._looked_at
        kafka = self._kafka if age <= _OLD else f"no answer for {min(age, 1e6):.0f} s"
        parts = {"kafka": kafka, "store": self._store_says, "processor": self.processor()}
        ready = all(said == "up" for said in parts.values())
        if self.held:
            parts["open_transactions"] = f"{sum(self.held.values()):,} messages wait in {_named(self.held)}"
        return Ready(ready, parts)

    def processor(self) -> str:
        """``up``, or why what is published does not come into the store."""
        wrong = self._silence() or self._uncovered() or self._troubled() or self._behind()
        return self._without_path("; ".join(filter(None, (self.beside(), wrong)))) or "up"

    def _without_path(self, reason: str) -> str:
        """Whoever asks is not told where the store is."""
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
        last = self._last_feeder
        when = (
            "" if last is None else f"; the last one, of group {last.group}, was heard {last.seen:.0f} s ago"
        )
        return f"no processor feeds this store{when}"

    def _uncovered(self) -> str:
        since = time.monotonic() - _SEEN
        missing = [p for p in range(self._log.identity.partitions) if self._covered.get(p, 0.0) < since]
        if not missing:
            return ""
        groups = ", ".join(sorted({feeder.group for feeder in self.feeders}))
        return (
            f"{_named(missing)}: no processor that feeds this store has them; perhaps one of group {groups} "
            "that feeds another store"
        )

    def _troubled(self) -> str:
        said = {f"{part}: {why}" for feeder in self.feeders for part, why in feeder.troubles.items()}
        return "; ".join(sorted(said)[:_LISTED])

    @property
    def troubled_partitions(self) -> int:
        """Partitions that a processor cannot read on in."""
        names = {part for feeder in self.feeders for part in feeder.troubles}
        return sum(1 for name in names if name.startswith("partition "))


def _named(partitions: Iterable[int]) -> str:
    """``partitions 3, 4``."""
    numbers = sorted(partitions)
    listed = ", ".join(map(str, numbers[:_LISTED])) + (", …" if len(numbers) > _LISTED else "")
    return f"partition {listed}" if len(numbers) == 1 else f"partitions {listed}"
