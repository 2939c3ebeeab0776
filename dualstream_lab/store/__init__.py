"""The recent-events store: what the processor fills and gateways read."""

from __future__ import annotations

from dualstream_lab.store.contract import Page, Query, Row, Store, StoredEvent
from dualstream_lab.store.sqlite import SqliteStore

__all__ = ["Page", "Query", "Row", "SqliteStore", "Store", "StoredEvent"]
