"""Where partitions end, asked of Kafka; calls that come together share an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dualstream_lab.errors import StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from dualstream_lab.config import Settings
    from dualstream_lab.kafka_log.client import LogClient

__all__ = ["LogEnds"]


class LogEnds:
    """The last stable offset of each partition: what a reader of committed events can come to.

    :meth:`run` is its task. An answer that was requested before a call is never given to that call. A
    partition, or a broker, that cannot be asked fails those who asked for it, and nobody else waits for it.
    """

    def __init__(self, settings: Settings, consumer: LogClient) -> None:
        self._timeout = settings.request_timeout
        self._consumer = consumer
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._busy: set[Hashable] = set()  # leaders that are being asked
        self._wake = asyncio.Event()
        self.known: dict[int, int] = {}
        """The last answers: the log reaches at least so far."""

    async def end(self, partition: int) -> int:
        """The offset after the partition's last stable record, asked from now on; else StreamUnavailable."""
        return (await self.ends([partition]))[partition]

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """As :meth:`end`, of several. Raises StreamUnavailable if one of them cannot be asked."""
        asked = {partition: self._ask(partition) for partition in partitions}
        if not asked:
            return {}
        try:
            # The question before it, and its own: together with others, and then alone.
            async with asyncio.timeout(4 * self._timeout):
                return {partition: await asyncio.shield(future) for partition, future in asked.items()}
        except TimeoutError as error:
            raise StreamUnavailable("Kafka does not say where its log ends") from error

    def _ask(self, partition: int) -> asyncio.Future[int]:
        future = self._asked.get(partition)
        if future is None:
            future = self._asked[partition] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return future

    async def run(self) -> None:
        """Until cancelled: answer what is asked, of each broker one question at a time."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for leader, partitions in (await self._consumer.leaders(list(self._asked))).items():
                    if leader not in self._busy:
                        self._busy.add(leader)
                        group.create_task(self._answer(leader, {p: self._asked.pop(p) for p in partitions}))

    async def _answer(self, leader: Hashable, asked: Mapping[int, asyncio.Future[int]]) -> None:
        await self._answer_all(asked)
        self._busy.discard(leader)
        if self._asked:
            self._wake.set()

    async def _answer_all(self, asked: Mapping[int, asyncio.Future[int]]) -> None:
        try:
            ends = await self._consumer.ends(asked)
        except StreamUnavailable as error:
            if len(asked) > 1:  # one of them may be the trouble of all
                await asyncio.gather(*(self._answer_all({p: future}) for p, future in asked.items()))
                return
            for future in asked.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # whoever asked may have left
        else:
            self.known.update(ends)
            for partition, end in ends.items():
                if not asked[partition].done():
                    asked[partition].set_result(end)
