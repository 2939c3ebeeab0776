"""The store as a few dictionaries: what every other one is compared with."""

from __future__ import annotations

import time
from itertools import accumulate

from dualstream_lab.errors import StoreConflict, StoreError
from dualstream_lab.store import Feeder, Page, Place, Row


class ModelStore:
    def __init__(self):
        self.log = None
        self.known = {}  # partition -> Place; given out, so a new one with each change
        self.origins = {}  # source -> partition -> offset
        self.events = {}  # (partition, offset) -> event
        self.reports = {}  # name -> (time, Feeder)

    async def epoch(self):
        return self.log

    async def places(self):
        return dict(self.known)

    def _set(self, partition, place):
        self.known = self.known | {partition: place}

    async def begin(self, epoch, first):
        if self.log not in {None, epoch}:
            raise StoreError("another log")
        self.log = epoch
        for partition, offset in first.items():
            if partition not in self.known or self.known[partition].position < offset:
                hole = any(p == partition for p, _ in self.events)
                self._set(partition, Place(offset, offset, *((offset, "retention") if hole else ())))

    async def apply(self, partition, first, next_, events, holes=()):
        place = self.known[partition]
        if place.position != first:
            raise StoreConflict("moved")
        known = {(event.source, event.id) for event in self.events.values()}
        new = 0
        for event in events:
            self.origins.setdefault(event.source, {}).setdefault(partition, event.offset)
            if (event.source, event.id) not in known:
                known.add((event.source, event.id))
                self.events[partition, event.offset] = event
                new += 1
        for hole in holes:
            place = Place(next_, hole.end, hole.end, hole.reason)
        self._set(partition, Place(next_, place.floor, place.hole, place.reason))
        return new

    def _of(self, source, after):
        """All that may be shown, in order: who is behind a later one of its partition waits for it."""
        turns = []
        for partition in self.origins.get(source, {}):
            begin = max(self.known[partition].floor, after.get(partition, -1) + 1)
            found = [
                e
                for (p, o), e in sorted(self.events.items())
                if p == partition and e.source == source and o >= begin
            ]
            latest = accumulate((e.ts for e in found), max)
            turns += [(ts, partition, e.offset, e) for ts, e in zip(latest, found, strict=True)]
        return [e for *_, e in sorted(turns, key=lambda turn: turn[:3])]

    async def pages(self, queries, limit):
        return [self._page(query.source, query.after, limit)[0] for query in queries]

    def _page(self, source, after, limit):
        events = self._of(source, after)
        shown, cut = events[:limit], events[limit:]
        through = {p: place.position - 1 for p, place in self.known.items()}
        for event in cut:
            p = event.partition
            through[p] = max(
                (e.offset for e in shown if e.partition == p),
                default=max(after.get(p, -1), self.known[p].floor - 1),
            )
        return self._made(source, shown, through, more=bool(cut)), shown

    def _made(self, source, events, through, *, more):
        return Page(
            places=self.known,
            first=dict(self.origins.get(source, {})),
            rows=[Row(e.partition, e.offset, e.id, e.type, e.ts) for e in events],
            through=through,
            more=more,
        )

    async def recent(self, source, *, limit, after=None, max_bytes=2**62):
        """Fewer, until they fit."""
        page, events = await self._recent(source, limit, after)
        while len(events) > 1 and sum(len(e.value) for e in _but_last(events, after)) >= max_bytes:
            limit = len(events) - 1
            page, events = await self._recent(source, limit, after)
        return page, events

    async def _recent(self, source, limit, after):
        if after is not None:
            return self._page(source, after, limit)
        shown, rest = self._newest(source, limit)
        through = {p: place.position - 1 for p, place in self.known.items()}
        return self._made(source, shown, through, more=rest > 0), shown

    def _newest(self, source, limit):
        """The same from the other end."""
        left = {
            p: [e for e in self._of(source, {}) if e.partition == p] for p in self.origins.get(source, {})
        }
        newest = []
        while any(left.values()) and len(newest) < limit:
            partition = max((p for p in left if left[p]), key=lambda p: (left[p][-1].ts, p))
            newest.insert(0, left[partition].pop())
        return newest, sum(map(len, left.values()))

    async def at(self, partition, offset):
        return self.events.get((partition, offset))

    async def find(self, event_id, *, source=None, limit=100):
        found = [e for _, e in sorted(self.events.items()) if e.id == event_id and source in {None, e.source}]
        return found[:limit]

    async def prune(self, *, age, count, size=2**62):
        before = time.time_ns() - round(age * 1e9)
        removed = 0
        while self.events:
            heads = {p: min(o for q, o in self.events if q == p) for p, _ in self.events}
            ts, partition, offset = min((self.events[p, o].ts, p, o) for p, o in heads.items())
            if ts >= before and len(self.events) <= count:
                break
            del self.events[partition, offset]
            removed += 1
            place = self.known[partition]
            open_ = any(p == partition and o < place.hole for p, o in self.events)
            hole = (place.hole, place.reason) if open_ else (0, None)
            self._set(partition, Place(place.position, max(place.floor, offset + 1), *hole))
        return removed

    async def report(self, name, *, group, partitions, troubles):
        feeder = Feeder(
            name=name, seen=0, partitions=sorted(partitions), group=group, troubles=dict(troubles)
        )
        self.reports[name] = time.time(), feeder

    async def feeders(self):
        now = time.time()
        return [
            Feeder(name=f.name, seen=now - seen, partitions=f.partitions, group=f.group, troubles=f.troubles)
            for seen, f in sorted(self.reports.values(), key=lambda report: -report[0])
            if now - seen < 3600
        ]

    async def close(self):
        pass


def _but_last(events, after):
    """All but the one that was taken last: of the newest that is the oldest."""
    return events[1:] if after is None else events[:-1]
