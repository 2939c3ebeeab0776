"""Background work that is owned: it ends for certain, and when it dies that is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
_AGAIN = 1.0  # s: long enough for a task that is cleaning up


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], timeout: float = 10.0) -> set[asyncio.Task[Any]]:
    """Cancel them and wait until they have ended. Returns those that have not after ``timeout`` s.

    A cancellation can get lost: Python 3.11's ``asyncio.wait_for`` swallows it when what it waits for is done
    at that moment, and clients use it. So it is repeated.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    waiting = set(tasks)
    while waiting and (left := deadline - loop.time()) > 0:
        for task in waiting:
            task.cancel()
        ended, waiting = await asyncio.wait(waiting, timeout=min(_AGAIN, left))
        for task in ended:
            if not task.cancelled():
                task.exception()  # noticed
    return waiting


async def beside(tasks: Sequence[asyncio.Task[Any]], work: Coroutine[Any, Any, T]) -> T:
    """Do the work while the tasks go on for ever; one that ends first ends it, with its error."""
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.wait({doing, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        return await doing
    finally:
        await end_tasks([doing])


async def finished(work: Awaitable[T]) -> T:
    """The result of a task that is finished whatever is cancelled. When cancelled, raise only after it has
    ended: what it undoes is undone.
    """
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    finally:
        while not doing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([doing])
        if not doing.cancelled():
            doing.exception()  # noticed, also when this is cancelled


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call what blocks, for a bounded time, in a thread; when cancelled, raise only after it has ended.

    What it works on is for one thread at a time, so that nobody may go on while it is still at work.
    """
    # A future, not a task: not even the end of the loop cancels it before the thread has ended.
    return await finished(asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments)))


async def until(at: int) -> None:
    """Sleep until this moment of the monotonic clock, ns; not at all where it has passed."""
    await asyncio.sleep(max(0, at - time.monotonic_ns()) / 1e9)
