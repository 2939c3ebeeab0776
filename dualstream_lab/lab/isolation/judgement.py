"""What the blocks of a proof come to: a verdict a fault, and one for all. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, linear_regression
from typing import Any, Final

import numpy as np

from dualstream_lab.analysis.paired import Decision, Interval, decide, interval, neighbours
from dualstream_lab.lab.isolation.blocks import HEALTHY, Figures
from dualstream_lab.verdict.checker import Validity, as_plain
from dualstream_lab.verdict.rules import Rule, sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How much slower the p99 may be: ``share`` of the healthy p99, and ``ms`` at least. ``background``:
    cores that other programs may use meanwhile; latencies of a block with more are not compared.
    ``latency_judged``: False where only failures, losses and repeats are: one block a fault is enough then.
    """

    share: float = 0.1
    ms: float = 1.0
    background: float = 0.1
    latency_judged: bool = True

    def allowed(self, healthy: float) -> float:
        """How much slower the p99 may be, in ms; infinite where latency is not judged."""
        if not self.latency_judged:
            return math.inf
        return max(self.share * healthy, self.ms) if math.isfinite(healthy) else self.ms

    def compares(self, block: Figures) -> bool:
        """Whether the latencies of a block are compared: where they are only shown, all are."""
        return not self.latency_judged or block.background <= self.background


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultVerdict:
    """What the blocks with one fault come to. Latencies in ms; ``live_again``: s, of each block; None where
    it did not come within it.

    ``p50``, ``p99``: of the differences. ``pairs``: p99 of each block, and of the healthy ones beside it;
    ``healthy``: the mean of these. ``reasons``: why it does not pass. ``dropped``: notifications that the
    publisher counted as dropped, by reason; None where it has no counters.
    """

    fault: str
    verdict: Validity
    reasons: tuple[str, ...]
    p50: Interval
    p99: Interval
    pairs: tuple[tuple[float, float], ...]
    healthy: float
    margin: float
    events: int
    failed: int
    missing: int
    twice: int
    dropped: Mapping[str, int] | None
    unaccounted: int
    live_again: tuple[float | None, ...]
    stall: float
    growth: float
    errors: Mapping[str, int]
    bite: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What all blocks together come to. ``slope``: MiB/min of the publisher's process over the proof, None of
    too few.

    ``healthy_failed``, ``healthy_missing``: what went wrong without any fault, which is no isolation either.
    ``unread``: what of the topic was not read, in any block: nobody knows what is missing there.
    """

    faults: tuple[FaultVerdict, ...]
    blocks: int
    events: int
    durable: int
    failed: int
    missing: int
    healthy_failed: int
    healthy_missing: int
    notified: int | None
    dropped: int
    delivered: int
    nameless: int
    wrong_source: int
    unread: tuple[str, ...]
    disturbed: int
    slope: float | None
    stall: float
    latency_judged: bool
    healthy_p50: float
    healthy_p99: float

    @property
    def verdict(self) -> Validity:
        """Passes when every fault does, and all blocks were read to their ends."""
        found = [fault.verdict for fault in self.faults]
        if self.healthy_failed or self.healthy_missing or Validity.INVALID in found:
            return Validity.INVALID
        return (
            Validity.INCONCLUSIVE
            if not found or Validity.INCONCLUSIVE in found or self.unread
            else Validity.VALID
        )

    def as_dict(self) -> dict[str, Any]:
        """The judgement as JSON can hold it: infinite and undefined numbers are texts."""
        return as_plain(asdict(self) | {"verdict": self.verdict})


def judge(
    blocks: Sequence[Figures], faults: Sequence[str], rules: Rules, notes: Mapping[str, str]
) -> Judgement:
    """Judge all faults. ``blocks``: in the order of time; those that did not end well are left out.
    ``notes``: why faults were given up, by their names.
    """
    blocks = [block for block in blocks if block.state == "finished"]
    healthy = [block for block in blocks if block.arm == HEALTHY]
    calm = [block for block in healthy if rules.compares(block)]
    notified = [block.notified for block in blocks if block.notified is not None]
    without_fault = _sums(healthy, "failed", "missing")
    return Judgement(
        faults=tuple(judge_fault(fault, blocks, rules, notes.get(fault, "")) for fault in faults),
        blocks=len(blocks),
        healthy_failed=without_fault["failed"],
        healthy_missing=without_fault["missing"],
        notified=sum(notified) if notified else None,
        dropped=_merged([block.dropped for block in blocks]).total(),
        unread=_unread(blocks),
        disturbed=sum(not rules.compares(block) for block in blocks),
        slope=_slope(blocks),
        stall=max((block.stall for block in blocks), default=0.0),
        latency_judged=rules.latency_judged,
        healthy_p50=_mean([block.p50 for block in calm]),
        healthy_p99=_mean([block.p99 for block in calm]),
        **_sums(blocks, "events", "durable", "failed", "missing", "delivered", "nameless", "wrong_source"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rules know of one fault. ``counts``: of its blocks, by what must not be; ``blocks``: how many
    there are; ``note``: why it was given up; ``unread``: what of the topic was not read.
    """

    counts: Mapping[str, int]
    blocks: int
    pairs: int
    decision: Decision
    least: str
    most: str
    allowed: str
    note: str
    unread: str


