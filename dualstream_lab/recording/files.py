"""Files of a run directory, which may be a stranger's: only plain ones are read, in bounded pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from dualstream_lab.errors import RecordingError

T = TypeVar("T")

_MOST: Final = 16 * 2**20  # bytes of a JSON file
_LINE: Final = 2**20
_BOM: Final = b"\xef\xbb\xbf"


def check_plain(path: Path) -> None:
    """Raise RecordingError for a directory, a pipe or a device: opening one could wait for ever."""
    if not path.is_file():
        raise RecordingError("it is no file")


def read_whole(path: Path) -> bytes:
    """A small file, less its byte-order mark. Raises RecordingError; FileNotFoundError if there is none."""
    try:
        if path.exists():
            check_plain(path)
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordingError(error.strerror or str(error)) from error
    if len(data) > _MOST:
        raise RecordingError(f"it is larger than {_MOST:,} bytes")
    return data.removeprefix(_BOM)


def read_json(path: Path, kind: type[T]) -> T:
    """Read a small JSON file as a msgspec type. Raises as :func:`read_whole`."""
    try:
        return msgspec.json.decode(read_whole(path), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RecordingError(str(error)) from error


def read_lines(path: Path) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long to be of ours. Raises RecordingError, OSError."""
    check_plain(path)
    with path.open("rb") as file:
        long = False
        while line := file.readline(_LINE):
            whole = line.endswith(b"\n") or len(line) < _LINE
            if not long:
                yield line if whole else None
            long = not whole


def replace_json(path: Path, value: dict[str, Any]) -> None:
    """Write it in one step: nobody ever reads a half of it."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    hidden.replace(path)
