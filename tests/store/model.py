"""The store as a few dictionaries: what every other one is compared with."""

from __future__ import annotations

import time

from dualstream_lab.errors import StoreConflict, StoreError
from dualstream_lab.store import Page, Row

EMPTY = Page(position=0, floor=0, rows=[], more=False)


class ModelStore:
    def __init__(self):
        self.log = None
        self.position, self.floor = {}, {}
        self.events = {}  # (partition, offset) -> event

    async def epoch(self):
        return self.log

    async def positions(self):
        return dict(self.position)

    async def begin(self, epoch, first):
        if self.log not in {None, epoch}:
            raise StoreError("another log")
        self.log = epoch
        for partition, offset in first.items():
            if self.position.get(partition, -1) < offset:
                self.position[partition] = self.floor[partition] = offset

    async def apply(self, partition, first, next_, events):
        if self.position[partition] != first:
            raise StoreConflict("moved")
        known = {event.id for event in self.events.values()}
        new = 0
        for event in events:
            if event.id not in known:
                known.add(event.id)
                self.events[partition, event.offset] = event
                new += 1
        self.position[partition] = next_
        return new

    def _of(self, source, partition, after):
        found = sorted(self.events.items())
        return [e for (p, o), e in found if p == partition and o > after and e.source == source]

    async def pages(self, queries, limit):
        return [self._page(query, limit) for query in queries]

    def _page(self, query, limit):
        if query.partition not in self.position:
            return EMPTY
        events = self._of(query.source, query.partition, query.after)
        return self._cut(query.partition, events[:limit], more=len(events) > limit)

    def _cut(self, partition, events, *, more):
        rows = [Row(event.offset, event.id, event.type, event.ts) for event in events]
        return Page(position=self.position[partition], floor=self.floor[partition], rows=rows, more=more)

    async def recent(self, source, *, limit, after=None, partition=None):
        if partition is None:
            partition = max((p for (p, _), e in self.events.items() if e.source == source), default=None)
        if partition not in self.position:
            return EMPTY, []
        events = self._of(source, partition, -1 if after is None else after)
        cut = events[-limit:] if after is None else events[:limit]
        return self._cut(partition, cut, more=len(events) > limit), cut

    async def get(self, event_id):
        return next((event for event in self.events.values() if event.id == event_id), None)

    async def prune(self, *, age, count):
        before = time.time_ns() - round(age * 1e9)
        removed = 0
        while self.events:
            heads = {p: min(o for q, o in self.events if q == p) for p, _ in self.events}
            ts, partition, offset = min((self.events[p, o].ts, p, o) for p, o in heads.items())
            if ts >= before and len(self.events) <= count:
                break
            del self.events[partition, offset]
            self.floor[partition] = max(self.floor[partition], offset + 1)
            removed += 1
        return removed

    async def close(self):
        pass