FAILURES: Final[Sequence[Rule[Evidence]]] = (
    Rule("failed", lambda seen: seen.counts["failed"], "{0.counts[failed]:,} events failed"),
    Rule("missing", lambda seen: seen.counts["missing"],
         "{0.counts[missing]:,} acknowledged events are not in the topic"),
    Rule("twice", lambda seen: seen.counts["twice"],
         "{0.counts[twice]:,} events are in the topic more than once"),
    Rule("unaccounted", lambda seen: seen.counts["unaccounted"],
         "{0.counts[unaccounted]:,} notifications were neither sent nor counted as dropped"),
    Rule("orphans", lambda seen: seen.counts["orphans"],
         "{0.counts[orphans]:,} events were delivered that nobody published"),
    Rule("slower", lambda seen: seen.decision is Decision.EXCEEDS,
         "publish p99 is slower by {0.least} at least; {0.allowed} are allowed"),
)  # fmt: skip
"""Each that applies is a reason why the fault fails."""

DOUBTS: Final[Sequence[Rule[Evidence]]] = (
    Rule("given up", lambda seen: seen.note, "{0.note}"),
    Rule("unread", lambda seen: seen.unread, "{0.unread}"),
    Rule("not measured", lambda seen: not seen.blocks, "not measured"),
    Rule("disturbed", lambda seen: not seen.pairs, "other programs used the machine in every block"),
    Rule("undecided", lambda seen: seen.decision is Decision.OPEN,
         "p99 may be slower by up to {0.most}; {0.allowed} are allowed: more pairs needed"),
)  # fmt: skip
"""Of a fault that does not fail, the first that applies is why it does not pass either."""

ABOUT_LATENCY: Final = frozenset({"slower", "disturbed", "undecided"})
"""The names of the rules that do not apply where latency is not judged."""


def judge_fault(fault: str, blocks: Sequence[Figures], rules: Rules, note: str = "") -> FaultVerdict:
    """Judge one fault. ``blocks``: all finished ones, in the order of time; ``note``: why it was given up."""
    calm = [block.arm == HEALTHY and rules.compares(block) for block in blocks]
    broken = [block for block in blocks if block.arm == fault]
    pairs = [
        (block, [blocks[number] for number in near])
        for place, block in enumerate(blocks)
        if block.arm == fault and rules.compares(block) and (near := neighbours(calm, place))
    ]
    spent = [(block.spent, np.mean([one.spent for one in near], axis=0)) for block, near in pairs]
    p50, p99 = (interval(spent, share) for share in (0.5, 0.99))
    tails = [(block.p99, _mean([one.p99 for one in near])) for block, near in pairs]
    healthy = _mean([one for _, one in tails])
    allowed = rules.allowed(healthy)
    counts = _sums(broken, "failed", "missing", "twice", "unaccounted")
    evidence = Evidence(
        counts=counts | _sums(broken, "orphans"), blocks=len(broken), pairs=p99.pairs,
        decision=decide(p99, allowed), least=_ms(p99.low), most=_ms(p99.high), allowed=_ms(allowed),
        note=note, unread="; ".join(_unread(broken)),
    )  # fmt: skip
    waived = frozenset() if rules.latency_judged else ABOUT_LATENCY
    failures, doubts = (
        sentences((rule for rule in table if rule.name not in waived), evidence)
        for table in (FAILURES, DOUBTS)
    )
    doubtful = Validity.INCONCLUSIVE if doubts else Validity.VALID
    counted = [block.dropped for block in broken if block.notified is not None]
    return FaultVerdict(
        fault=fault,
        verdict=Validity.INVALID if failures else doubtful,
        reasons=tuple(failures or doubts[:1]),
        p50=p50,
        p99=p99,
        pairs=tuple(tails),
        healthy=healthy,
        margin=allowed,
        events=sum(block.events for block in broken),
        dropped=dict(_merged(counted)) if counted else None,
        live_again=tuple(block.live_again for block in broken),
        stall=max((block.stall for block in broken), default=0.0),
        growth=_growth(broken) - _growth([block for block in blocks if block.arm == HEALTHY]),
        errors=dict(_merged([block.errors for block in broken])),
        bite=broken[-1].bite if broken else "",
        **counts,
    )


def _unread(blocks: Sequence[Figures]) -> tuple[str, ...]:
    """What of the topic was not read, and why, each reason once."""
    reasons = dict.fromkeys(reason for block in blocks for reason in block.unread)
    whole = all(block.caught_up for block in blocks)
    return () if whole else ("the topic could not be read to its end", *reasons)


def _slope(blocks: Sequence[Figures]) -> float | None:
    """How fast the publisher's process grows, MiB/min, None where there are too few blocks.

    Least squares through its sizes at the blocks' ends, without the first quarter, which is warming up.
    """
    later = blocks[len(blocks) // 4 :]
    if len(later) < 8:
        return None
    return linear_regression([block.begin / 6e10 for block in later], [block.rss[1] for block in later]).slope


def _growth(blocks: Sequence[Figures]) -> float:
    """How fast the process grows within these blocks, MiB/min: mostly by what is recorded of them, which it
    lets go of between them.
    """
    minutes = sum(block.seconds for block in blocks) / 60
    return sum(block.rss[1] - block.rss[0] for block in blocks) / minutes if minutes else 0.0


def _sums(blocks: Sequence[Figures], *names: str) -> dict[str, int]:
    return {name: sum(abs(getattr(block, name)) for block in blocks) for name in names}


def _merged(counts: Sequence[Mapping[str, int]]) -> Counter[str]:
    return sum(map(Counter, counts), Counter())


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def _ms(value: float) -> str:
    return "any amount" if math.isinf(value) else f"{value:.2f} ms"
