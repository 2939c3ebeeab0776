"""What a subscriber hands out: events with the facts of their delivery, and gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from dualstream_lab.errors import DualStreamError
from dualstream_lab.event import Event

NOT_FETCHED: Final = "not_fetched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One event, as it arrived.

    ``source`` is ``type:id``. ``event``: the whole event; None with ``fetch=False``. ``cursor``: the
    source can be resumed from here once this event is dealt with (earlier ones may then come again); None
    before the gateway told one. ``late``: Redis lost its notification, and it was found in the store.
    ``old``: it is from before this connection. ``partition`` and ``offset``: where it is in Kafka, as far
    as is known. ``ts``: Kafka's acknowledgement (for late and old ones: the record's time), ``at``: when
    it was read here; both ns since the epoch, each by its own machine's clock.
    """

    id: str
    type: str
    source: str
    event: Event | None = None
    cursor: str | None
    late: bool = False
    old: bool = False
    partition: int | None = None
    offset: int | None = None
    ts: int | None = None
    at: int

    @property
    def data(self) -> Any:
        """The event's data as Python values, decoded anew at every access; None with ``fetch=False``.

        Its bytes are in ``event.data`` (a ``msgspec.Raw``).
        """
        return None if self.event is None else msgspec.json.decode(self.event.data)

    @property
    def latency(self) -> float | None:
        """Seconds from ``ts`` to ``at``. Below zero where the clocks of two machines disagree."""
        return None if self.ts is None else (self.at - self.ts) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Events of ``source`` that this subscriber did not hand out and cannot get from the gateway.

    They are those after the cursor ``after`` (None: from the earliest) and up to ``until``; with the reason
    ``not_fetched`` it is the one in ``event``, whose whole text could not be had, or was another event's.
    Other reasons: ``retention`` and ``compaction`` (the store, or Kafka before it, has removed them: of the
    earliest, some that were before those that are handed out), ``epoch_changed`` (the cursor is of another
    log), ``store_lag`` and ``store_unavailable`` (for longer than ``recover_within``). What Kafka still
    has, ``dualstream replay`` reads.
    """

    source: str
    reason: str
    after: str | None = None
    until: str | None = None
    event: Received | None = None

    def __str__(self) -> str:
        if self.event is not None:
            return f"event {self.event.id} of {self.source} could not be fetched"
        where = "before the earliest that are left" if self.after is None else f"after {self.after}"
        return f"events of {self.source} {where} are missing ({self.reason})"


class StreamGap(DualStreamError):
    """Events are missing here, after those handed out before; ``.gap`` says which.

    The stream itself is well: iterate on, and it continues behind the gap.
    """

    def __init__(self, gap: Gap) -> None:
        super().__init__(f"{gap}; iterate on to continue behind the gap, or give on_gap to be told of gaps")
        self.gap = gap


@dataclass(slots=True, kw_only=True)
class SubscriberStats:
    """Counters since the subscriber was made.

    Events: ``received`` without ``repeats``, which were removed; of these ``late``, recovered by the
    gateway's comparing, and ``old``, from before the connection. ``refused``: answers of the gateway that
    were not the event that was asked for; each is one of the ``gaps``, too. ``connections`` made, and
    ``drops`` of them.
    """

    received: int = 0
    late: int = 0
    old: int = 0
    repeats: int = 0
    refused: int = 0
    gaps: int = 0
    connections: int = 0
    drops: int = 0
