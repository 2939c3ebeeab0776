"""What the blocks of a proof come to: a verdict a fault, and one for all. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, linear_regression
from typing import Any, Final, NamedTuple

import numpy as np

from dualstream_lab.analysis.paired import Decision, Interval, decide, interval, neighbours
from dualstream_lab.lab.isolation.blocks import HEALTHY, Figures
from dualstream_lab.lab.output.export import as_plain
from dualstream_lab.verdict.checker import Validity


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How much slower the p99 may be: ``share`` of the healthy p99, and ``ms`` at least. ``background``:
    cores that other programs may use meanwhile; latencies of a block with more are not compared.
    """

    share: float = 0.1
    ms: float = 1.0
    background: float = 0.1

    def allowed(self, healthy: float) -> float:
        """How much slower the p99 may be, in ms."""
        return max(self.share * healthy, self.ms) if math.isfinite(healthy) else self.ms


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultVerdict:
    """One fault. Latencies in ms; ``live_again``: s, of each block; None where it did not come within it.

    ``p50``, ``p99``: of the differences. ``pairs``: p99 of each block, and of the healthy ones beside it;
    ``healthy``: the mean of these. ``reasons``: why it does not pass. ``dropped``: notifications that
    the publisher counted as dropped, by reason; None where it has no counters.
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
    """Of all blocks together. ``slope``: MiB/min of the publisher's process over the proof, None of too few.

    ``healthy_failed``, ``healthy_missing``: what went wrong without any fault, which is no isolation either.
    ``unread``: what of the topic was not read, of any block: what is missing there nobody knows.
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
        """As what a JSON file holds, where infinite and undefined numbers are texts."""
        found: dict[str, Any] = as_plain(asdict(self) | {"verdict": self.verdict})
        return found


def judge(
    blocks: Sequence[Figures], faults: Sequence[str], rules: Rules, notes: Mapping[str, str]
) -> Judgement:
    """``blocks`` in the order of time; those that did not end well are left out. ``notes``: of a fault that
    was given up, why.
    """
    blocks = [block for block in blocks if block.state == "finished"]
    healthy = [block for block in blocks if block.arm == HEALTHY]
    calm = [block for block in healthy if block.background <= rules.background]
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
        disturbed=sum(block.background > rules.background for block in blocks),
        slope=_slope(blocks),
        stall=max((block.stall for block in blocks), default=0.0),
        healthy_p50=_mean([block.p50 for block in calm]),
        healthy_p99=_mean([block.p99 for block in calm]),
        **_sums(blocks, "events", "durable", "failed", "missing", "delivered", "nameless", "wrong_source"),
    )


def judge_fault(fault: str, blocks: Sequence[Figures], rules: Rules, note: str = "") -> FaultVerdict:
    """Judge one fault by ``blocks``: all finished ones, in the order of time."""
    calm = [block.arm == HEALTHY and block.background <= rules.background for block in blocks]
    broken = [block for block in blocks if block.arm == fault]
    pairs = [
        (block, [blocks[number] for number in near])
        for place, block in enumerate(blocks)
        if block.arm == fault and block.background <= rules.background and (near := neighbours(calm, place))
    ]
    spent = [(block.spent, np.mean([one.spent for one in near], axis=0)) for block, near in pairs]
    p50, p99 = (interval(spent, share) for share in (0.5, 0.99))
    tails = [(block.p99, _mean([one.p99 for one in near])) for block, near in pairs]
    healthy = _mean([one for _, one in tails])
    allowed = rules.allowed(healthy)
    counts = _sums(broken, *_COUNTED)
    decision, unread = decide(p99, allowed), "; ".join(_unread(broken))
    seen = _Seen(counts, p99.pairs, decision, note=note, unread=unread, blocks=len(broken))
    applying = [(verdict, text) for _, verdict, applies, text in _RULES if applies(seen)]
    reasons = [one for one in applying if one[0] is Validity.INVALID] or applying[:1]
    limits = {"low": _ms(p99.low), "high": _ms(p99.high), "allowed": _ms(allowed)}
    counted = [block.dropped for block in broken if block.notified is not None]
    return FaultVerdict(
        fault=fault,
        verdict=reasons[0][0] if reasons else Validity.VALID,
        reasons=tuple(text.format(note=note, unread=unread, **limits, **counts) for _, text in reasons),
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
        **{name: count for name, count in counts.items() if name != "orphans"},
    )


class _Seen(NamedTuple):
    """What the rules look at: of all ``blocks`` with the fault what was counted, how many pairs say what,
    why the fault was given up, if it was, and what of the topic was not read.
    """

    counts: Mapping[str, int]
    pairs: int
    decision: Decision
    note: str
    unread: str
    blocks: int


_COUNTED: Final = ("failed", "missing", "twice", "unaccounted", "orphans")
_FAILS, _OPEN = Validity.INVALID, Validity.INCONCLUSIVE
# Name, verdict, when it applies, what it says: all that fail a fault are said, else the first that applies.
_RULES: Final[tuple[tuple[str, Validity, Callable[[_Seen], object], str], ...]] = (
    ("failed", _FAILS, lambda seen: seen.counts["failed"], "{failed:,} events failed"),
    ("missing", _FAILS, lambda seen: seen.counts["missing"],
     "{missing:,} acknowledged events are not in the topic"),
    ("twice", _FAILS, lambda seen: seen.counts["twice"], "{twice:,} events are in the topic more than once"),
    ("unaccounted", _FAILS, lambda seen: seen.counts["unaccounted"],
     "{unaccounted:,} notifications were neither sent nor counted as dropped"),
    ("orphans", _FAILS, lambda seen: seen.counts["orphans"],
     "{orphans:,} events were delivered that nobody published"),
    ("slower", _FAILS, lambda seen: seen.decision is Decision.EXCEEDS,
     "publish p99 is slower by {low} at least; {allowed} are allowed"),
    ("given up", _OPEN, lambda seen: seen.note, "{note}"),
    ("unread", _OPEN, lambda seen: seen.unread, "{unread}"),
    ("not measured", _OPEN, lambda seen: not seen.blocks, "not measured"),
    ("disturbed", _OPEN, lambda seen: not seen.pairs, "other programs used the machine in every block"),
    ("too few pairs", _OPEN, lambda seen: seen.decision is Decision.OPEN,
     "p99 may be slower by up to {high}; {allowed} are allowed: more pairs needed"),
)  # fmt: skip


def _unread(blocks: Sequence[Figures]) -> tuple[str, ...]:
    """What of the topic was not read, and why, each reason once."""
    reasons = dict.fromkeys(reason for block in blocks for reason in block.unread)
    whole = all(block.caught_up for block in blocks)
    return () if whole else ("the topic could not be read to its end", *reasons)


def _slope(blocks: Sequence[Figures]) -> float | None:
    """Least squares through the sizes at the blocks' ends; without the first quarter, which is warming up."""
    later = blocks[len(blocks) // 4 :]
    if len(later) < 8:
        return None
    return linear_regression([block.begin / 6e10 for block in later], [block.rss[1] for block in later]).slope


def _growth(blocks: Sequence[Figures]) -> float:
    """MiB/min within these blocks: mostly what is recorded of them, and let go of between them."""
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
