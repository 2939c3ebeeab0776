"""A file, pipe or terminal of events, read as it comes, within bounds."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Final

from dualstream_lab.ingest.splitting import Splitter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from dualstream_lab.ingest.splitting import Unreadable

__all__ = ["Reader"]

_CHUNK: Final = 2**18
_BATCH_BYTES: Final = 2**20  # after which a batch is long enough


class Reader:
    """The texts of an open file's events. ``unit``: what a text is, ``line`` or (of a JSON array) ``event``.

    A pipe or terminal never blocks the loop; of a regular file a piece is read at once.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._splitter = Splitter()
        self._texts: Iterator[bytes | Unreadable] = iter(())
        self._stream: asyncio.StreamReader | None = None
        self._opened = self._ended = False

    @property
    def unit(self) -> str:
        """What is counted."""
        return self._splitter.unit

    async def read(self, count: int) -> list[bytes | Unreadable]:
        """At least one text and at most ``count``, or none at the end.

        Raises OSError where the file cannot be read, EventError for what is surely no file of events.
        """
        texts: list[bytes | Unreadable] = []
        size = 0
        while len(texts) < count and size < _BATCH_BYTES:
            text = next(self._texts, None)
            if text is not None:
                texts.append(text)
                size += len(text) if isinstance(text, bytes) else 0
            elif texts or self._ended:
                break
            else:
                data = await self._chunk()
                self._ended = not data
                self._texts = self._splitter.feed(data) if data else self._splitter.finish()
        return texts

    async def _chunk(self) -> bytes:
        if not self._opened:
            self._opened = True
            await self._connect()
        if self._stream is not None:
            return await self._stream.read(_CHUNK)
        await asyncio.sleep(0)  # a file without a single line's end must not keep Ctrl-C out
        return os.read(self._file.fileno(), _CHUNK)

    async def _connect(self) -> None:
        """What may keep a reader waiting goes through the loop; it takes no files and no /dev/null."""
        mode = os.fstat(self._file.fileno()).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or self._file.isatty():
            self._stream = asyncio.StreamReader(limit=_CHUNK)
            protocol = asyncio.StreamReaderProtocol(self._stream)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._file)
