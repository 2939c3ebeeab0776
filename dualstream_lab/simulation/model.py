"""What a simulated run gives: every event's way through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One entry an event, by ascending ``seq``. Times: float64, seconds after the plan's zero, NaN for never.

    ==============  ============================================================================
    ``seq``         int64: its number in the plan
    ``intended``    when the plan wanted it sent
    ``sent``        when its publisher began to serve its call
    ``entered``     when it came into its publisher's buffer (never: no room)
    ``settled``     when its outcome was known: its ack, its deadline, or the end of its wait for room
    ``acked``       its ack; never, unless it is durable
    ``outcome``     int8: a ``recording.Outcome``, never PENDING
    ``source``      int64: the rank of its source
    ``size``        int64: bytes
    ``partition``   int64
    ``offset``      int64: its place in the log of its partition, from 0; -1 where it is not in it
    ``logged``      when it came into the log, readable
    ``consumed``    when the consumer had it
    ``heard``       when subscribers had it first, live or by repair
    ``late``        bool: that was by repair, as its notification had been given up
    ``dropped``     when its notification was given up
    ``reason``      int8: why, its place in ``recording.DROPS``; -1 where it was not
    ==============  ============================================================================

    A durable event with neither ``heard`` nor ``dropped`` was published to nobody. ``resyncs``: announcements
    of skipped sources. ``away``: (shard, begin, end) of stretches in which its subscribers were not
    connected. ``busy``: by station (``publisher``, ``broker``, ``shard``, ``consumer``, ``gateway``), the
    share of each second that each of them was at work: float64, (stations, seconds).
    """

    seq: Integers
    intended: Floats
    sent: Floats
    entered: Floats
    settled: Floats
    acked: Floats
    outcome: npt.NDArray[np.int8]
    source: Integers
    size: Integers
    partition: Integers
    offset: Integers
    logged: Floats
    consumed: Floats
    heard: Floats
    late: npt.NDArray[np.bool_]
    dropped: Floats
    reason: npt.NDArray[np.int8]
    resyncs: int = 0
    away: tuple[tuple[int, float, float], ...] = ()
    busy: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seq)
