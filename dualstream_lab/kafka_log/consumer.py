"""The adapter of aiokafka's consumer: the one place, with ``group``, that knows its inside.

aiokafka's own ``getmany()`` takes what is buffered of other partitions, moves their positions past it,
and then raises at the record that it cannot decode: what it had taken is never returned. So its batches
are walked here, each partition by itself. What is private to it: the fetcher's records and the state of a
partition (aiokafka is pinned to one minor version for that). What it does in trouble is in parentheses where
it is guarded against.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException, KafkaError, OffsetOutOfRangeError

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log.topic import client_options, identity_of, unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping

    from aiokafka.consumer.fetcher import PartitionRecords

    from dualstream_lab.config import Settings
    from dualstream_lab.kafka_log.topic import LogIdentity
    from dualstream_lab.record import Record

__all__ = ["Fetched", "LogConsumer", "PartitionTrouble", "Records", "open_consumer"]

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT: Final = 2.0
_POLL: Final = 0.5  # s to wait for records
_MAX_RECORDS: Final = 5000
_PAUSES: Final = (0.5, 30.0)  # s until a partition in trouble is tried again: first, and at most
_WARN_EVERY: Final = 60.0  # s between warnings of one trouble
_READ_COMMITTED: Final = 1

T = TypeVar("T")


class Fetched(Protocol):
    """What :meth:`LogConsumer.poll` puts a partition's next records into: those with offsets below ``next_``.

    ``next_`` begins at the first offset and is moved on by the consumer, past what is no record as well.
    """

    next_: int

    def add(self, record: Record) -> None:
        """The next record."""

    def hole(self, first: int, end: int) -> None:
        """Offsets from ``first`` to before ``end`` are not in the log any more: compaction removed them."""

    def __len__(self) -> int:
        """How many were added."""


F = TypeVar("F", bound=Fetched)


class Records:
    """A partition's next records, as a list: a :class:`Fetched` for those who want no more."""

    def __init__(self, partition: int, first: int) -> None:
        self.partition = partition
        self.first = first
        self.next_ = first
        self.records: list[Record] = []
        self.holes: list[tuple[int, int]] = []

    def add(self, record: Record) -> None:
        """See :class:`Fetched`."""
        self.records.append(record)

    def hole(self, first: int, end: int) -> None:
        """See :class:`Fetched`."""
        self.holes.append((first, end))

    def __len__(self) -> int:
        return len(self.records)


@dataclass(slots=True, kw_only=True)
class PartitionTrouble:
    """Why a partition cannot be read on from ``offset``, since when (monotonic s), how often it was tried.

    ``removed``: the log does not have that offset any more (retention), or the topic was made anew.
    """

    offset: int
    reason: str
    removed: bool
    since: float = field(default_factory=time.monotonic)
    tries: int = 0
    retry_at: float = 0.0
    warned_at: float = float("-inf")


