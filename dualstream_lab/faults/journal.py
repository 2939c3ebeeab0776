"""The journal of faults: what each has changed on brokers that outlive us, so that a crash can be undone."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from dualstream_lab.errors import StackError
from dualstream_lab.stack.state import state_path

VERSION: Final = 1
"""Of the files. In those of another, or without one, ``original`` may have other names."""

# What is kept of an entry, by its name in the file.
_KEPT = {
    "version": "version",
    "what": "fault",
    "settings": "settings",
    "parameters": "parameters",
    "found": "original",
}


def journal_path() -> Path:
    """The directory of the entries. Raises StackError without the ``stack`` extra."""
    return state_path().with_name("faults")


@dataclass(slots=True, kw_only=True)
class JournalEntry:
    """A fault that was begun, and is not undone yet. ``original``: how it was before, all that its end needs.

    The process that writes the file holds a lock on it, which ends with the process.
    """

    fault: str
    settings: dict[str, Any]
    parameters: dict[str, float] = field(default_factory=dict)
    original: dict[str, Any] = field(default_factory=dict)
    version: int | None = VERSION
    path: Path = field(default_factory=lambda: journal_path() / f"{secrets.token_hex(8)}.json")
    _file: IO[str] | None = field(default=None, init=False, repr=False, compare=False)

    def write(self) -> None:
        """Put it on disk, in the place of what was written before. Raises StackError if it cannot be."""
        new = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Settings have passwords.
            file = open(new, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({key: getattr(self, name) for key, name in _KEPT.items()}, file)
            file.flush()
            os.fsync(file.fileno())
            new.replace(self.path)
            directory = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
        except OSError as error:
            raise StackError(
                f"the journal {self.path} cannot be written: {error.strerror or error}"
            ) from error
        self.close()
        self._file = file

    def remove(self) -> None:
        """Remove the entry: the fault is undone."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give the lock up: what is still written is left behind."""
        if self._file is not None:
            self._file.close()
        self._file = None


def left_behind() -> list[JournalEntry]:
    """Read the entries whose process is gone: what they name is still broken."""
    entries = []
    for path in sorted(journal_path().glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError), path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # held: it lives
            values = {"version": None} | json.load(file)
            entries.append(JournalEntry(**{name: values[key] for key, name in _KEPT.items()}, path=path))
    return entries
