"""asyncio beside gevent: a loop on a real thread, and results that come back to greenlets.

``import locust`` patches the process: threads become greenlets, and asyncio would run on an emulated
selector, ten times slower. So the loop is uvloop, on an operating-system thread that is made with gevent's
original ``start_new_thread``. Work goes in by ``call_soon_threadsafe``; results come back through a deque and
the hub's async watcher, the one thing in gevent that another thread may touch.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import gevent
import gevent.monkey
import uvloop
from gevent.event import AsyncResult

from dualstream_lab.tasks import end_tasks

log = logging.getLogger(__name__)

T = TypeVar("T")
start_thread: Callable[..., object] = gevent.monkey.get_original("_thread", "start_new_thread")

# Two busy threads share the interpreter: with the default of 5 ms, either could wait so long for its turn.
_SWITCH_INTERVAL = 0.0005


class Bridge:
    """One loop in one thread. Make it in the process that uses it, after any fork, in the hub's thread.

    :meth:`close` ends it; calls that are still open then end with CancelledError.
    """

    def __init__(self) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._loop = uvloop.new_event_loop()
        self._finished: deque[tuple[AsyncResult, Any, BaseException | None]] = deque()
        self._watcher = gevent.get_hub().loop.async_()
        self._watcher.start(self._deliver)
        self._ended = AsyncResult()
        self._closed = False
        start_thread(self._run, ())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(end_tasks(asyncio.all_tasks(self._loop)))
            self._loop.close()
        finally:
            self._finish(self._ended, None, None)

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run it in the loop; this greenlet waits. Raises what it raises.

        After ``timeout`` s it is cancelled, and its end is not waited for: TimeoutError.
        """
        result = AsyncResult()
        started: list[asyncio.Task[T]] = []
        self._loop.call_soon_threadsafe(self._start, work, result, started)
        result.wait(timeout)
        if not result.ready():
            self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in started])
            raise TimeoutError(f"no end within {timeout:g} s")
        value: T = result.get()
        return value

    def close(self, timeout: float = 15.0) -> None:
        """Cancel what runs and end the thread; a second call does nothing.

        A loop that does not end in time is left behind, with a warning: the process can end all the same.
        """
        if self._closed:
            return
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._ended.wait(timeout)
        if not self._ended.ready():
            log.warning("the event loop did not end within %g s", timeout)
        self._watcher.stop()

    def _start(
        self, work: Coroutine[Any, Any, Any], result: AsyncResult, started: list[asyncio.Task[Any]]
    ) -> None:
        task = self._loop.create_task(work)
        started.append(task)
        task.add_done_callback(lambda task: self._done(task, result))

    def _done(self, task: asyncio.Task[Any], result: AsyncResult) -> None:
        if task.cancelled():
            self._finish(result, None, asyncio.CancelledError())
        else:
            error = task.exception()
            self._finish(result, None if error else task.result(), error)

    def _finish(self, result: AsyncResult, value: Any, error: BaseException | None) -> None:
        """In the loop's thread."""
        self._finished.append((result, value, error))
        self._watcher.send()

    def _deliver(self) -> None:
        """In the hub."""
        while self._finished:
            result, value, error = self._finished.popleft()
            if error is None:
                result.set(value)
            else:
                result.set_exception(error)