class LogConsumer:
    """Reads partitions of one topic, committed records only, from positions that its user sets.

    A codec, checksum or decoding error is its partition's alone: the others go on, no position moves over
    what was not returned, and it is tried again with growing pauses. ``troubles`` has the partitions that
    cannot be read now, ``errors`` counts. Made by :func:`open_consumer`. For one task at a time.
    """

    def __init__(self, settings: Settings, **options: Any) -> None:
        self._topic = settings.topic
        self._timeout = settings.request_timeout
        self._targets: dict[int, TopicPartition] = {}
        self.positions: dict[int, int] = {}
        """What is to be returned next, of the partitions that are read."""
        self.troubles: dict[int, PartitionTrouble] = {}
        self.errors = 0
        given = {
            "enable_auto_commit": False,
            "auto_offset_reset": "none",  # a jump would be a silent gap
            "isolation_level": "read_committed",
        }
        self._consumer = AIOKafkaConsumer(**client_options(settings), **(given | options))

    # --- what is read

    def assign(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from these offsets, and no others."""
        self.positions = dict(positions)
        self.troubles.clear()
        targets = [self._target(partition) for partition in positions]
        self._consumer.assign(targets)
        for target in targets:
            self._consumer.seek(target, positions[target.partition])

    def add(self, positions: Mapping[int, int]) -> None:
        """Read these partitions, too. What is buffered of the others is fetched again."""
        troubles = self.troubles.copy()
        self.assign(self.positions | positions)
        self.troubles |= troubles
        for partition in troubles:
            self._consumer.pause(self._target(partition))

    def pause(self, partition: int) -> None:
        """Fetch no more of it."""
        self._consumer.pause(self._target(partition))

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
        self._retry()
        fetcher = self._consumer._fetcher  # noqa: SLF001
        if not self._has_fetched(partitions):
            if self.dead:
                raise StreamUnavailable("the Kafka consumer has died")
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await fetcher._create_fetch_waiter()  # noqa: SLF001
        return self._drain(make, partitions, max_records) if self._is_settled() else []

    def _is_settled(self) -> bool:
        """Whether ``positions`` are those of the partitions that are read."""
        return True

    def _has_fetched(self, partitions: Collection[int] | None) -> bool:
        fetches = self._consumer._fetcher._records  # noqa: SLF001
        return bool(fetches) if partitions is None else any(t.partition in partitions for t in fetches)

    def _drain(
        self, make: Callable[[int, int], F], partitions: Collection[int] | None, max_records: int
    ) -> list[F]:
        """As the fetcher's own fetched_records() does it."""
        fetcher = self._consumer._fetcher  # noqa: SLF001
        drained: list[F] = []
        for target in list(fetcher._records):  # noqa: SLF001
            if partitions is not None and target.partition not in partitions:
                continue
            if max_records <= 0:
                break
            fetched = fetcher._records[target]  # noqa: SLF001
            done = True
            if not isinstance(fetched, FetchResult):
                self._fail(target, fetched._error)  # noqa: SLF001
            elif fetched.check_assignment(target):
                part, done = self._take(target, fetched, make, max_records)
                max_records -= len(part)
                if part.next_ > self.positions[target.partition]:
                    drained.append(part)
                self.positions[target.partition] = part.next_
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
        error: Exception | None = None
        whole = True
        try:
            whole = _walk(records, part, room)
        except Exception as raised:  # noqa: BLE001  (codecs and parsers raise what they like)
            error = raised
        records.next_fetch_offset = part.next_
        fetched._update_position()  # noqa: SLF001
        if error is not None:
            self._fail(target, error, part.next_)
        elif part.next_ > self.positions[target.partition]:
            self._recover(target.partition)
        return part, whole or error is not None

    # --- trouble

    def _fail(self, target: TopicPartition, error: Exception, offset: int | None = None) -> None:
        partition = target.partition
        offset = self.positions[partition] if offset is None else offset
        self.errors += 1
        removed = isinstance(error, OffsetOutOfRangeError)
        reason = "the log does not have it (any more)" if removed else str(error) or type(error).__name__
        trouble = self.troubles.get(partition)
        if trouble is None or trouble.offset != offset:
            trouble = self.troubles[partition] = PartitionTrouble(
                offset=offset, reason=reason, removed=removed
            )
        now = time.monotonic()
        trouble.retry_at = now + min(_PAUSES[0] * 2**trouble.tries, _PAUSES[1])
        trouble.tries += 1
        # (After a record that is too large aiokafka has moved on by one.)
        self._consumer.seek(target, offset)
        self._consumer.pause(target)
        if now - trouble.warned_at >= _WARN_EVERY:
            trouble.warned_at = now
            log.warning(
                "partition %d of %s cannot be read at offset %d: %s", partition, self._topic, offset, reason
            )

    def _retry(self) -> None:
        now = time.monotonic()
        for partition, trouble in self.troubles.items():
            if trouble.retry_at <= now:
                trouble.retry_at = float("inf")  # until it fails again
                self._consumer.resume(self._target(partition))

    def _recover(self, partition: int) -> None:
        if (trouble := self.troubles.pop(partition, None)) is not None:
            gone = time.monotonic() - trouble.since
            log.info("partition %d of %s can be read again, after %.1f s", partition, self._topic, gone)

    @property
    def dead(self) -> bool:
        """Whether a task inside has ended: then no more comes, without an error, and only a new one helps."""
        return bool(self._consumer._fetcher.error_future.done())  # noqa: SLF001

    # --- what is asked

    async def identity(self) -> LogIdentity:
        """Which log the topic is now. Raises StreamUnavailable, and ConfigError where the topic is gone."""
        asked = identity_of(self._consumer._client, self._topic)  # noqa: SLF001
        return await self._bounded(asked, "which log it is")

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The last stable offset of each: where committed records end. Raises StreamUnavailable."""
        targets = [self._target(partition) for partition in partitions]
        ends = await self._bounded(self._consumer.end_offsets(targets), "where it ends")
        return {target.partition: offset for target, offset in ends.items()}

    async def begins(self, partitions: Iterable[int]) -> dict[int, int]:
        """The first offset that the log still has, of each. Raises StreamUnavailable."""
        targets = [self._target(partition) for partition in partitions]
        begins = await self._bounded(self._consumer.beginning_offsets(targets), "where it begins")
        return {target.partition: offset for target, offset in begins.items()}

    async def at_time(self, timestamp: int, ends: Mapping[int, int]) -> dict[int, int]:
        """The first record of each partition that is not before a time (ms); its end where there is none."""
        asked = {self._target(partition): max(0, timestamp) for partition in ends}
        # (For a time behind the last stable offset it answers None, as for one behind the end.)
        found = await self._bounded(self._consumer.offsets_for_times(asked), "what it has of that time")
        return {t.partition: found[t].offset if found.get(t) else ends[t.partition] for t in asked}

    def held(self) -> dict[int, int]:
        """Messages that open transactions hold back, by partition, as far as was heard; without the zeros."""
        held = {}
        for target in self._consumer.assignment():
            high, stable = self._consumer.highwater(target), self._consumer.last_stable_offset(target)
            if high is not None and stable is not None and 0 <= stable < high:
                held[target.partition] = high - stable
        return held

    async def _bounded(self, asked: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(2 * self._timeout):
                return await asked
        except (KafkaError, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {2 * self._timeout:g} s"
            raise StreamUnavailable(f"Kafka does not say of {self._topic} {what}: {reason}") from error

    def _target(self, partition: int) -> TopicPartition:
        target = self._targets.get(partition)
        if target is None:
            target = self._targets[partition] = TopicPartition(self._topic, partition)
        return target

    # --- connection

    async def start(self) -> None:
        """Connect. Raises KafkaError, OSError; the caller bounds it."""
        await self._consumer.start()

    async def close(self) -> None:
        """Stop it and disconnect, within seconds, whatever the brokers do; never raises."""
        # (With a dead broker stop() raises CancelledError and leaves its client open.)
        stopping = asyncio.ensure_future(self._consumer.stop())
        await asyncio.wait([stopping], timeout=_CLOSE_TIMEOUT)
        if not stopping.done():
            stopping.cancel()
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._consumer._client.close()  # noqa: SLF001


@asynccontextmanager
async def open_consumer(settings: Settings, **options: Any) -> AsyncIterator[LogConsumer]:
    """A connected consumer that reads nothing yet; ended within seconds, also with a dead broker.

    ``options`` are aiokafka's, for fetch sizes and waits. Raises StreamUnavailable when Kafka does not answer
    within ``start_timeout``, ConfigError for its URL.
    """
    consumer = LogConsumer(settings, **options)
    try:
        try:
            async with asyncio.timeout(settings.start_timeout):
                await consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise unreachable(settings, error) from error
        yield consumer
    finally:
        await consumer.close()


def _walk(records: PartitionRecords, part: Fetched, room: int) -> bool:
    """Move what was fetched into ``part``; False if there is more. An error leaves in it what is good.

    As PartitionRecords does it, and it sees what is missing: within and between batches no offset is left out
    but by compaction.
    """
    memory = records._records  # noqa: SLF001
    while memory.has_next():
        if len(part) >= room:
            return False
        batch = memory.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"wrong CRC at or after offset {part.next_}")
        _skip_to(part, batch.base_offset)
        if not _left_out(records, batch):
            add = part.add
            for record in batch:
                if record.offset != part.next_:
                    if record.offset < part.next_:
                        continue
                    _skip_to(part, record.offset)
                add(record)
                part.next_ = record.offset + 1
            _skip_to(part, batch.next_offset)
        part.next_ = max(part.next_, batch.next_offset)
    return True


def _skip_to(part: Fetched, offset: int) -> None:
    if offset > part.next_:
        part.hole(part.next_, offset)
        part.next_ = offset


def _left_out(records: PartitionRecords, batch: Any) -> bool:
    """Whether a batch is a marker, or of an aborted transaction."""
    if records._isolation_level != _READ_COMMITTED or batch.producer_id is None:  # noqa: SLF001
        return bool(batch.is_control_batch)
    records._consume_aborted_up_to(batch.base_offset)  # noqa: SLF001
    if batch.is_control_batch:
        # (A marker that the log cleaner has emptied is a KafkaError, though it says nothing any more.)
        with suppress(KafkaError):
            if records._contains_abort_marker(batch):  # noqa: SLF001
                records._aborted_producers.discard(batch.producer_id)  # noqa: SLF001
        return True
    return bool(batch.is_transactional and batch.producer_id in records._aborted_producers)  # noqa: SLF001
