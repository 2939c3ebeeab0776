"""What was received and not yet handed out: bounded, in order, and it never loses what is looked at."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Inbox"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue of at most ``limit`` items for one writer and one reader; a full one makes the writer wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: T) -> None:
        """Wait for room."""
        while len(self._items) >= self._limit:
            self._room.clear()
            await self._room.wait()
        self._items.append(item)
        self._arrived.set()

    def take(self) -> T:
        """The oldest; IndexError when there is none."""
        item = self._items.popleft()
        self._room.set()
        return item

    def wake(self) -> None:
        """Let the reader look, though nothing arrived."""
        self._arrived.set()

    async def wait(self) -> None:
        """Until something arrives, or :meth:`wake`."""
        if not self._items:
            self._arrived.clear()
            await self._arrived.wait()
