"""What is known of a run's events, as arrays: the input of the account.

Times are ns of the monotonic clock, 0 for "never". Rows point at events by their ``place`` in
:class:`Events`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.recording import Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from dualstream_lab.recording.rows import Codes, Int32, Int64, Outcomes

__all__ = ["FOREVER", "NO_ROW", "CaughtUp", "Consumed", "Drops", "Events", "Heard", "Subscriber", "Window"]

NO_ROW: Final = -1
"""The outcome of an event that has no row of its publishing."""

FOREVER: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """One entry an event that any row names, by ascending ``seq``.

    ``writer``: which process published it. Without a row of its publishing, ``outcome`` is ``NO_ROW`` and the
    rest 0.
    """

    seq: Int64
    intended: Int64
    sent: Int64
    acked: Int64
    outcome: Outcomes
    source: Int32
    writer: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.seq)


class Consumed(NamedTuple):
    """Rows of records, as they were read."""

    place: Int32
    at: Int64
    partition: Int32
    offset: Int64


class Heard(NamedTuple):
    """Rows of notifications: subscriber by subscriber, and as they arrived within each.

    ``bounds``: where each subscriber's rows begin, and after the last where they end.
    """

    place: Int32
    at: Int64
    bounds: Int64


class CaughtUp(NamedTuple):
    """Rows of events that a subscriber was given later."""

    place: Int32
    at: Int64
    subscriber: Int32


class Window(NamedTuple):
    """A subscription, from its confirmation to its end. ``slow``: Redis ended it because its client was slow.

    ``end`` is ``FOREVER`` where none was recorded.
    """

    begin: int
    end: int
    why: Ending
    slow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """``sources``: the ranks of those it subscribes to, -1 for all. ``windows``: by time, not overlapping.

    ``holes``: stretches of time whose rows of it are missing.
    """

    sources: tuple[int, ...] = (-1,)
    windows: Sequence[Window] = field(default=(Window(0, FOREVER, Ending.CLOSED),))
    holes: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """``cause``: for each event, 0, or ``Cause.DROPPED`` plus the reason why its notification was given up.

    ``exact``: told event by event; else it is what the publisher gave up in the second of the event's
    acknowledgement, and counts only for events that nobody heard.
    """

    cause: Codes
    exact: bool = True
