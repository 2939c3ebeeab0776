"""A line of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line: a class and, where it is silent, its cause; or a mark. ``share``: of all events. ``examples``:
    ids. ``delay``: p50, p99 and the most, ms, of what has a "by how much".
    """

    name: str
    meaning: str
    count: int
    share: float
    examples: tuple[str, ...]
    cause: str = ""
    delay: tuple[float, float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {"name": self.name, "count": self.count, "share": self.share}
        if self.cause:
            found["cause"] = self.cause
        if self.delay is not None:
            found["delay_ms"] = dict(zip(("p50", "p99", "max"), self.delay, strict=True))
        return found | {"examples": list(self.examples)}
