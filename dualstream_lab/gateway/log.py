"""The log as a gateway knows it: which one it is, how far it goes, and where its sources are."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.gateway.tails import Tails
from dualstream_lab.kafka_log import LogEnds, LogWatch, partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dualstream_lab.config import ServeSettings
    from dualstream_lab.gateway.past import Positions
    from dualstream_lab.gateway.tails import Tail
    from dualstream_lab.kafka_log import LogConsumer, LogIdentity

__all__ = ["KafkaLog", "Log"]

log = logging.getLogger(__name__)

_MARGIN: Final = 10_000
"""Messages beyond the last known end that are believed: what comes in a second, until the next sample."""
_LOOKS: Final = 1.0  # s between looks at the topic that others than its watch ask for


class Log(Protocol):
    """What the gateway asks of Kafka."""

    @property
    def identity(self) -> LogIdentity:
        """The log, as it was seen last."""

    def homes(self, source: str) -> tuple[int, ...]:
        """The partitions that publishers write a source to: today's, and those of fewer partitions before."""

    @property
    def reach(self) -> Positions:
        """How far each partition goes, as far as is known, or may have grown since; one object."""

    @property
    def known(self) -> Positions:
        """Where its partitions ended when they were asked last."""

    async def ends(self, partitions: Iterable[int]) -> Positions:
        """Where committed messages end, asked from now on. Raises StreamUnavailable."""

    async def has(self, partitions: Iterable[int]) -> bool:
        """Whether it has these partitions; looks whether some were added."""

    async def read(self, source: str, partition: int, first: int, end: int) -> Tail:
        """The source's events from ``first`` to ``end``, or further. Raises StreamUnavailable."""


class KafkaLog:
    """As :class:`Log`. ``changed(before, after)`` is told when it grew, or was made anew. :meth:`run` it."""

    def __init__(
        self,
        settings: ServeSettings,
        identity: LogIdentity,
        consumer: LogConsumer,
        *,
        changed: Callable[[LogIdentity, LogIdentity], None],
    ) -> None:
        self._ends = LogEnds(settings, consumer)
        self._tails = Tails(settings)
        self._watch = LogWatch(
            identity, interval=settings.refresh_interval, ask=consumer.identity, on_change=self._change
        )
        self._changed = changed
        self._counts = {identity.partitions}
        self._highest: dict[int, int] = {}
        self.reach: dict[int, int] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = float("-inf")

    @property
    def identity(self) -> LogIdentity:
        """As :class:`Log`."""
        return self._watch.identity

    @property
    def known(self) -> Positions:
        """As :class:`Log`."""
        return self._highest

    def homes(self, source: str) -> tuple[int, ...]:
        """As :class:`Log`."""
        return tuple(dict.fromkeys(partition_of(source, count) for count in sorted(self._counts)))

    async def ends(self, partitions: Iterable[int]) -> Positions:
        """As :class:`Log`."""
        ends = await self._ends.ends(partitions)
        if any(end < self._highest.get(partition, 0) for partition, end in ends.items()):
            await self._look()  # it was made anew, or has lost a part: which one, before that is told
        self._know(ends)
        return ends

    async def has(self, partitions: Iterable[int]) -> bool:
        """As :class:`Log`."""
        highest = max(partitions, default=-1)
        if highest >= self.identity.partitions:
            await self._look()
        return highest < self.identity.partitions

    async def read(self, source: str, partition: int, first: int, end: int) -> Tail:
        """As :class:`Log`."""
        return await self._tails.read(source, partition, first, end)

    def reached(self, positions: Positions) -> None:
        """The store has come so far."""
        self._know({p: position for p, position in positions.items() if position > self._highest.get(p, 0)})

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._ends.run, self._tails.run, self._watch.run):
                    group.create_task(work())
        finally:
            if self._looking is not None:
                self._looking.cancel()

    def _know(self, ends: Positions) -> None:
        for partition, end in ends.items():
            self._highest[partition] = end
            self.reach[partition] = end + _MARGIN

    async def _look(self) -> None:
        """Look at the topic, once for all who want it, and not too often: strangers may ask for it."""
        loop = asyncio.get_running_loop()
        if self._looking is None and loop.time() - self._looked >= _LOOKS:
            self._looked = loop.time()
            self._looking = loop.create_task(self._look_now())
        if self._looking is not None:
            await asyncio.wait([self._looking])

    async def _look_now(self) -> None:
        try:
            await self._watch.look()
        except (StreamUnavailable, ConfigError) as error:
            log.info("the topic could not be looked at: %s", error)
        finally:
            self._looking = None

    def _change(self, before: LogIdentity, after: LogIdentity) -> None:
        if before.epoch != after.epoch:
            self._highest.clear()
            self.reach.clear()
            self._counts.clear()
        self._counts.add(after.partitions)
        self._changed(before, after)
