"""What goes on in trouble is said once in a while, and not again and again."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Final

_EVERY: Final = 5.0  # s between repeats of a message in the log
_MAX_SUBJECTS: Final = 1000


class Repeats:
    """Says of each subject when to warn of it: at once, and then no sooner than after ``every`` seconds."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._said: dict[str, float] = {}

    def due(self, subject: str = "") -> bool:
        """Whether to warn now: then it counts as said."""
        now = time.monotonic()
        if now - self._said.get(subject, float("-inf")) < self._every:
            return False
        if len(self._said) >= _MAX_SUBJECTS:
            self._said.clear()
        self._said[subject] = now
        return True


class RepeatFilter(logging.Filter):
    """Lets a message of a logger through once in five seconds, whatever its arguments are.

    For warnings and errors. The next one that passes says how many were held back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._repeats = Repeats(_EVERY)
        self._held: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        message = str(record.msg)
        if record.levelno >= logging.WARNING:
            if not self._repeats.due(message):
                self._held[message] += 1
                return False
            if held := self._held.pop(message, 0):
                record.msg = f"{message} ({held} more like this since the last one)"
        return True
