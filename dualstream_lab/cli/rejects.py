"""The file for what was refused, so that it can be mended and given again."""

from __future__ import annotations

from io import FileIO
from typing import TYPE_CHECKING, Self

import msgspec

from dualstream_lab.cli.console import say
from dualstream_lab.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path


_SAID = 5  # of what no file takes


class Rejects:
    """What was refused: in a file, made for the first of it; without ``path`` the first few are said.

    ``append``: what the file has from an earlier time is kept.
    """

    def __init__(self, path: Path | None, *, append: bool = False) -> None:
        self.path = path
        self._mode = "ab" if append else "wb"
        self.count = 0
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, position: dict[str, object], reason: str, raw: bytes) -> None:
        """Write it at once. ``position``: its line, or its place in the log. Raises StackError."""
        if self.path is None:
            self.count += 1
            if self.count <= _SAID:
                say(f"left out {' '.join(map(str, position.values()))}: {reason}")
            return
        entry = position | {"reason": reason}
        try:
            entry["raw"] = raw.decode()
        except UnicodeError:
            entry["raw_base64"] = raw  # msgspec writes bytes as base64
        try:
            if self._file is None:
                # unbuffered: what a full disk has refused is not tried again by close()
                self._file = FileIO(self.path, self._mode)
            data = msgspec.json.encode(entry) + b"\n"
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            place = " ".join(f"{name} {value}" for name, value in position.items())
            raise StackError(
                f"{place} is refused ({reason}) and {self.path} cannot be written: "
                f"{error.strerror}; give another --rejects"
            ) from error
        self.count += 1
