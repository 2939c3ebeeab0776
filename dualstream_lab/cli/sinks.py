"""Where events are written: a file or a pipe, or a terminal; and a file for what was refused."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from dualstream_lab.cli.console import say, stdout
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.record import one_line

if TYPE_CHECKING:
    from dualstream_lab.replay import LoggedEvent

_SAID = 5  # of what is refused and no file takes


class Lines:
    """The events as they are in the log, one a line; ``-`` is stdout. A file has whole lines, always.

    A file that exists is an error, unless ``append``: then lines are added to it. Raises ConfigError and, for
    a disk that is full, StackError.
    """

    def __init__(self, name: str, *, append: bool) -> None:
        self.name = name
        try:
            self._fd = sys.stdout.fileno() if name == "-" else _opened(Path(name), append=append)
        except FileExistsError as error:
            raise ConfigError(
                f"--output {name} exists already; another name, or with --from, which adds to it"
            ) from error
        except OSError as error:
            raise ConfigError(f"--output {name} cannot be written: {error.strerror}") from error
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)

    def close(self) -> None:
        """Close the file; nothing is held back before."""
        if self.name != "-":
            os.close(self._fd)

    async def write(self, events: Sequence[LoggedEvent]) -> int:
        """Write the events; returns when the system has them."""
        rest = memoryview(b"".join(one_line(item.stored.value) + b"\n" for item in events))
        size = os.fstat(self._fd).st_size
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._regular:
                os.ftruncate(self._fd, size)
            raise StackError(f"{self.name} cannot be written: {error.strerror}") from error
        return len(events)


def _opened(path: Path, *, append: bool) -> int:
    """Open the file without a buffer, which could hold half a line back."""
    special = path.exists() and not path.is_file()
    exclusive = 0 if append or special else os.O_EXCL
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | exclusive, 0o666)


class Table:
    """A short line an event, for people: when, where it is, source, type, id, the beginning of the data."""

    async def write(self, events: Sequence[LoggedEvent]) -> int:
        """Print the events."""
        for item in events:
            line = _readable(item)
            stdout.print(line[: max(40, stdout.width)], markup=False, soft_wrap=True)
        return len(events)

    def close(self) -> None:
        """Close it: there is nothing to close."""


def _readable(item: LoggedEvent) -> str:
    record, event = item
    when = datetime.fromtimestamp(record.timestamp / 1000).astimezone()
    where = f"{record.partition}:{record.offset}"
    data = bytes(item.event.data)[:200].decode(errors="replace")
    text = (
        f"{when:%m-%d %H:%M:%S}.{when.microsecond // 1000:03}  {where:>9}  "
        f"{event.source}  {event.type}  {event.id}  {' '.join(data.split())}"
    )
    # Others may write to the log, too: nothing in it steers a terminal.
    return "".join(letter if letter.isprintable() else "·" for letter in text)


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
        """Write one refusal at once. ``position``: its line, or its place in the log. Raises StackError."""
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
