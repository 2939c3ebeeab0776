"""What every fault proxy is: a loop in a thread of its own, started and stopped, with one toxic at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from dualstream_lab.errors import StackError
from dualstream_lab.faults.proxy.loop_thread import LoopThread

if TYPE_CHECKING:
    from dualstream_lab.faults.proxy.toxics import Toxic

__all__ = ["ThreadedProxy"]


class ThreadedProxy(ABC):
    """Use as a context manager. The coroutines run in its loop; the other methods may be called from any
    thread, and return when what they do is in force.
    """

    thread_name: ClassVar[str]

    def __init__(self) -> None:
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen. Raises StackError if a port is taken."""
        self._thread = LoopThread(self.thread_name)
        try:
            self._thread.run(self._open())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Reset every connection, close the ports, end the thread. Nothing if it is not started."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.run(self._close())
        finally:
            thread.stop()

    def set(self, toxic: Toxic | None) -> None:
        """Exert this toxic in place of another; in force when this returns, a moment later.

        Raises StackError if a port cannot be listened on again after ``Refuse``.
        """
        if self._thread is None:
            raise not_started()
        self._thread.run(self._become(toxic))

    def clear(self) -> None:
        """Let everything pass."""
        self.set(None)

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None:
        """Also what :meth:`_open` has left when it failed."""

    @abstractmethod
    async def _become(self, toxic: Toxic | None) -> None: ...


def not_started() -> StackError:
    """For what a proxy can say only while it runs."""
    return StackError("the fault proxy is not started; use it as a context manager")
