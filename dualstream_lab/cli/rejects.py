"""The file for what was refused, so that it can be mended and given again."""

from __future__ import annotations

from io import FileIO
from typing import TYPE_CHECKING, Self

import msgspec

from dualstream_lab.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Rejects"]


class Rejects:
    """The rejects file, made when the first is refused; ``append``: those of an earlier time are kept."""

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self.path = path
        self._mode = "ab" if append else "wb"
        self.count = 0
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held back."""
        if self._file is not None:
            self._file.close()

    def add(self, where: dict[str, object], reason: str, raw: bytes) -> None:
        """Write it at once. ``where``: its line or its position. Raises StackError."""
        entry = where | {"reason": reason}
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
            place = " ".join(f"{name} {value}" for name, value in where.items())
            raise StackError(
                f"{place} is refused ({reason}) and {self.path} cannot be written: "
                f"{error.strerror}; give another --rejects"
            ) from error
        self.count += 1
