"""The ledger the slow and obvious way: dicts and loops over one event and one subscriber at a time."""

from __future__ import annotations

from collections import defaultdict

from dualstream_lab.recording import DROPS, Ending, Outcome

from .builder import RunBuilder, ns

FOREVER = 2**62
HALF = 500_000_000


def oracle_ledger(builder: RunBuilder) -> dict[int, tuple[str, set[str]]]:
    """seq -> (class with its cause, marks)."""
    return _Oracle(builder).tell()


def _kind(builder: RunBuilder, kind: str) -> list[dict]:
    """Rows of all processes, each with its ``writer``; process by process, as written."""
    return [
        row | {"writer": writer}
        for (of, writer), rows in sorted(builder.rows.items())
        if of == kind
        for row in rows
    ]


class _Oracle:
    def __init__(self, builder: RunBuilder) -> None:
        self.published = {row["seq"]: row for row in _kind(builder, "published")}
        self.records = defaultdict(list)
        for row in _kind(builder, "consumed"):
            self.records[row["seq"]].append(row)
        self.state = {True: "complete", False: "partial", None: "absent"}[builder.caught_up]
        self.delivered = defaultdict(list)  # by subscriber
        for row in _kind(builder, "delivered"):
            self.delivered[row["writer"], row["subscriber"]].append(row)
        self.caught = defaultdict(list)
        for row in _kind(builder, "caught_up"):
            self.caught[row["writer"], row["subscriber"]].append(row)
        self.dropped = {row["seq"]: DROPS[row["reason"]] for row in _kind(builder, "dropped")}
        self.windows = defaultdict(dict)
        self.sources = defaultdict(set)
        for row in _kind(builder, "listening"):
            who = row["writer"], row["subscriber"]
            self.sources[who].add(row["source"])
            if row["end"]:
                self.windows[who][row["begin"]] = row["begin"], row["end"], Ending(row["why"])
            else:
                self.windows[who].setdefault(row["begin"], (row["begin"], FOREVER, Ending.OPEN))
        self.subscribers = {*self.delivered, *self.caught, *self.windows}
        if not self.windows:
            self.windows = {who: {0: (0, FOREVER, Ending.CLOSED)} for who in self.subscribers}
            self.sources = {who: {-1} for who in self.subscribers}
        self.seqs = {*self.published, *self.records, *self.dropped}
        for rows in (*self.delivered.values(), *self.caught.values()):
            self.seqs |= {row["seq"] for row in rows}
        self.first = {}
        for rows in self.delivered.values():
            for row in rows:
                self.first[row["seq"]] = min(row["at"], self.first.get(row["seq"], row["at"]))

    def tell(self):
        return {seq: (self._class(seq), self._marks(seq)) for seq in self.seqs}

    def _where(self, seq: int) -> str:
        """in, out or unknown."""
        row = self.published.get(seq)
        if seq in self.records:
            return "in"
        if self.state == "complete":
            return "out"
        if row is not None and row["outcome"] in {Outcome.REJECTED, Outcome.NO_ROOM}:
            return "out"
        if self.state == "absent" and row is None:
            return "out"
        if self.state == "absent" and row["outcome"] == Outcome.DURABLE:
            return "in"
        return "unknown"

    def _got(self, seq: int) -> bool:
        late = any(row["seq"] == seq for rows in self.caught.values() for row in rows)
        return seq in self.first or late

    def _class(self, seq: int) -> str:  # noqa: PLR0911  (one a class)
        where, got = self._where(seq), self._got(seq)
        row = self.published.get(seq)
        outcome = None if row is None else row["outcome"]
        if outcome != Outcome.DURABLE and where == "out" and got:
            return "orphan"
        if outcome is None:
            return "unrecorded"
        if outcome in {Outcome.REJECTED, Outcome.NO_ROOM}:
            return "refused-in-log" if where == "in" else "refused"
        if outcome in {Outcome.UNKNOWN, Outcome.PENDING}:
            names = {"in": "unknown-in-log", "out": "unknown-not-in-log", "unknown": "unknown-open"}
            return names[where]
        if where != "in":
            return {"out": "lost", "unknown": "unread"}[where]
        looks = [self._look(who, seq) for who in self.subscribers]
        missed = [cause for verdict, cause in looks if verdict == "missed"]
        if got and not missed:
            return "delivered-after-giving-up" if seq in self.dropped and seq in self.first else "delivered"
        if not got and seq in self.dropped:
            return f"undelivered: dropped by the publisher: {self.dropped[seq]}"
        for worst in ("unexplained", "generator", "reconnect gap"):
            if worst in missed:
                return f"undelivered: {worst}"
        gap = any(verdict == "gap" for verdict, _ in looks)
        return "undelivered: reconnect gap" if gap else "undelivered: no subscriber"

    def _look(self, who, seq: int) -> tuple[str, str]:
        """(has, missed, gap or not, and why missed)."""
        row = self.published.get(seq)
        windows = sorted(self.windows.get(who, {}).values())
        if row is None or (row["outcome"] != Outcome.DURABLE and seq not in self.records) or not windows:
            return "not", ""
        if not self.sources[who] & {-1, row["source"]}:
            return "not", ""
        if any(r["seq"] == seq for r in (*self.delivered[who], *self.caught[who])):
            return "has", ""
        sent = row["sent"]
        until = max(sent, self.first[seq] if seq in self.first else row["acked"])
        for begin, end, why in windows:
            if begin <= sent and until <= end:
                return "missed", self._cause(who, row, begin, end, why)
        gone = windows[-1][1] if windows[-1][2] is Ending.CLOSED else FOREVER
        return ("gap" if until >= windows[0][0] and sent <= gone else "not"), ""

    def _cause(self, who, row, begin: int, end: int, why: Ending) -> str:
        inside = [r for r in self.delivered[who] if begin <= r["at"] <= end]
        last = self.published.get(inside[-1]["seq"], {"sent": 0})["sent"] if inside else 0
        if max(row["acked"], row["sent"]) < last:
            return "unexplained"
        if why is Ending.CLOSED:
            return "generator" if row["sent"] >= end - HALF else "unexplained"
        return "generator" if why is Ending.OPEN else "reconnect gap"

    def _marks(self, seq: int) -> set[str]:
        found = set()
        places = {(r["partition"], r["offset"]) for r in self.records[seq]} if seq in self.records else set()
        if len(places) > 1:
            found.add("duplicated-log")
        if seq in self.first and places and self.first[seq] < self.records[seq][0]["at"]:
            found.add("before-consumer")
        if self._behind_in_log(seq):
            found.add("reordered-log")
        for who in self.subscribers:
            mine = [row["seq"] for row in self.delivered[who]]
            if mine.count(seq) > 1:
                found.add("duplicated-live")
            if seq not in mine and any(row["seq"] == seq for row in self.caught[who]):
                found.add("recovered")
            if seq in mine and self._behind_live(seq, mine[: mine.index(seq)]):
                found.add("reordered-live")
            if self._look(who, seq)[0] == "gap" and self._got(seq):
                found.add("missed-in-gap")
        return found

    def _offset(self, seq: int) -> int:
        return self.records[seq][0]["offset"]

    def _partition(self, seq: int) -> int:
        return self.records[seq][0]["partition"]

    def _behind_in_log(self, seq: int) -> bool:
        if seq not in self.published or seq not in self.records:
            return False
        row = self.published[seq]
        return any(
            (other["sent"], other["seq"]) > (row["sent"], seq)
            and (other["source"], other["writer"]) == (row["source"], row["writer"])
            and other["seq"] in self.records
            and self._partition(other["seq"]) == self._partition(seq)
            and self._offset(other["seq"]) < self._offset(seq)
            for other in self.published.values()
        )

    def _behind_live(self, seq: int, before: list[int]) -> bool:
        def key(row):
            if self.state != "absent":
                return self._offset(row["seq"])
            return row["sent"], row["seq"]

        def counts(number: int) -> bool:
            return number in self.published and (self.state == "absent" or number in self.records)

        if not counts(seq):
            return False
        row = self.published[seq]
        others = [self.published[number] for number in before if counts(number)]
        if self.state == "absent":
            others = [other for other in others if other["writer"] == row["writer"]]
        else:
            others = [other for other in others if self._partition(other["seq"]) == self._partition(seq)]
        return any(other["source"] == row["source"] and key(other) > key(row) for other in others)


__all__ = ["ns", "oracle_ledger"]
