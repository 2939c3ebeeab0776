"""Where a stack keeps its data and logs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal

from dualstream_lab.errors import StackError
from dualstream_lab.units import quantity

MEMORY: Final = Path("/dev/shm")  # noqa: S108  (directories of our own are made there)
"""On Linux: files in it are in memory."""

_ROOM = 4 * 2**30  # bytes: the log of a quarter of an hour at full rate, of which the older half is let go
_MIN_FREE = 64 * 2**20  # bytes; on a disk that is full a broker cannot even say so


def user_directory(kind: Literal["cache", "state"]) -> Path:
    """Find this package's directory among the user's. Raises StackError without the ``stack`` extra."""
    try:
        import platformdirs  # noqa: PLC0415  (part of the stack extra)
    except ImportError as error:
        raise StackError("the local stack needs its extra: pip install 'dualstream-lab[stack]'") from error
    make = platformdirs.user_cache_path if kind == "cache" else platformdirs.user_state_path
    return make("dualstream-lab", appauthor=False)


def temporary_directory(*, in_memory: bool) -> Path:
    """Make a new directory, in memory if that is asked for and there is room. Raises StackError."""
    try:
        place = MEMORY if in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= _ROOM else None
        return Path(tempfile.mkdtemp(prefix="dualstream-", dir=place))
    except OSError as error:
        raise _unwritable("the temporary directory", error) from error


def kept_directory(given: Path, brokers: int) -> Path:
    """Check that a stack of so many brokers can use ``given``, and make it absolute. Raises StackError."""
    try:
        given.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=given):
            pass
    except OSError as error:
        raise _unwritable(f"directory {given}", error) from error
    if (free := shutil.disk_usage(given).free) < _MIN_FREE:
        raise StackError(
            f"directory {given} has {free // 2**20} MiB free, and brokers need "
            f"{_MIN_FREE // 2**20}: free space, or choose another directory"
        )
    kept = sorted(path.name for path in given.glob("kafka-*"))
    if kept and kept != [f"kafka-{node}" for node in range(1, brokers + 1)]:
        raise StackError(
            f"directory {given} holds a stack of {quantity(len(kept), 'broker')}, not {brokers}; "
            f"start it with --brokers {len(kept)}, or choose another directory"
        )
    return given.resolve()


def _unwritable(file: str, error: OSError) -> StackError:
    return StackError(f"{file} cannot be written: {error.strerror or error}; choose another")
