"""Where this user's running stack is: a small state file, locked for as long as the stack runs."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dualstream_lab.errors import StackError
from dualstream_lab.stack.directory import user_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class StackInfo:
    """A stack that `dualstream up` runs. Times are Unix seconds; ``expires_at`` is None in the foreground."""

    kafka_url: str
    redis_url: str
    topic: str
    pid: int
    directory: str
    started_at: float
    expires_at: float | None = None


def state_path() -> Path:
    """Find the state file. Raises StackError without the ``stack`` extra."""
    return user_directory("state") / "stack.json"


class StateFile:
    """The claim to be this user's one stack. The lock ends with the process, however that ends."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @classmethod
    def claim(cls) -> StateFile:
        """Claim to be the one stack. Raises StackError if another stack has it."""
        path = state_path()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StackError(f"the state file {path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise StackError(
                "a stack is running already; `dualstream status` shows it, `dualstream down` ends it"
            ) from error
        file.truncate(0)
        return cls(file)

    def publish(self, info: StackInfo) -> None:
        """Say where the stack is."""
        self._file.truncate(0)
        self._file.write(json.dumps(asdict(info)))
        self._file.flush()

    def release(self) -> None:
        """Give up the claim."""
        self._file.truncate(0)
        self._file.close()


def running_stack() -> StackInfo | None:
    """Find this user's running stack, of `dualstream up`. One that still starts does not count."""
    try:
        with state_path().open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:  # held: it runs
                if text := file.read():
                    return StackInfo(**json.loads(text))
    except (OSError, StackError, TypeError, ValueError):  # also the file of another version
        pass
    return None
