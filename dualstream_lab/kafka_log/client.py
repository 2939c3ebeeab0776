"""A connected client of aiokafka, and what it can be asked of the log."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.offset import OffsetRequest

from dualstream_lab.config import Settings
from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.kafka_log.connection import client_options
from dualstream_lab.kafka_log.topic import LogIdentity, identity_of
from dualstream_lab.tasks import end_tasks

_CLOSE_TIMEOUT: Final = 2.0
_PATIENCE: Final = 3.0  # s more for a topic that no broker knows (yet)
_PAUSE: Final = 0.1  # s before a question is asked again
_END, _BEGINNING = -1, -2  # as times
_UNCOMMITTED, _COMMITTED = 0, 1

T = TypeVar("T")


class Bounds(NamedTuple):
    """Where partitions begin and end (their last stable offset), and why some could not be asked."""

    begins: dict[int, int]
    ends: dict[int, int]
    refused: dict[int, str]


class LogClient:
    """Asks Kafka where a topic's partitions begin and end, and which log it is.

    All answers are of committed records. Any number of tasks may ask.
    """

    def __init__(self, settings: Settings, **options: Any) -> None:
        self._topic = settings.topic
        self._timeout = settings.request_timeout
        self._options = client_options(settings)
        self._consumer = AIOKafkaConsumer(
            **self._options,
            enable_auto_commit=False,
            auto_offset_reset="none",  # a jump would be a silent gap
            isolation_level="read_committed",
            **options,
        )

    async def start(self) -> None:
        """Connect. Raises KafkaError, OSError; the caller bounds it."""
        await self._consumer.start()

    async def close(self) -> None:
        """Stop it and disconnect, within seconds, whatever the brokers do; never raises."""
        # (With a dead broker stop() raises CancelledError and leaves its client open.)
        stopping = asyncio.create_task(self._consumer.stop())
        await asyncio.wait([stopping], timeout=_CLOSE_TIMEOUT)
        await end_tasks([stopping], timeout=_CLOSE_TIMEOUT)
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._consumer._client.close()  # noqa: SLF001

    async def identity(self) -> LogIdentity:
        """Which log the topic is now. Raises StreamUnavailable, and ConfigError where the topic is gone."""
        asked = identity_of(self._consumer._client, self._topic)  # noqa: SLF001
        return await self._bounded(asked, "which log it is", patience=_PATIENCE)

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The last stable offset of each: where committed records end. Raises StreamUnavailable."""
        return await self._offsets(dict.fromkeys(partitions, _END), "where it ends")

    async def begins(self, partitions: Iterable[int]) -> dict[int, int]:
        """The first offset that the log still has, of each. Raises StreamUnavailable."""
        return await self._offsets(dict.fromkeys(partitions, _BEGINNING), "where it begins")

    async def at_time(self, timestamp: int, ends: Mapping[int, int]) -> dict[int, int]:
        """The first record of each partition that is not before a time (ms); its end where there is none."""
        # (For a time behind the last stable offset Kafka answers -1, as for one behind the end.)
        found = await self._offsets(dict.fromkeys(ends, max(0, timestamp)), "what it has of that time")
        return {p: found[p] if found[p] >= 0 else end for p, end in ends.items()}

    async def bounds(self, partitions: Iterable[int]) -> Bounds:
        """Where each of the partitions begins and ends; see :meth:`apart`."""

        async def ask(group: list[int]) -> dict[int, tuple[int, int]]:
            begins, ends = await self.begins(group), await self.ends(group)
            return {partition: (begins[partition], ends[partition]) for partition in group}

        found, refused = await self.apart(ask, partitions)
        begins = {partition: begin for partition, (begin, _) in found.items()}
        return Bounds(begins, {partition: end for partition, (_, end) in found.items()}, refused)

    async def apart(
        self, ask: Callable[[list[int]], Awaitable[Mapping[int, T]]], partitions: Iterable[int]
    ) -> tuple[dict[int, T], dict[int, str]]:
        """Answers, by partition, and why there is none for the others: none of them stops another.

        ``ask`` is called for those of each broker together, and for each by itself where it raises
        StreamUnavailable: one of them, for example without a leader, may be the trouble of all.
        """
        found: dict[int, T] = {}
        refused: dict[int, str] = {}

        async def ask_together(group: list[int]) -> list[int]:
            """Returns those that are to be asked alone."""
            try:
                found.update(await ask(group))
            except StreamUnavailable as error:
                if len(group) > 1:
                    return group
                refused[group[0]] = str(error)
            return []

        async def ask_group(group: list[int]) -> None:  # (one that called itself would be a cycle)
            alone = await ask_together(group)
            await asyncio.gather(*(ask_together([partition]) for partition in alone))

        await asyncio.gather(*(ask_group(group) for group in (await self.leaders(partitions)).values()))
        return found, refused

    async def leaders(self, partitions: Iterable[int]) -> dict[Hashable, list[int]]:
        """Which are asked together: by the broker that leads them. One without a leader is alone.

        As far as is known. Never raises; a client's first call waits for Kafka, up to ``request_timeout``.
        """
        client = self._consumer._client  # noqa: SLF001
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await client.add_topic(self._topic)
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        for partition in partitions:
            leader = client.cluster.leader_for_partition(self._target(partition))
            groups[("none", partition) if leader in {None, -1} else leader].append(partition)
        return groups

    async def behind_transactions(self, partitions: Iterable[int]) -> dict[int, int]:
        """How many messages of each are behind the beginning of an open transaction, without the zeros.

        Raises StreamUnavailable.
        """
        stable = await self.ends(partitions)
        high = await self.high_watermarks(stable)
        return {p: high[p] - offset for p, offset in stable.items() if high[p] > offset}

    async def high_watermarks(self, partitions: Iterable[int]) -> dict[int, int]:
        """Where each ends, with what open transactions hold back. Raises StreamUnavailable."""
        times = dict.fromkeys(partitions, _END)
        return await self._offsets(times, "where it ends", isolation=_UNCOMMITTED)

    async def _offsets(
        self, times: Mapping[int, int], question: str, *, isolation: int = _COMMITTED
    ) -> dict[int, int]:
        return await self._bounded(self._insist(times, isolation), question)

    async def _insist(self, times: Mapping[int, int], isolation: int) -> dict[int, int]:
        """For as long as ``request_timeout``: a leader may have changed.

        (aiokafka's own way waits for metadata first, and that may be asked of the broker that is gone.)
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            try:
                groups = await self.leaders(times)
                asked = {leader: [(p, times[p]) for p in group] for leader, group in groups.items()}
                answers = await asyncio.gather(*(self._ask(*one, isolation) for one in asked.items()))
            except KafkaError as error:
                if not error.retriable or loop.time() > deadline:
                    raise
                self._consumer._client.force_metadata_update()  # noqa: SLF001
                await asyncio.sleep(_PAUSE)
            else:
                return {partition: offset for answer in answers for partition, offset in answer.items()}

    async def _ask(self, leader: Hashable, times: list[tuple[int, int]], isolation: int) -> dict[int, int]:
        """The first offset at or after a time; also _END, _BEGINNING."""
        if not isinstance(leader, int):
            raise LeaderNotAvailableError("it has no leader")
        request = OffsetRequest(-1, isolation, [(self._topic, times)])
        answer = await self._consumer._client.send(leader, request)  # noqa: SLF001
        offsets = {}
        for partition, code, _timestamp, offset in answer.topics[0][1]:
            if code:
                raise for_code(code)(f"partition {partition}")
            offsets[partition] = offset
        return offsets

    async def _bounded(self, asked: Awaitable[T], question: str, *, patience: float = 0.0) -> T:
        limit = 2 * self._timeout + patience
        try:
            async with asyncio.timeout(limit):
                return await asked
        except (KafkaError, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {limit:g} s"
            raise StreamUnavailable(f"Kafka does not say of {self._topic} {question}: {reason}") from error

    def _target(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)


class LogEnds:
    """The last stable offset of each partition: what a reader of committed events can come to.

    :meth:`run` is its task. An answer that was requested before a call is never given to that call. Nobody
    waits for a partition, or a broker, that somebody else has asked for.
    """

    def __init__(self, settings: Settings, consumer: LogClient) -> None:
        self._timeout = settings.request_timeout
        self._consumer = consumer
        self._asked: dict[int, asyncio.Future[int | str]] = {}
        self._busy: set[Hashable] = set()  # leaders that are being asked
        self._wake = asyncio.Event()

    async def ends(self, partitions: Iterable[int]) -> tuple[dict[int, int], dict[int, str]]:
        """The offsets after their last stable records, asked from now on; of others why that is not known."""
        asked = {partition: self._ask(partition) for partition in partitions}
        if asked:
            # The question before it, and its own: together with others, and then alone.
            await asyncio.wait(asked.values(), timeout=4 * self._timeout)
        ends: dict[int, int] = {}
        refused: dict[int, str] = {}
        for partition, future in asked.items():
            answer = future.result() if future.done() else "Kafka does not say where its log ends"
            if isinstance(answer, int):
                ends[partition] = answer
            else:
                refused[partition] = answer
        return ends, refused

    def _ask(self, partition: int) -> asyncio.Future[int | str]:
        future = self._asked.get(partition)
        if future is None:
            future = self._asked[partition] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return future

    async def run(self) -> None:
        """Work until it is cancelled: answer what is asked, of each broker one question at a time."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for leader, partitions in (await self._consumer.leaders(list(self._asked))).items():
                    if leader not in self._busy:
                        self._busy.add(leader)
                        group.create_task(self._answer(leader, {p: self._asked.pop(p) for p in partitions}))

    async def _answer(self, leader: Hashable, asked: Mapping[int, asyncio.Future[int | str]]) -> None:
        ends, refused = await self._consumer.apart(self._consumer.ends, asked)
        for partition, future in asked.items():
            future.set_result(ends[partition] if partition in ends else refused[partition])
        self._busy.discard(leader)
        if self._asked:
            self._wake.set()
