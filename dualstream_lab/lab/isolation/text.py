"""A proof in words: the table, the sentence about all of it, and JUnit for CI."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dualstream_lab.lab.isolation.judgement import Verdict
from dualstream_lab.lab.junit import Case, write_junit

if TYPE_CHECKING:
    from pathlib import Path

    from dualstream_lab.analysis.paired import Interval
    from dualstream_lab.lab.isolation.judgement import FaultVerdict, Judgement
    from dualstream_lab.lab.isolation.proof import Proof

__all__ = ["COLUMNS", "facts", "headline", "row", "write_proof_junit"]

COLUMNS = (
    "fault", "pairs", "Δp50, ms", "Δp99, ms", "allowed", "failed", "missing", "dropped", "live again",
    "verdict",
)  # fmt: skip


def row(fault: FaultVerdict) -> list[str]:
    """As ``COLUMNS``."""
    return [
        fault.fault,
        f"{fault.p99.pairs}",
        _interval(fault.p50),
        _interval(fault.p99),
        f"{fault.margin:.2f}",
        f"{fault.failed:,}",
        f"{fault.missing:,}",
        "not told" if fault.dropped is None else f"{sum(fault.dropped.values()):,}",
        _again(fault.live_again),
        str(fault.verdict),
    ]


def headline(proof: Proof) -> str:
    """The verdict in a sentence."""
    found = proof.judgement
    count = {verdict: sum(one.verdict is verdict for one in found.faults) for verdict in Verdict}
    whose = "This publisher" if proof.options.publisher is None else proof.options.publisher.name
    rate = f"{proof.options.rate:,.0f} events/s"
    if found.verdict is Verdict.PASSES:
        return f"{whose}: at {rate}, no Redis fault of {len(found.faults)} fails or slows a publish."
    if found.healthy_failed or found.healthy_missing:
        return (
            f"{whose} FAILS also with Redis healthy: {found.healthy_failed:,} events failed, "
            f"{found.healthy_missing:,} were acknowledged and are not in the topic."
        )
    if found.verdict is Verdict.FAILS:
        bad = ", ".join(one.fault for one in found.faults if one.verdict is Verdict.FAILS)
        return f"{whose} FAILS: at {rate}, Redis trouble reaches its publishes ({bad})."
    return (
        f"{whose}: inconclusive at {rate}. {count[Verdict.PASSES]} of {len(found.faults)} faults pass, "
        f"{count[Verdict.OPEN]} are not decided."
    )


def facts(proof: Proof) -> list[tuple[str, str]]:
    """What is true of all blocks together, and where it was measured."""
    found = proof.judgement
    machine = proof.facts["machine"]
    events = (
        f"{found.events:,} in {found.blocks} blocks; {found.durable:,} durable, {found.failed:,} failed, "
        f"{found.missing:,} acknowledged and not in the topic"
    )
    shown = ("python", "dualstream-lab", "aiokafka", "redis")
    versions = ", ".join(f"{n} {proof.facts['versions'][n]}" for n in shown if n in proof.facts["versions"])
    kind = f"{machine['cores']} cores ({machine['architecture']}, {machine['system']})"
    rows = [
        ("events", events),
        ("healthy publish", f"p50 {_known(found.healthy_p50)}, p99 {_known(found.healthy_p99)}"),
        ("notifications", _notifications(found)),
        ("event loop", f"not served for {found.stall:.1f} ms at worst"),
    ]
    if found.disturbed:
        rows.append(
            (
                "other programs",
                f"used the machine in {found.disturbed} blocks, whose latencies are not compared",
            )
        )
    if found.slope is not None:
        rows.append(("memory", f"{found.slope:+.2f} MiB/min"))
    if found.nameless:
        rows.append(
            ("not known", f"{found.nameless:,} records have no id: neither header ce_id nor id in their JSON")
        )
    if found.unread:
        rows.append(("not read", "; ".join(found.unread)))
    if found.wrong_source:
        rows.append(
            (
                "other events",
                f"{found.wrong_source:,} records have an event's id, and name another source than its own",
            )
        )
    rows += [
        ("machine", f"{kind}, brokers and load together; {versions}"),
        ("took", f"{proof.facts['seconds']:.0f} s, from {proof.facts['began']}"),
    ]
    return rows


def _notifications(found: Judgement) -> str:
    if found.notified is None:
        return f"{found.heard:,} heard; this publisher has no counters"
    left = sum(fault.unaccounted for fault in found.faults)
    return (
        f"{found.durable:,} published = {found.notified:,} taken by Redis + {found.dropped:,} dropped and "
        f"counted{f' + {left:,} not accounted for' if left else ''}; {found.heard:,} heard"
    )


def _interval(found: Interval) -> str:
    if not found.pairs:
        return "-"
    if found.pairs < 2 or math.isinf(found.value):
        return _signed(found.value)
    return f"{_signed(found.value)} [{_signed(found.low)}, {_signed(found.high)}]"


def _known(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.2f} ms"


def _signed(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"{value:+,.2f}" if abs(value) < 100 else f"{value:+,.0f}"


def _again(times: tuple[float | None, ...]) -> str:
    known = [time for time in times if time is not None]
    if not times:
        return "-"
    if len(known) < len(times):
        return f"not in {len(times) - len(known)} of {len(times)}"
    return f"{max(known):.2f} s"


def write_proof_junit(proof: Proof, file: Path) -> None:
    """A test case a fault; an inconclusive one is an error, not a failure. Raises OSError."""
    write_junit(
        file,
        "dualstream prove redis-isolation",
        map(_case, proof.judgement.faults),
        {"headline": headline(proof), **dict(facts(proof))},
    )


def _case(fault: FaultVerdict) -> Case:
    reasons = "; ".join(fault.reasons)
    return Case(
        name=fault.fault,
        classname="dualstream.redis-isolation",
        text="\n".join(f"{name}: {value}" for name, value in zip(COLUMNS, row(fault), strict=True)),
        failure=reasons if fault.verdict is Verdict.FAILS else None,
        error=f"inconclusive: {reasons}" if fault.verdict is Verdict.OPEN else None,
    )
