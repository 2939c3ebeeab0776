"""The durable path: which events are in the log, how often, and in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualstream_lab.ledger.arrays import Consumed, Events, behind, combined, first_rows, grouped, ranks
from dualstream_lab.ledger.classes import LogState
from dualstream_lab.recording.rows import Flags, Int32, Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log has, with one entry an event.

    ``at``: when its record was first read, 0 for never; ``partition`` and ``offset``: where it was read.
    ``again``: at another place, too. ``reordered``: after an event of its source, in the same partition, that
    its publisher sent later. ``spread``: some source is in several partitions.
    """

    state: LogState
    at: Int64
    partition: Int32
    offset: Int64
    again: Flags
    reordered: Flags
    spread: bool


def log_of(events: Events, rows: Consumed, state: LogState) -> Log:
    """Follow the durable path, by the rows of the Kafka consumer."""
    count = len(events)
    log = Log(
        state=state, spread=_is_spread(events.source[rows.place], rows.partition),
        at=np.zeros(count, np.int64), partition=np.zeros(count, np.int32), offset=np.zeros(count, np.int64),
        again=np.zeros(count, np.bool_), reordered=np.zeros(count, np.bool_),
    )  # fmt: skip
    first = first_rows(rows.place, count)
    some = rows
    if first is not None:
        some = Consumed(rows.place[first], rows.at[first], rows.partition[first], rows.offset[first])
    log.at[some.place], log.partition[some.place], log.offset[some.place] = some[1:]
    if first is not None:  # the same record read again is no second one
        elsewhere = log.offset[rows.place] != rows.offset
        elsewhere |= log.partition[rows.place] != rows.partition
        log.again[rows.place[elsewhere]] = True
    _reorder(events, some, log)
    return log


def _is_spread(source: Int32, partition: Int32) -> bool:
    """Find whether a source is in several partitions: as some were added, or somebody places it otherwise."""
    home = np.zeros(int(source.max(initial=0)) + 1, np.int32)
    home[source] = partition
    return bool(np.any(home[source] != partition))


def _reorder(events: Events, rows: Consumed, log: Log) -> None:
    """Mark what is out of order. Only events of one publisher, in one partition, have an order at all."""
    place, partition, offset = rows.place, rows.partition, rows.offset
    known = events.outcome[place] >= 0
    if not known.all():
        place, partition, offset = place[known], partition[known], offset[known]
    # A partition is read in its order, unless somebody reads it again.
    order = grouped(partition)
    turns = partition[order]
    if np.any((offset[order][1:] < offset[order][:-1]) & (turns[1:] == turns[:-1])):
        order = np.argsort(offset)
        place, partition = place[order], partition[order]
    groups = combined(events.source[place], events.writer[place])
    if log.spread:
        groups = combined(groups, partition)
    log.reordered[place] = behind(groups, ranks(events.sent)[place])
