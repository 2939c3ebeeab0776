"""What can become of an event: its one class, why it was undelivered, and what else is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import Any, Final, TypeVar

from dualstream_lab.recording import DROPS

E = TypeVar("E", bound=Enum)


def _named(kinds: type[E], *meanings: str) -> dict[E, tuple[str, str]]:
    return {k: (k.name.lower().replace("_", "-"), text) for k, text in zip(kinds, meanings, strict=True)}


class LogState(IntEnum):
    """How much the records of the Kafka consumer can tell of the log."""

    ABSENT = 0
    """There was no consumer: Kafka's acknowledgement is all that is known."""
    PARTIAL = 1
    """It did not read to the end, or its rows are not complete: what it did not find may be there."""
    COMPLETE = 2
    """What it did not find is not in the log."""


class Class(IntEnum):
    """What became of an event: each is in exactly one class. The values are only for arrays."""

    DELIVERED = 0
    UNDELIVERED = 1
    DELIVERED_AFTER_GIVING_UP = 2
    LOST = 3
    ORPHAN = 4
    UNKNOWN_IN_LOG = 5
    UNKNOWN_NOT_IN_LOG = 6
    UNKNOWN_OPEN = 7
    REFUSED = 8
    REFUSED_IN_LOG = 9
    UNREAD = 10
    UNRECORDED = 11


CLASSES: Final[Mapping[Class, tuple[str, str]]] = _named(
    Class,
    "durable, and every subscriber that was listening received it",
    "durable, and a listening subscriber did not receive it, or nobody was listening",
    "durable; the publisher gave its notification up, and Redis delivered it all the same",
    "acknowledged, but not in Kafka: must never happen",
    "delivered, but neither acknowledged nor in Kafka: must never happen",
    "not acknowledged by the deadline, and then in the log",
    "not acknowledged by the deadline, nor in the log",
    "not acknowledged by the deadline; nobody looked for it in the log",
    "rejected, or no room for it; and not in the log",
    "refused, by its publisher's word, and in the log all the same",
    "acknowledged; the consumer's rows are not complete enough to find it",
    "seen on a stream; the rows of its publishing are missing",
)
"""Name and meaning."""


class Cause(IntEnum):
    """Why an event was undelivered. Where subscribers missed it for several reasons, the highest counts."""

    NONE = 0
    NO_SUBSCRIBER = 1
    RECONNECT_GAP = 2
    KILLED_AS_SLOW = 3
    GENERATOR = 4
    UNEXPLAINED = 5
    DROPPED = 8
    """And above: the publisher gave it up; less this, the place in DROPS."""


CAUSES: Final[Mapping[int, str]] = {
    cause: cause.name.lower().replace("_", " ") for cause in Cause if Cause.NONE < cause < Cause.DROPPED
} | {Cause.DROPPED + place: f"dropped by the publisher: {why}" for place, why in enumerate(DROPS)}


class Mark(IntFlag):
    """What else is to be said of an event, whatever its class."""

    RECOVERED = 1
    BEFORE_CONSUMER = 2
    DUPLICATED_LOG = 4
    DUPLICATED_LIVE = 8
    REORDERED_LOG = 16
    REORDERED_LIVE = 32
    MISSED_IN_GAP = 64


MARKS: Final[Mapping[Mark, tuple[str, str]]] = _named(
    Mark,
    "a subscriber got it only by catch-up or repair",
    "delivered before the Kafka consumer, or a store behind it, could have it",
    "in the log more than once",
    "a subscriber received it more than once",
    "in the log after an event of its source that was sent later",
    "delivered after an event of its source that is later in the log",
    "a subscriber missed it while it was not connected",
)
"""Name and meaning."""


_TITLES: Final = {
    "delivered-after-giving-up": "delivered after the publisher gave up",
    "unknown-in-log": "unknown, later found in the log",
    "unknown-not-in-log": "unknown, not in the log",
    "unknown-open": "unknown, still open",
    "before-consumer": "delivered before the Kafka consumer had it",
}
"""In sentences and tables; of others, the name will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line: a class and, where it is undelivered, its cause; or a mark. ``share``: of all events.
    ``examples``: ids. ``delay``: p50, p99 and the most, ms, of what has a "by how much".
    """

    name: str
    meaning: str
    count: int
    share: float
    examples: tuple[str, ...]
    cause: str = ""
    delay: tuple[float, float, float] | None = None

    @property
    def title(self) -> str:
        """The name for people, with its cause."""
        return _TITLES.get(self.name, self.name) + (self.cause and f": {self.cause}")

    def as_dict(self) -> dict[str, Any]:
        """Make a dictionary that JSON takes."""
        found: dict[str, Any] = {"name": self.name, "count": self.count, "share": self.share}
        if self.cause:
            found["cause"] = self.cause
        if self.delay is not None:
            found["delay_ms"] = dict(zip(("p50", "p99", "max"), self.delay, strict=True))
        return found | {"examples": list(self.examples)}
