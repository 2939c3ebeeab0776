"""Looks into the store, joined: what is asked while one look is under way goes into the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from dualstream_lab.errors import StoreError
from dualstream_lab.gateway.past import Positions

if TYPE_CHECKING:
    from dualstream_lab.store import Page, Query, Store

_BATCH = 500  # queries of one look at most, about 10 ms where they find little
_ASKED = 10  # who is answered by one look at most: each may be far behind
_ROWS = 20_000  # that a look may find, about 0.1 s, before the next ones are made of fewer queries
_POLL = 0.005  # s

_Asked: TypeAlias = "tuple[Sequence[Query], asyncio.Future[list[Page]]]"


class Reads:
    """One look at a time, so that their answers come in the order of their snapshots.

    :meth:`run` is its task. Whoever asked acts on the answer before the next look ends. ``refusal``: why the
    store is not to be read; None while it is of the log that is served. ``hasten``: called while somebody
    waits for the store to come further; a processor of the same process need not rest then.
    """

    def __init__(self, store: Store, *, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._asked: deque[_Asked] = deque()
        self._most = _BATCH
        self._wake = asyncio.Event()
        self._waiting: list[tuple[Positions, asyncio.Future[None]]] = []
        self._waited = asyncio.Event()
        self._positions: dict[int, int] = {}  # they only grow, so that an old look is never wrong
        self.refusal: str | None = None
        self.hasten: Callable[[], None] = lambda: None

    @property
    def store(self) -> Store:
        """The store, to be read. Raises StoreError while it is not of the log that is served."""
        if self.refusal is not None:
            raise StoreError(self.refusal)
        return self._store

    async def pages(self, queries: Sequence[Query]) -> list[Page]:
        """A page a query, all of one snapshot that is taken from now on. Raises StoreError."""
        answer: asyncio.Future[list[Page]] = asyncio.get_running_loop().create_future()
        self._asked.append((queries, answer))
        self._wake.set()
        return await answer

    async def reach(self, positions: Positions, timeout: float) -> bool:
        """Wait until the store has everything below these offsets; False if it takes longer."""
        if self._has(positions):
            return True
        there = asyncio.get_running_loop().create_future()
        self._waiting.append((positions, there))
        self._waited.set()
        try:
            await asyncio.wait([there], timeout=timeout)
        finally:
            gave_up = there.cancel()  # nothing where it is done
        return not gave_up

    def forget(self) -> None:
        """The log was made anew: no position counts any more."""
        self._positions = {}

    async def run(self) -> None:
        """Work until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve_pages())
            group.create_task(self._watch_positions())

    def _has(self, positions: Positions) -> bool:
        known = self._positions
        return all(known.get(partition, 0) >= offset for partition, offset in positions.items())

    async def _serve_pages(self) -> None:
        while True:
            await self._wake.wait()
            batch: list[_Asked] = []
            count = 0
            while self._asked and len(batch) < _ASKED:
                if batch and count + len(self._asked[0][0]) > self._most:
                    break
                asked, answer = self._asked.popleft()
                if not answer.done():  # whoever asked may have left
                    batch.append((asked, answer))
                    count += len(asked)
            if not self._asked:
                self._wake.clear()
            if batch:
                await self._answer(batch)

    async def _watch_positions(self) -> None:
        while True:
            await self._waited.wait()
            self.hasten()
            with suppress(StoreError):
                places = await self.store.places()
                self._positions = {partition: place.position for partition, place in places.items()}
            waiting, self._waiting = self._waiting, []
            for positions, there in waiting:
                if there.done():
                    continue
                if self._has(positions):
                    there.set_result(None)
                else:
                    self._waiting.append((positions, there))
            if self._waiting:
                await asyncio.sleep(_POLL)
            else:
                self._waited.clear()

    async def _answer(self, batch: Sequence[_Asked]) -> None:
        queries = [query for asked, _ in batch for query in asked]
        try:
            pages = await self.store.pages(queries, self._limit)
        except StoreError as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        first = 0
        for asked, answer in batch:
            if not answer.done():
                answer.set_result(pages[first : first + len(asked)])
            first += len(asked)
        # Many who are far behind must not keep all others waiting, nor each other until they leave.
        rows = sum(len(page.rows) for page in pages)
        self._most = min(_BATCH, 2 * self._most) if rows <= _ROWS else max(1, len(pages) * _ROWS // rows)
