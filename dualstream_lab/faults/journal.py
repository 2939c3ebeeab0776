"""What faults have changed on brokers that outlive us, in a small file each: also a crash can be undone."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from dualstream_lab.errors import StackError
from dualstream_lab.stack.state import state_path

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Entry", "Page", "journal_path", "left_behind"]

_KEPT = ("what", "settings", "parameters", "found")


def journal_path() -> Path:
    """The directory of the entries. Raises StackError without the ``stack`` extra."""
    return state_path().with_name("faults")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A fault that was begun. ``found``: how it was before, all that its end needs."""

    what: str
    settings: dict[str, Any]
    parameters: dict[str, float] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    path: Path = field(default_factory=lambda: journal_path() / f"{secrets.token_hex(8)}.json")


class Page:
    """An entry's file, locked by the process whose fault it is: the lock ends with the process."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._path: Path | None = None

    def write(self, entry: Entry) -> None:
        """Put it on disk, in the place of what was written before. Raises StackError if it cannot be."""
        path = self._path or entry.path
        new = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Settings have passwords.
            file = open(new, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({name: getattr(entry, name) for name in _KEPT}, file)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
            directory = os.open(path.parent, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
        except OSError as error:
            raise StackError(f"the journal {path} cannot be written: {error.strerror or error}") from error
        if self._file is not None:
            self._file.close()
        self._file, self._path = file, path

    def remove(self) -> None:
        """The fault is undone."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give the lock up: what is still written is left behind."""
        if self._file is not None:
            self._file.close()
        self._file = self._path = None


def left_behind() -> list[Entry]:
    """Entries whose process has gone."""
    entries = []
    for path in sorted(journal_path().glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError), path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # held: it lives
            values = json.load(file)
            entries.append(Entry(**{name: values[name] for name in _KEPT}, path=path))
    return entries
