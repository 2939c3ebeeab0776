"""A log that repeats itself in trouble says each thing once in five seconds."""

from __future__ import annotations

import logging
import time
from typing import Final

_EVERY: Final = 5.0  # s between repeats of a message in the log
_MAX_MESSAGES: Final = 1000


class RepeatFilter(logging.Filter):
    """Lets a message of a logger through once in five seconds, whatever its arguments are.

    For warnings and errors. The next one that passes says how many were held back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        if record.levelno < logging.WARNING:
            return True
        now, message = time.monotonic(), str(record.msg)
        passed, held = self._passed.get(message, (float("-inf"), 0))
        if now - passed < _EVERY:
            self._passed[message] = passed, held + 1
            return False
        if len(self._passed) >= _MAX_MESSAGES:
            self._passed.clear()
        self._passed[message] = now, 0
        if held:
            record.msg = f"{message} ({held} more like this since the last one)"
        return True
