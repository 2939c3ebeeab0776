"""The store in one SQLite file: the contract, on three threads."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from dualstream_lab.errors import StoreError
from dualstream_lab.store.reading import Reader
from dualstream_lab.store.thread import Thread
from dualstream_lab.store.writing import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from dualstream_lab.store.contract import Feeder, Hole, Page, Place, Query, StoredEvent

__all__ = ["SqliteStore"]

T = TypeVar("T")
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
