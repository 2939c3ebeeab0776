"""The adapter of aiokafka's consumer: the one place, with its neighbours here, that knows its inside.

aiokafka's own ``getmany()`` takes what is buffered of other partitions, moves their positions past it,
and then raises at the record that it cannot decode: what it had taken is never returned. So its fetches
are taken apart here, each partition by itself. What is private to it: the fetcher's records and a
partition's state (aiokafka is pinned to one minor version for that). What it does in trouble is in brackets
where it is guarded against.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import KafkaError

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log.client import LogClient
from dualstream_lab.kafka_log.connection import connecting
from dualstream_lab.kafka_log.fetched import Fetched, Records, unpack
from dualstream_lab.kafka_log.trouble import PartitionTrouble, Troubles

if TYPE_CHECKING:
    from aiokafka import TopicPartition

    from dualstream_lab.record import Record

_POLL: Final = 0.5  # s to wait for records
_MAX_RECORDS: Final = 5000
_ATTEND: Final = 1.0  # s between looks at which partitions Kafka answers for
_AGAIN: Final = 3  # such looks after a pause
_SILENCE: Final = 2  # request_timeouts without an answer for a partition that are a trouble of it

F = TypeVar("F", bound=Fetched)


class LogConsumer(LogClient):
    """Reads partitions of one topic, committed records only, from positions that its user sets.

    A codec, checksum or decoding error is its partition's alone: the others go on, no position moves over
    what was not returned, and it is tried again with growing pauses. ``troubles`` has the partitions that
    cannot be read now, also those that Kafka does not answer for; ``errors`` counts. Made by
    :func:`open_consumer`. For one task at a time.
    """

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        self.positions: dict[int, int] = {}
        """What is to be returned next, of the partitions that are read."""
        self._troubles = Troubles(settings.topic)
        self.troubles: Mapping[int, PartitionTrouble] = self._troubles.now
        """Why partitions cannot be read now, by partition."""
        self._paused: set[int] = set()
        self._attended = time.monotonic()
        self._unanswered: dict[int, int] = {}  # looks in a row at which there was no answer
        self._silence = round(_SILENCE * settings.request_timeout / _ATTEND) or 1

    @property
    def errors(self) -> int:
        """How often something could not be read, so far."""
        return self._troubles.count

    # --- what is read

    def assign(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from these offsets, and no others."""
        self._paused.clear()
        self._troubles.now.clear()
        self._assign(positions)

    def add(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, too. What is buffered of the others is fetched again."""
        self._assign({**self.positions, **positions})
        for partition in self._paused | self._troubles.paused():
            self._consumer.pause(self._target(partition))

    def pause(self, partition: int) -> None:
        """Stop fetching this partition."""
        self._paused.add(partition)
        self._troubles.now.pop(partition, None)
        self._consumer.pause(self._target(partition))

    def _assign(self, positions: Mapping[int, int]) -> None:
        self.positions = dict(positions)
        self._unanswered.clear()
        targets = [self._target(partition) for partition in positions]
        if targets:
            self._consumer.assign(targets)
        else:  # (assigning nothing would ask for all topics from then on)
            self._consumer.pause(*self._consumer.assignment())
        for target in targets:  # (which forgets what was fetched of it)
            self._consumer.seek(target, positions[target.partition])

    async def poll(
        self,
        make: Callable[[int, int], F],
        *,
        partitions: Collection[int] | None = None,
        timeout: float = _POLL,
        max_records: int = _MAX_RECORDS,
    ) -> list[F]:
        """What has come of the partitions that moved; [] after ``timeout`` s. Markers move them, too.

        ``make(partition, first)`` makes what each partition's records are put into. ``partitions``: of these
        only. Raises StreamUnavailable when the consumer has died, and only a new one helps.
        """
        self._before_poll()
        fetches = self._consumer._fetcher._records  # noqa: SLF001
        if not any(partitions is None or target.partition in partitions for target in fetches):
            if self.dead:
                raise StreamUnavailable("the Kafka consumer has died")
            try:
                async with asyncio.timeout(timeout):
                    await self._consumer._fetcher._create_fetch_waiter()  # noqa: SLF001
            except TimeoutError:
                pass
            except KafkaError as error:  # (of the group, told to whoever waits)
                raise StreamUnavailable(f"{self._topic} cannot be read: {error!r}") from error
        if not self._is_settled():
            return []
        drained = self._drain(make, partitions, max_records)
        self._attend()
        return drained

    def _before_poll(self) -> None:
        """A hook for members of a group: called before every poll."""

    def _is_settled(self) -> bool:
        """Whether ``positions`` are those of the partitions that are read."""
        return True

    def _drain(
        self, make: Callable[[int, int], F], partitions: Collection[int] | None, max_records: int
    ) -> list[F]:
        """Take out what was fetched, as the fetcher's own fetched_records() does it."""
        fetcher = self._consumer._fetcher  # noqa: SLF001
        drained: list[F] = []
        for target in list(fetcher._records):  # noqa: SLF001
            partition = target.partition
            if partitions is not None and partition not in partitions:
                continue
            if max_records <= 0:
                break
            fetched = fetcher._records[target]  # noqa: SLF001
            done = True
            if partition not in self.positions or partition in self._paused:
                pass  # it is not wanted any more
            elif not isinstance(fetched, FetchResult):
                self._fail(target, fetched._error, self.positions[partition])  # noqa: SLF001
            elif fetched.check_assignment(target):
                part, done = self._take(target, fetched, make, max_records)
                max_records -= len(part)
                if part.next_ > self.positions[partition]:
                    drained.append(part)
                self.positions[partition] = part.next_
            if done:
                fetcher._records.pop(target, None)  # noqa: SLF001
                fetcher._notify(fetcher._wait_consume_future)  # noqa: SLF001
        return drained

    def _take(
        self, target: TopicPartition, fetched: FetchResult, make: Callable[[int, int], F], room: int
    ) -> tuple[F, bool]:
        """What is good of it; and whether that is all that can be had of it."""
        records = fetched._partition_records  # noqa: SLF001
        part = make(target.partition, records.next_fetch_offset)
        whole = True
        error: Exception | None = None
        try:
            whole = unpack(records, part, room)
        except Exception as raised:  # noqa: BLE001  (codecs and parsers raise what they like)
            error = raised
        records.next_fetch_offset = part.next_
        fetched._update_position()  # noqa: SLF001
        # Nobody iterates over it, and with it each fetch would be a cycle for the garbage collector.
        records._records_iterator.close()  # noqa: SLF001
        if error is not None:
            self._fail(target, error, part.next_)
        elif part.next_ > self.positions[target.partition]:
            self._troubles.recover(target.partition)
        return part, whole or error is not None

    # --- trouble

    def _fail(self, target: TopicPartition, error: Exception, offset: int) -> None:
        self._troubles.fail(target.partition, offset, error)
        # (After a record that is too large aiokafka has moved on by one.)
        self._consumer.seek(target, offset)
        self._consumer.pause(target)

    def _attend(self) -> None:
        """Once a second: try again what is due, and notice what Kafka answers for, and what it does not.

        (A broker's error for a partition, and a partition without a leader, are never told.)
        """
        now = time.monotonic()
        if now - self._attended < _ATTEND:
            return
        self._attended = now
        silent = []
        for partition in self.positions.keys() - self._paused:
            target = self._target(partition)
            if self._troubles.is_paused(partition):
                if self._troubles.is_due(partition, now):
                    self._consumer.resume(target)
                    self._is_answered(target)  # what was before does not count
                    self._unanswered[partition] = max(0, self._silence - _AGAIN)
            elif self._is_answered(target):
                self._unanswered[partition] = 0
                if target not in self._consumer._fetcher._records:  # noqa: SLF001
                    self._troubles.recover(partition)
            else:
                self._unanswered[partition] = self._unanswered.get(partition, 0) + 1
                if self._unanswered[partition] >= self._silence:
                    silent.append(partition)
        # (What a broker answers with an error is asked for again at once, without end.)
        pause = len(silent) < len(self.positions)
        for partition in silent:
            self._troubles.silent(partition, self.positions[partition], pause=pause)
            if pause:
                self._consumer.pause(self._target(partition))

    def _is_answered(self, target: TopicPartition) -> bool:
        """Whether a fetch of it was answered since this was asked last."""
        state = self._consumer._subscription._assigned_state(target)  # noqa: SLF001
        answered = state.timestamp is not None or target in self._consumer._fetcher._records  # noqa: SLF001
        state.timestamp = None
        return answered

    @property
    def dead(self) -> bool:
        """Whether a task inside has ended: then no more comes, without an error, and only a new one helps."""
        return bool(self._consumer._fetcher.error_future.done())  # noqa: SLF001

    def held(self) -> dict[int, int]:
        """As :meth:`behind_transactions`, of the partitions that are read, as far as is known."""
        known = [(p, state) for p, state in self._states() if state.highwater is not None]
        return {p: state.highwater - state.lso for p, state in known if 0 <= state.lso < state.highwater}

    def _states(self) -> Iterator[tuple[int, Any]]:
        """What aiokafka knows of the partitions that are assigned: ``highwater``, ``lso``, ``timestamp``."""
        subscription = self._consumer._subscription.subscription  # noqa: SLF001
        if subscription is not None and subscription.assignment is not None:
            for target, state in subscription.assignment._tp_state.items():  # noqa: SLF001
                yield target.partition, state


@asynccontextmanager
async def open_consumer(settings: Settings, **options: Any) -> AsyncIterator[LogConsumer]:
    """A connected consumer that reads nothing yet; ended within seconds, also with a dead broker.

    ``options`` are aiokafka's, for fetch sizes and waits. Raises StreamUnavailable when Kafka does not answer
    within ``start_timeout``, ConfigError for its URL.
    """
    consumer = LogConsumer(settings, **options)
    try:
        async with connecting(settings):
            await consumer.start()
        yield consumer
    finally:
        await consumer.close()


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
