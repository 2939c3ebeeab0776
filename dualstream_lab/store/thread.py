"""A thread that alone uses one connection, and answers questions in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Thread"]

T = TypeVar("T")
C = TypeVar("C")
_Answered: TypeAlias = "tuple[asyncio.Future[Any], Any, BaseException | None]"


class Thread(Generic[C]):
    """What is asked while it is at work is answered in the same turn: a hop between threads costs as much as
    a short query. Made by :meth:`started`.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._asked: deque[tuple[Callable[[C], Any], asyncio.Future[Any]]] = deque()
        self._busy = False
        self._connection: C | None = None

    @classmethod
    async def started(cls, name: str, make: Callable[[], C]) -> Self:
        """With what ``make`` makes in it."""
        thread = cls(name)
        try:
            thread._connection = await thread._loop.run_in_executor(thread._executor, make)
        except BaseException:
            thread._executor.shutdown(wait=False)
            raise
        return thread

    async def ask(self, question: Callable[[C], T]) -> T:
        """What is begun is ended, also if whoever waits for it is cancelled."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._asked.append((question, answer))
        if not self._busy:
            self._busy = True
            self._executor.submit(self._turn)
        return await answer

    async def end(self, last: Callable[[C], None], timeout: float) -> None:
        """``last`` is the last that is done, within the time."""
        closing = asyncio.ensure_future(self.ask(last))
        await asyncio.wait([closing], timeout=timeout)
        self._executor.shutdown(wait=False)
        if closing.done():
            closing.result()

    def _turn(self) -> None:
        """In the thread. What came first does not wait for what comes while it is answered."""
        ended = False
        while not ended:
            done = [self._answered(*self._asked.popleft()) for _ in range(len(self._asked))]
            ended = not self._asked
            self._loop.call_soon_threadsafe(self._tell, done, ended)

    def _answered(self, question: Callable[[C], Any], answer: asyncio.Future[Any]) -> _Answered:
        try:
            return answer, question(cast("C", self._connection)), None
        except BaseException as error:  # noqa: BLE001  (raised where it was asked)
            return answer, None, error

    def _tell(self, done: list[_Answered], ended: bool) -> None:
        """In the loop again."""
        for answer, result, error in done:
            if answer.done():  # whoever asked has left
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)
        if ended:
            self._busy = bool(self._asked)
            if self._busy:
                self._executor.submit(self._turn)
