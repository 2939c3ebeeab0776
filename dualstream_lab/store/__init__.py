"""The recent-events store: what the processor fills and gateways read."""

from __future__ import annotations

from dualstream_lab.record import StoredEvent
from dualstream_lab.store.contract import Feeder, Hole, Page, Place, Query, Row, Store
from dualstream_lab.store.schema import move_away
from dualstream_lab.store.sqlite import SqliteStore

__all__ = [
    "Feeder",
    "Hole",
    "Page",
    "Place",
    "Query",
    "Row",
    "SqliteStore",
    "Store",
    "StoredEvent",
    "move_away",
]
