"""Ctrl-C while something is measured: it ends in order, and an impatient second one loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Self, TypeVar

T = TypeVar("T")
_ENDING = b"ending already: what was recorded is kept and summed up; once more gives that up\n"


class Interrupts:
    """Within the ``with`` block SIGTERM is as Ctrl-C. The first one cancels what :meth:`run` runs, or else
    raises KeyboardInterrupt; the second one only says that it is ending; the third raises KeyboardInterrupt.

    A signal that is ignored (``nohup``) stays so.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._cancel: Callable[[], object] | None = None
        self._count = 0

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def run(
        self,
        work: Coroutine[Any, Any, T],
        runner: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run,
    ) -> T:
        """Run this in a loop of its own. Raises KeyboardInterrupt if a signal ends it without a result."""

        async def main() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None  # noqa: S101
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                return await work
            finally:
                self._cancel = None

        try:
            return runner(main())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 2:
            os.write(2, _ENDING)  # not the console, which may be in the midst of a line
        elif self._count == 1 and self._cancel is not None:
            self._cancel()
        else:
            raise KeyboardInterrupt
