"""Where partitions end, asked of Kafka; calls that come together share an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dualstream_lab.errors import StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dualstream_lab.config import Settings
    from dualstream_lab.kafka_log.consumer import LogConsumer

__all__ = ["LogEnds"]


class LogEnds:
    """The last stable offset of each partition: what a reader of committed events can come to.

    :meth:`run` is its task. An answer that was requested before a call is never given to that call. A
    partition that cannot be asked fails those who asked for it, and nobody else.
    """

    def __init__(self, settings: Settings, consumer: LogConsumer) -> None:
        self._timeout = settings.request_timeout
        self._consumer = consumer
        self._asked: dict[int, asyncio.Future[int]] = {}
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
            async with asyncio.timeout(3 * self._timeout):
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
        """Until cancelled: answer what is asked."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            asked, self._asked = self._asked, {}
            try:
                self._answer(asked, await self._consumer.ends(asked))
            except StreamUnavailable as error:
                await self._ask_each(asked, error)

    async def _ask_each(self, asked: Mapping[int, asyncio.Future[int]], error: StreamUnavailable) -> None:
        """One of them may be the trouble of all."""
        if len(asked) == 1:
            self._refuse(asked, error)
            return

        async def ask(partition: int, future: asyncio.Future[int]) -> None:
            try:
                self._answer({partition: future}, await self._consumer.ends([partition]))
            except StreamUnavailable as own:
                self._refuse({partition: future}, own)

        await asyncio.gather(*(ask(partition, future) for partition, future in asked.items()))

    def _answer(self, asked: Mapping[int, asyncio.Future[int]], ends: Mapping[int, int]) -> None:
        self.known.update(ends)
        for partition, end in ends.items():
            if not asked[partition].done():
                asked[partition].set_result(end)

    def _refuse(self, asked: Mapping[int, asyncio.Future[int]], error: StreamUnavailable) -> None:
        for future in asked.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever asked may have left
