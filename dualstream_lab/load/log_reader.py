"""Reads all that comes into a topic: what is true of a run, a proof or a check in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.kafka_log import LogConsumer, LogIdentity, LogWatch, Records, open_consumer
from dualstream_lab.ledger.seconds import UNREAD
from dualstream_lab.recording import Meter
from dualstream_lab.tasks import beside, end_tasks

_FETCH_WAIT: Final = 100  # ms that Kafka may wait for more
_TRIES: Final = 3  # of a partition in trouble, before a reading that is to end gives it up


class LogReader:
    """Every partition of a topic, from where it ended at first; those that are added, from their beginning.

    ``take(part, now)`` gets what was read of a partition, in its order, committed records only; ``now``: ns,
    monotonic. A partition that cannot be read stops no other. For one task at a time, but for :meth:`lag`.
    Made by :func:`open_log_reader`.
    """

    def __init__(
        self, settings: Settings, consumer: LogConsumer, identity: LogIdentity,
        take: Callable[[Records, int], None], skipped: Mapping[int, str],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._consumer = consumer
        self._take = take
        self._skipped = skipped
        self._watch = LogWatch(
            identity, interval=settings.refresh_interval, ask=consumer.identity, on_change=self._change
        )
        self._added: list[int] = []
        self._paused: Mapping[int, int] | None = None
        self._made_anew = False
        self._holes = 0

    async def run(self) -> None:
        """Read on, until cancelled. Raises StreamUnavailable when the consumer has died."""

        async def read_on() -> None:
            while True:
                await self._read()

        watching = asyncio.create_task(self._watch.run())
        try:
            await beside([watching], read_on())
        finally:
            await end_tasks([watching])

    def pause(self) -> None:
        """Fetch nothing, until :meth:`finish`."""
        if self._paused is None:
            self._paused = dict(self._consumer.positions)
            self._consumer.assign({})

    async def lag(self) -> int:
        """How many committed messages are not read yet. Raises StreamUnavailable."""
        ends = await self._consumer.ends(list(self._consumer.positions))
        # Asked a moment before: the position may be ahead.
        return sum(max(0, end - self._consumer.positions.get(p, end)) for p, end in ends.items())

    async def finish(self, timeout: float) -> list[str]:
        """Read on to where all partitions end now, for at most ``timeout`` s.

        Returns what was not read, or not even asked for, as sentences; none: all that was in the topic when
        this was called, and was not aborted, was taken.
        """
        if self._paused is not None:
            self._consumer.assign(self._paused)
            self._paused = None
        ends: dict[int, int] = {}
        problems: list[str] = []
        try:
            async with asyncio.timeout(timeout):
                identity = await self._watch.look()
                if not self._made_anew:
                    ends, refused = await self._ends(range(identity.partitions))
                    problems += [f"partition {p} was not read: {why}" for p, why in sorted(refused.items())]
                while any(self._awaits(partition, end) for partition, end in ends.items()):
                    await self._read()
        except (StreamUnavailable, ConfigError) as error:
            problems.append(str(error))
        except TimeoutError:
            if not ends:
                problems.append(f"Kafka did not say within {timeout:g} s where the topic ends")
        return problems + self._unread(ends)

    async def _ends(self, partitions: Iterable[int]) -> tuple[dict[int, int], dict[int, str]]:
        """The end of each, with what open transactions hold back; and why that is not known of others.

        What was acknowledged until now may lie behind somebody's open transaction.
        """
        asked = [partition for partition in partitions if partition not in self._skipped]
        ends, refused = await self._consumer.apart(self._consumer.high_watermarks, asked)
        return ends, {**self._skipped, **refused}

    def _awaits(self, partition: int, end: int) -> bool:
        """Whether more of it is to be read, and can be."""
        trouble = self._consumer.troubles.get(partition)
        hopeless = trouble is not None and trouble.tries > _TRIES
        return not hopeless and self._consumer.positions.get(partition, 0) < end

    async def _read(self) -> None:
        if self._made_anew:
            self._consumer.assign({})  # its offsets mean something else now
        elif self._added:
            self._consumer.add(dict.fromkeys(self._added, 0))
            self._added = []
        parts = await self._consumer.poll(Records, timeout=0.2)
        now = time.monotonic_ns()
        for part in parts:
            self._holes += sum(end - first for first, end in part.holes)
            self._take(part, now)

    def _change(self, before: LogIdentity, after: LogIdentity) -> None:
        self._made_anew = self._made_anew or before.epoch != after.epoch
        self._added += range(before.partitions, after.partitions)

    def _unread(self, ends: Mapping[int, int]) -> list[str]:
        found = []
        held = self._consumer.held()
        for partition, end in sorted(ends.items()):
            left = end - self._consumer.positions.get(partition, 0)
            trouble = self._consumer.troubles.get(partition)
            if left <= 0:
                continue
            if trouble is not None:
                why = f"partition {partition} {trouble}"
            elif partition in held:
                why = f"an open transaction holds back {held[partition]:,} messages of partition {partition}"
            else:
                why = f"{left:,} messages of partition {partition} were not read in time"
            found.append(why)
        if self._holes:
            found.append(f"{self._holes:,} messages were removed (compaction) before they could be read")
        if self._made_anew:
            found.append(f"topic {self._settings.topic} was made anew meanwhile")
        return found


@asynccontextmanager
async def open_log_reader(
    settings: Settings, take: Callable[[Records, int], None], **options: Any
) -> AsyncIterator[LogReader]:
    """A reader from where the topic ends now. ``options``: as of :func:`open_consumer`.

    A partition that does not say where it ends is left out, which is said in the end. Raises
    StreamUnavailable when Kafka does not answer, ConfigError where the topic is not there.
    """
    async with open_consumer(settings, **{"fetch_max_wait_ms": _FETCH_WAIT, **options}) as consumer:
        identity = await consumer.identity()
        bounds = await consumer.bounds(range(identity.partitions))
        if not bounds.ends:
            raise StreamUnavailable(f"topic {settings.topic} cannot be read: {bounds.refused[0]}")
        consumer.assign(bounds.ends)
        yield LogReader(settings, consumer, identity, take, bounds.refused)


def record_unread(meter: Meter, unread: Sequence[str]) -> None:
    """What :meth:`LogReader.finish` said: else nobody can say what the log does not have."""
    for reason in unread:
        meter.count(f"{UNREAD}{reason}")
    meter.level("consumed.caught_up", float(not unread))
