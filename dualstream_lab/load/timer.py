"""Waiting until a moment, more exactly than an event loop does.

Event loops count delays in whole milliseconds (libuv, epoll), so a plan of one event every 0.2 ms would go
out in clumps. Linux has timers that are files (timerfd_create(2)), which a loop waits for as for a socket.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import math
import os
import sys
import time
import weakref
from typing import Final

_NS: Final = 1_000_000_000
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME


class Timer:
    """Wakes coroutines of one event loop at their times, ns of the monotonic clock.

    Where there are no timer files (macOS) the loop's own timers do it, up to a millisecond late.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap: by time, in order of coming
        self._count = 0
        self._file = _TimerFile.opened()
        self._handle: asyncio.TimerHandle | None = None

    async def wait_until(self, at: int) -> None:
        """Returns at that time, or when :meth:`wake_all` is called."""
        if at <= time.monotonic_ns():
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiting and self._file is not None:
            loop.add_reader(self._file, self._expired, loop)
        self._count += 1
        heapq.heappush(self._waiting, (at, self._count, future))
        if self._waiting[0][2] is future:
            self._arm(loop)
        await future

    def wake_all(self) -> None:
        """Nobody waits any longer; call it in the loop."""
        if self._waiting:
            self._wake_until(math.inf, asyncio.get_running_loop())

    def _expired(self, loop: asyncio.AbstractEventLoop) -> None:
        self._wake_until(time.monotonic_ns(), loop)

    def _wake_until(self, now: float, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():  # its waiter was cancelled
                future.set_result(None)
        if self._waiting:
            self._arm(loop)
        elif self._file is not None:
            loop.remove_reader(self._file)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Expire at the time of the first that waits, and not before."""
        at = self._waiting[0][0]
        if self._file is not None:
            self._file.expire_at(at)
            return
        if self._handle is not None:
            self._handle.cancel()
        # Rounded up: it would be woken early, and spin.
        self._handle = loop.call_later(math.ceil((at - time.monotonic_ns()) / 1e6) / 1e3, self._expired, loop)


class _Setting(ctypes.Structure):
    """``struct itimerspec``: the time between expirations (0: there is but one), and that of the first."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


class _TimerFile:
    """A timer file, closed when nobody has it any more. Readable from its expiration until it is set anew."""

    def __init__(self, descriptor: int, libc: ctypes.CDLL) -> None:
        self._descriptor = descriptor
        self._libc = libc
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def opened(cls) -> _TimerFile | None:
        """None where the system has none."""
        if sys.platform != "linux":
            return None
        libc = ctypes.CDLL(None)
        descriptor = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        return cls(descriptor, libc) if descriptor >= 0 else None

    def fileno(self) -> int:
        """As loops ask for it."""
        return self._descriptor

    def expire_at(self, at: int) -> None:
        """ns of the monotonic clock; at once if that is past."""
        setting = _Setting(0, 0, *divmod(at, _NS))
        self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(setting), None)
