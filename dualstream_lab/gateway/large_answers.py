"""Answers of some MiB, to clients of any speed: how much memory they may hold together."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web

from dualstream_lab.gateway.answers import unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["LargeAnswers"]

_SLOTS: Final = 6
_OF_ONE_CLIENT: Final = 3  # address: nobody keeps all of them from the others
_PIECE: Final = 256 * 1024  # bytes
_PIECE_TIME: Final = 2.0  # s that a client has to take one


class LargeAnswers:
    """Six large answers are made and written at once, three of one address; others wait, and get 503 then.

    So what they hold is some 20 times the largest answer, however many ask. A client that does not take
    128 kB/s is cut off.
    """

    def __init__(self, *, patience: float) -> None:
        self._patience = patience
        self._slots = asyncio.Semaphore(_SLOTS)
        self._clients: Counter[str | None] = Counter()

    @asynccontextmanager
    async def slot(self, request: web.Request) -> AsyncIterator[None]:
        """While a large answer is made and written. Raises 503."""
        client = request.remote
        if self._clients[client] >= _OF_ONE_CLIENT:
            raise unavailable("too many large pages are being read from this address; try again")
        self._clients[client] += 1
        try:
            try:
                async with asyncio.timeout(self._patience):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise unavailable("too many large pages are being read; try again") from error
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def write(
        self, request: web.Request, body: bytes, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Write the answer; its client took it, or was cut off, when this returns."""
        response = web.StreamResponse(headers=headers)
        response.content_length = len(body)
        try:
            await response.prepare(request)
            for begin in range(0, len(body), _PIECE):
                async with asyncio.timeout(_PIECE_TIME):
                    await response.write(body[begin : begin + _PIECE])
            async with asyncio.timeout(_PIECE_TIME):
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response
