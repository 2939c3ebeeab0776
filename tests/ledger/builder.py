"""Run directories made by hand: rows as lists, times in ms of the run, written as a recorder would."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dualstream_lab.ledger import Ledger
from dualstream_lab.recording import (
    DROPS,
    KINDS,
    Clocks,
    Ending,
    FaultRecord,
    Interval,
    Manifest,
    Outcome,
    RunDirectory,
)
from dualstream_lab.workload import RunIds, Workload

MS = 1_000_000
ZERO = 1_000 * MS
IDS = RunIds("0" * 24)


def ns(ms: float) -> int:
    return ZERO + round(ms * MS)


class RunBuilder:
    """``caught_up``: what the Kafka consumer says of itself at its end; None: there was no consumer.
    ``unread``: what it says that it did not read.
    """

    def __init__(
        self, path, *, caught_up: bool | None = True, unread: tuple[str, ...] = (), **manifest: Any
    ) -> None:
        self.path = path
        self.caught_up = caught_up
        self.unread = unread
        self.rows: dict[tuple[str, str], list[dict[str, int]]] = defaultdict(list)
        self.more: list[Interval] = []
        faults = [FaultRecord(name=w, begin=ns(b), end=ns(e)) for w, b, e in manifest.pop("faults", ())]
        facts: dict[str, Any] = {
            "name": "hand", "run": "r", "ids": IDS.prefix, "clocks": Clocks.now(), "settings": {},
            "workload": Workload(rate=1000, duration=1).as_dict(), "started": ZERO, "ended": ns(1000),
            "state": "finished", "faults": faults,
        }  # fmt: skip
        self.manifest = Manifest(**(facts | manifest))

    def sent(self, seq, at, *, acked=None, outcome=Outcome.DURABLE, source=0, writer="generator"):
        acked = ns(at + 2) if acked is None else ns(acked)
        self.rows["published", writer].append({
            "seq": seq, "intended": ns(at), "sent": ns(at), "acked": acked if outcome == 1 else 0,
            "outcome": int(outcome), "source": source, "size": 300,
        })  # fmt: skip

    def read(self, seq, at, *, partition=0, offset=None, writer="kafka"):
        place = seq if offset is None else offset
        self.rows["consumed", writer].append(
            {"seq": seq, "at": ns(at), "partition": partition, "offset": place}
        )

    def delivered(self, seq, at, *, who=0, writer="redis"):
        self.rows["delivered", writer].append({"seq": seq, "at": ns(at), "subscriber": who})

    def given_up(self, seq, at, why="redis down"):
        self.rows["dropped", "generator"].append({"seq": seq, "at": ns(at), "reason": DROPS.index(why)})

    def caught(self, seq, at, *, who=0, repair=False, writer="redis"):
        row = {"seq": seq, "at": ns(at), "subscriber": who, "by_repair": int(repair)}
        self.rows["caught_up", writer].append(row)

    def listened(self, begin, end=None, why=Ending.CLOSED, *, who=0, sources=(-1,), writer="redis"):
        """A subscription; without an ``end``, its process died within it."""
        row = {"subscriber": who, "begin": ns(begin)}
        opened = [row | {"source": source, "end": 0, "why": 0} for source in sources]
        closed = [] if end is None else [one | {"end": ns(end), "why": int(why)} for one in opened]
        self.rows["listening", writer] += [*opened, *closed]

    def flow(self, *seqs, at=10.0, step=1.0, **more):
        """Events that go all the way: acknowledged after 2 ms, heard after 3 by everybody, read after 5."""
        for place, seq in enumerate(seqs):
            when = at + place * step
            self.sent(seq, when, **more)
            self.read(seq, when + 5)
            self.delivered(seq, when + 3)

    def interval(self, begin, end, writer="redis", **gauges_or_counters):
        """``counters={…}``, ``gauges={…}``."""
        self.more.append(Interval(writer=writer, begin=ns(begin), end=ns(end), **gauges_or_counters))

    def write(self) -> RunDirectory:
        self.path.mkdir(parents=True, exist_ok=True)
        directory = RunDirectory(self.path, self.manifest)
        directory.save()
        names = {1: "durable", 2: "rejected", 3: "unknown", 4: "no_room", 0: "pending"}
        counters: dict[str, Counter[str]] = defaultdict(Counter)
        for (kind, writer), rows in self.rows.items():
            pq.write_table(table(kind, rows), self.path / f"{kind}-{writer}-00001.parquet")
            if kind == "published":
                counters[writer].update(names[row["outcome"]] for row in rows)
            elif kind == "dropped":
                counters[writer].update(f"dropped: {DROPS[row['reason']]}" for row in rows)
            elif kind in {"delivered", "consumed"}:
                counters[writer][kind] += len(rows)
        if self.caught_up is not None:
            counters["kafka"]["consumed"] += 0
            counters["kafka"].update(f"unread: {what}" for what in self.unread)
            gauges = {"consumed.caught_up": float(self.caught_up)}
            self.more.append(Interval(writer="kafka", begin=ns(990), end=ns(1000), gauges=gauges))
        for writer, found in counters.items():
            self.more.append(Interval(writer=writer, begin=ns(0), end=ns(1000), counters=dict(found)))
        with (self.path / "intervals-all.jsonl").open("w") as file:
            for interval in self.more:
                file.write(json.dumps(interval.encode()) + "\n")
        return directory

    def ledger(self) -> Ledger:
        return Ledger.of(self.write())


def table(kind, rows):
    schema = pa.schema(list(KINDS[kind].items()))
    return pa.Table.from_pylist(rows, schema=schema)


def told(ledger: Ledger) -> dict[int, str]:
    """seq -> class, with its cause."""
    from dualstream_lab.ledger import CAUSES, CLASSES, Class

    found = {}
    for seq, which, cause in zip(ledger.seq, ledger.account.classes, ledger.account.causes, strict=True):
        why = CAUSES.get(int(cause), "")
        found[int(seq)] = f"{CLASSES[Class(which)][0]}{why and f': {why}'}"
    return found


def marked(ledger: Ledger) -> dict[int, set[str]]:
    """seq -> marks, of those that have any."""
    from dualstream_lab.ledger import MARKS

    return {
        int(seq): {name for mark, (name, _) in MARKS.items() if marks & mark}
        for seq, marks in zip(ledger.seq, ledger.account.marks, strict=True)
        if marks
    }
