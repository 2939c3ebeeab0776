"""The recent-events store: what the processor fills and gateways read."""

from __future__ import annotations

from dualstream_lab.store.contract import Page, Query, Row, Store, StoredEvent

__all__ = ["Page", "Query", "Row", "Store", "StoredEvent"]
