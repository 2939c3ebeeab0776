"""Where a subscriber is in one source's history: ``epoch:partition:offset``. No I/O."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from dualstream_lab.errors import EventError

__all__ = ["Cursor"]

_FORM: Final = re.compile(r"([0-9a-z]{1,32}):([0-9]{1,9}):(-1|[0-9]{1,18})")


class Cursor(NamedTuple):
    """Every event of the source up to and including ``offset`` is known; -1: none is.

    ``epoch`` names the log: offsets of another cluster, or of a topic that was made anew, mean nothing here.
    """

    epoch: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises EventError for another form."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise EventError(f"cursor {text!r} is not epoch:partition:offset, as the gateway gives it")
        return cls(match[1], int(match[2]), int(match[3]))
