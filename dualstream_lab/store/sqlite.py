"""The store in one SQLite file: the contract, on four threads."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from dualstream_lab.errors import StoreError
from dualstream_lab.store.reading import Reader
from dualstream_lab.store.writing import Writer

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
_CLOSE_TIMEOUT = 5.0


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

    async def end(self, last: Callable[[C], None]) -> None:
        """``last`` is the last that is done, within seconds."""
        closing = asyncio.ensure_future(self.ask(last))
        await asyncio.wait([closing], timeout=_CLOSE_TIMEOUT)
        self._executor.shutdown(wait=False)
        if closing.done():
            closing.result()

    def _turn(self) -> None:
        """In the thread. What came first does not wait for what comes while it is answered."""
        ended = False
        while not ended:
            answered = [self._answered(*self._asked.popleft()) for _ in range(len(self._asked))]
            ended = not self._asked
            self._loop.call_soon_threadsafe(self._report, answered, ended)

    def _answered(
        self, question: Callable[[C], Any], answer: asyncio.Future[Any]
    ) -> tuple[asyncio.Future[Any], Callable[[], None]]:
        try:
            return answer, partial(answer.set_result, question(cast("C", self._connection)))
        except BaseException as error:  # noqa: BLE001  (raised where it was asked)
            return answer, partial(answer.set_exception, error)

    def _report(self, answered: list[tuple[asyncio.Future[Any], Callable[[], None]]], ended: bool) -> None:
        """In the loop again."""
        for answer, report in answered:
            if not answer.done():  # else whoever asked has left
                report()
        if ended:
            self._busy = bool(self._asked)
            if self._busy:
                self._executor.submit(self._turn)


def _in_thread(
    thread: str, work: Callable[Concatenate[C, P], T]
) -> Callable[Concatenate[SqliteStore, P], Coroutine[Any, Any, T]]:
    """A method of the store: this work of a Reader or a Writer, in its thread."""

    @wraps(work)
    async def method(self: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked: Thread[C] | None = getattr(self, thread)
        if asked is None:
            reason = "is closed" if self._reading is None else "was opened read_only"
            raise StoreError(f"store {self._path} {reason}")
        return await asked.ask(lambda connection: work(connection, *args, **kwargs))

    return method


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
        self._catching_up: Thread[Reader] | None = None  # long pasts keep no short look waiting,
        self._paging: Thread[Reader] | None = None  # and pages of megabytes neither of them
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
            store._catching_up = await Thread.started("store-catching-up", partial(Reader, path))
            store._paging = await Thread.started("store-paging", partial(Reader, path))
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """See :meth:`Store.close`."""
        readers = self._reading, self._catching_up, self._paging
        writing = self._writing
        self._reading = self._catching_up = self._paging = self._writing = None
        for reader in readers:
            if reader is not None:
                await reader.end(Reader.close)
        if writing is not None:  # the last, so that it can empty the write-ahead log
            await writing.end(Writer.close)

    epoch = _in_thread("_reading", Reader.epoch)
    places = _in_thread("_reading", Reader.places)
    pages = _in_thread("_catching_up", Reader.pages)
    recent = _in_thread("_paging", Reader.recent)
    at = _in_thread("_reading", Reader.at)
    find = _in_thread("_reading", Reader.find)
    feeders = _in_thread("_reading", Reader.feeders)
    begin = _in_thread("_writing", Writer.begin)
    apply = _in_thread("_writing", Writer.apply)
    report = _in_thread("_writing", Writer.report)
    _prune = _in_thread("_writing", Writer.prune)

    async def prune(self, *, age: float, count: int, size: int = 2**62) -> int:
        """See :meth:`Store.prune`."""
        before = time.time_ns() - round(age * 1e9)
        removed = 0
        while chunk := await self._prune(before=before, count=count, size=size):
            removed += chunk
        return removed
