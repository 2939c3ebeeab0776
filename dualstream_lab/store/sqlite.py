"""The store in one SQLite file: the contract, on three threads."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast

from dualstream_lab.errors import StoreError
from dualstream_lab.store.reading import Reader
from dualstream_lab.store.writing import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from dualstream_lab.store.contract import Feeder, Hole, Page, Place, Query, StoredEvent

__all__ = ["SqliteStore", "Thread"]

T = TypeVar("T")
C = TypeVar("C")
_Answered: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"


class Thread(Generic[C]):
    """What is asked while it is at work is answered in the same turn: a hop between threads costs as much as
    a short query. Made by :meth:`started`.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._asked: deque[tuple[Callable[[C], Any], asyncio.Future[Any]]] = deque()
        self._busy = False
        self._connection: C | None = None

    @classmethod
    async def started(cls, name: str, make: Callable[[], C]) -> Self:
        """With what ``make`` makes in it."""
        thread = cls(name)
        try:
            thread._connection = await thread._loop.run_in_executor(thread._executor, make)
        except BaseException:
            thread._executor.shutdown(wait=False)
            raise
        return thread

    async def ask(self, question: Callable[[C], T]) -> T:
        """What is begun is ended, also if whoever waits for it is cancelled."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._asked.append((question, answer))
        if not self._busy:
            self._busy = True
            self._executor.submit(self._turn)
        return await answer

    async def end(self, last: Callable[[C], None], timeout: float) -> None:
        """``last`` is the last that is done, within the time."""
        closing = asyncio.ensure_future(self.ask(last))
        await asyncio.wait([closing], timeout=timeout)
        self._executor.shutdown(wait=False)
        if closing.done():
            closing.result()

    def _turn(self) -> None:
        """In the thread. What came first does not wait for what comes while it is answered."""
        ended = False
        while not ended:
            done = [self._answered(*self._asked.popleft()) for _ in range(len(self._asked))]
            ended = not self._asked
            self._loop.call_soon_threadsafe(self._tell, done, ended)

    def _answered(self, question: Callable[[C], Any], answer: asyncio.Future[Any]) -> _Answered:
        try:
            return answer, question(cast("C", self._connection)), None
        except BaseException as error:  # noqa: BLE001  (raised where it was asked)
            return answer, None, error

    def _tell(self, done: list[_Answered], ended: bool) -> None:
        """In the loop again."""
        for answer, result, error in done:
            if answer.done():  # whoever asked has left
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)
        if ended:
            self._busy = bool(self._asked)
            if self._busy:
                self._executor.submit(self._turn)


_CLOSE_TIMEOUT = 5.0


class SqliteStore:
    """A :class:`Store` in one file, with SQLite's write-ahead log beside it.

    Several processes may open one file: readers never wait; transactions of writers wait for each other. What
    is applied survives ``kill -9``; a power cut may take the last transactions, whole. Then the position is
    older, too, and they are applied again. Where a source was first is remembered for ever. Made by
    :meth:`open`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading: Thread[Reader] | None = None
        self._paging: Thread[Reader] | None = None  # pages of megabytes keep no short look waiting
        self._writing: Thread[Writer] | None = None

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the file; made if it is not there, unless ``read_only``.

        Raises StoreError, naming it and what to do: it cannot be opened or written to, is damaged, of another
        program or another version, or (``read_only``) not there.
        """
        store = cls(path)
        try:
            if not read_only:
                store._writing = await Thread.started("store-writing", partial(Writer, path))
            store._reading = await Thread.started("store-reading", partial(Reader, path))
            store._paging = await Thread.started("store-paging", partial(Reader, path))
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """See :meth:`Store.close`."""
        readers = self._reading, self._paging
        writing = self._writing
        self._reading = self._paging = self._writing = None
        for reader in readers:
            if reader is not None:
                await reader.end(Reader.close, _CLOSE_TIMEOUT)
        if writing is not None:  # the last, so that it can empty the write-ahead log
            await writing.end(Writer.close, _CLOSE_TIMEOUT)

    async def epoch(self) -> str | None:
        """See :meth:`Store.epoch`."""
        return await self._read(Reader.epoch)

    async def places(self) -> dict[int, Place]:
        """See :meth:`Store.places`."""
        return await self._read(Reader.places)

    async def pages(self, queries: Sequence[Query], limit: int) -> list[Page]:
        """See :meth:`Store.pages`."""
        return await self._read(partial(Reader.pages, queries=queries, limit=limit))

    async def recent(
        self,
        source: str,
        *,
        limit: int,
        after: Mapping[int, int] | None = None,
        max_bytes: int = 2**62,
    ) -> tuple[Page, list[StoredEvent]]:
        """See :meth:`Store.recent`."""
        question = partial(Reader.recent, source=source, limit=limit, after=after, max_bytes=max_bytes)
        return await self._asked(self._paging, question)

    async def at(self, partition: int, offset: int) -> StoredEvent | None:
        """See :meth:`Store.at`."""
        return await self._read(partial(Reader.at, partition=partition, offset=offset))

    async def find(self, event_id: str, *, source: str | None = None, limit: int = 100) -> list[StoredEvent]:
        """See :meth:`Store.find`."""
        return await self._read(partial(Reader.find, event_id=event_id, source=source, limit=limit))

    async def begin(self, epoch: str, first: Mapping[int, int]) -> None:
        """See :meth:`Store.begin`."""
        await self._write(partial(Writer.begin, epoch=epoch, first=first))

    async def apply(
        self,
        partition: int,
        first: int,
        next_: int,
        events: Sequence[StoredEvent],
        holes: Sequence[Hole] = (),
    ) -> int:
        """See :meth:`Store.apply`."""
        return await self._write(
            partial(Writer.apply, partition=partition, first=first, next_=next_, events=events, holes=holes)
        )

    async def prune(self, *, age: float, count: int, size: int = 2**62) -> int:
        """See :meth:`Store.prune`."""
        before = time.time_ns() - round(age * 1e9)
        removed = 0
        while chunk := await self._write(partial(Writer.prune, before=before, count=count, size=size)):
            removed += chunk
        return removed

    async def report(
        self, name: str, *, group: str, partitions: Collection[int], troubles: Mapping[str, str]
    ) -> None:
        """See :meth:`Store.report`."""
        await self._write(
            partial(Writer.report, name=name, group=group, partitions=partitions, troubles=troubles)
        )

    async def feeders(self) -> list[Feeder]:
        """See :meth:`Store.feeders`."""
        return await self._read(Reader.feeders)

    async def _read(self, question: Callable[[Reader], T]) -> T:
        return await self._asked(self._reading, question)

    async def _asked(self, reader: Thread[Reader] | None, question: Callable[[Reader], T]) -> T:
        if reader is None:
            raise StoreError(f"store {self._path} is closed")
        return await reader.ask(question)

    async def _write(self, change: Callable[[Writer], T]) -> T:
        if self._writing is None:
            reason = "is closed" if self._reading is None else "was opened read_only"
            raise StoreError(f"store {self._path} {reason}")
        return await self._writing.ask(change)
