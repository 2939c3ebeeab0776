"""The durable path: which events are in the log, how often, and in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dualstream_lab.ledger.arrays import Consumed
from dualstream_lab.ledger.order import behind, first_rows, grouped, ranks

if TYPE_CHECKING:
    import numpy.typing as npt

    from dualstream_lab.ledger.arrays import Events
    from dualstream_lab.ledger.classes import LogState

    Booleans = npt.NDArray[np.bool_]

__all__ = ["Log", "log_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One entry an event. ``at``: when its record was first read, 0 for never; ``partition`` and ``offset``
    where it was read. ``again``: at another place, too. ``reordered``: after an event of its source that its
    publisher sent later.
    """

    state: LogState
    at: npt.NDArray[np.int64]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    again: Booleans
    reordered: Booleans


def log_of(events: Events, rows: Consumed, state: LogState) -> Log:
    """From the rows of the Kafka consumer."""
    count = len(events)
    log = Log(
        state=state,
        at=np.zeros(count, np.int64),
        partition=np.zeros(count, np.int32),
        offset=np.zeros(count, np.int64),
        again=np.zeros(count, np.bool_),
        reordered=np.zeros(count, np.bool_),
    )
    first = first_rows(rows.place, count)
    some = rows
    if first is not None:
        some = Consumed(rows.place[first], rows.at[first], rows.partition[first], rows.offset[first])
    log.at[some.place], log.partition[some.place], log.offset[some.place] = some[1:]
    if first is not None:
        # the same record read again is no second one
        elsewhere = log.offset[rows.place] != rows.offset
        elsewhere |= log.partition[rows.place] != rows.partition
        log.again[rows.place[elsewhere]] = True
    _reorder(events, some, log.reordered)
    return log


def _reorder(events: Events, rows: Consumed, found: Booleans) -> None:
    """Mark what is out of order. Only events of one publisher have an order that was promised."""
    place, partition, offset = rows.place, rows.partition, rows.offset
    known = events.outcome[place] >= 0
    if not known.all():
        place, partition, offset = place[known], partition[known], offset[known]
    # A source has one partition, and a partition is read in its order, unless somebody reads it again.
    order = grouped(partition)
    turns = partition[order]
    if np.any((offset[order][1:] < offset[order][:-1]) & (turns[1:] == turns[:-1])):
        place = place[np.argsort(offset)]
    groups = events.source[place].astype(np.int64)
    if writers := int(events.writer.max(initial=0)):
        groups *= writers + 1
        groups += events.writer[place]
    found[place] = behind(groups, ranks(events.sent)[place])
