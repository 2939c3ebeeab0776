"""What a fault does again and again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dualstream_lab.errors import FaultInert, StreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Repeated"]

_STOP = 20.0  # s: a server that is being started when the repetition ends is waited for


class Repeated:
    """Does something again and again, ``pause`` s between, until :meth:`stop`."""

    def __init__(self, action: Callable[[], Awaitable[None]], pause: float) -> None:
        self._action = action
        self._pause = pause
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._action()
            await asyncio.sleep(self._pause)

    def check(self) -> None:
        """Raises FaultInert if it ended before :meth:`stop`; a StackError of its own is raised as it is."""
        if self._task.done() and not self._task.cancelled():
            try:
                self._task.result()
            except StreamUnavailable as error:
                raise FaultInert(f"it stopped by itself: {error}") from error

    async def stop(self) -> None:
        """End it and wait for its end. What it died of is for :meth:`check`."""
        self._task.cancel()
        await asyncio.wait([self._task], timeout=_STOP)
