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
C = TypeVar("C", Reader, Writer)
_CLOSE_TIMEOUT = 5.0
# Long pasts keep no short look waiting, and pages of megabytes neither of them.
_THREADS = {"writing": Writer, "reading": Reader, "catching-up": Reader, "paging": Reader}


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
        """A thread that holds what ``make`` has made in it."""
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

    async def end(self) -> None:
        """Close what is in the thread, after all that was asked before, and end it, within seconds."""
        closing = asyncio.ensure_future(self.ask(lambda connection: connection.close()))
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
        """Hand the answers to those who asked; called in the event loop."""
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
        asked: Thread[C] | None = self._threads.get(thread)
        if asked is None:
            reason = "was opened read_only" if self._threads else "is closed"
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
        self._threads: dict[str, Thread[Any]] = {}

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the file; made if it is not there, unless ``read_only``.

        Raises StoreError, naming it and what to do: it cannot be opened or written to, is damaged, of another
        program or another version, or (``read_only``) not there.
        """
        store = cls(path)
        try:
            for name, kind in _THREADS.items():
                if kind is Reader or not read_only:
                    store._threads[name] = await Thread.started(f"store-{name}", partial(kind, path))
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """See :meth:`Store.close`."""
        threads, self._threads = self._threads, {}
        for thread in reversed(threads.values()):  # the writing one at last: it empties the write-ahead log
            await thread.end()

    epoch = _in_thread("reading", Reader.epoch)
    places = _in_thread("reading", Reader.places)
    pages = _in_thread("catching-up", Reader.pages)
    recent = _in_thread("paging", Reader.recent)
    at = _in_thread("reading", Reader.at)
    find = _in_thread("reading", Reader.find)
    feeders = _in_thread("reading", Reader.feeders)
    begin = _in_thread("writing", Writer.begin)
    apply = _in_thread("writing", Writer.apply)
    report = _in_thread("writing", Writer.report)
    _prune = _in_thread("writing", Writer.prune)

    async def prune(self, *, age: float, count: int, size: int = 2**62) -> int:
        """See :meth:`Store.prune`."""
        before = time.time_ns() - round(age * 1e9)
        removed = 0
        while chunk := await self._prune(before=before, count=count, size=size):
            removed += chunk
        return removed
