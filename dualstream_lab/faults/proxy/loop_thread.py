"""A thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from dualstream_lab.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["LoopThread"]

T = TypeVar("T")
_TIMEOUT = 10.0  # s


class LoopThread:
    """A thread with an event loop in it, from construction to :meth:`stop`."""

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this in the thread, and wait for it. Raises StackError if that takes longer than 10 s."""
        doing = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return doing.result(_TIMEOUT)
        except TimeoutError as error:
            doing.cancel()
            raise StackError(f"the fault proxy did not answer within {_TIMEOUT:g} s") from error

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT)
        if not self._thread.is_alive():
            self._loop.close()
