"""A proof for people and for CI: the table, the sentence about all of it, a page, JUnit."""

from __future__ import annotations

import math
import shlex
from functools import partial
from typing import TYPE_CHECKING, Final

from dualstream_lab.analysis.paired import LEVEL, LOOKS, Interval
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.lab.output.export import as_lines
from dualstream_lab.units import milliseconds
from dualstream_lab.verdict.checker import Conclusion, Criterion, Validity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from dualstream_lab.lab.isolation.judgement import FaultVerdict, Judgement
    from dualstream_lab.lab.isolation.proof import Options, Proof

COLUMNS = (
    "fault", "pairs", "Δp50, ms", "Δp99, ms", "allowed", "failed", "missing", "dropped", "live again",
    "verdict",
)  # fmt: skip


def row(fault: FaultVerdict) -> list[str]:
    """The judgement of a fault as a row of texts, a cell for each of ``COLUMNS``."""
    return [
        fault.fault,
        f"{fault.p99.pairs}",
        _interval(fault.p50),
        _interval(fault.p99),
        "not judged" if math.isinf(fault.margin) else f"{fault.margin:.2f}",
        f"{fault.failed:,}",
        f"{fault.missing:,}",
        "not told" if fault.dropped is None else f"{sum(fault.dropped.values()):,}",
        _again(fault.live_again),
        str(fault.verdict),
    ]


def table(proof: Proof) -> pd.DataFrame:
    """The judgements of the faults as texts, a row each."""
    import pandas as pd  # noqa: PLC0415  (a proof in a terminal needs none)

    return pd.DataFrame([row(fault) for fault in proof.judgement.faults], columns=list(COLUMNS))


def headline(proof: Proof) -> str:
    """The verdict of the proof in a sentence; where latency was not judged, another one says so."""
    return _verdict(proof) + " Latency was not judged." * (not proof.judgement.latency_judged)


def _verdict(proof: Proof) -> str:
    found = proof.judgement
    count = {verdict: sum(one.verdict is verdict for one in found.faults) for verdict in Validity}
    whose = "This publisher" if proof.options.publisher is None else proof.options.publisher.name
    rate = f"{proof.options.rate:,.0f} events/s"
    if found.verdict is Validity.VALID:
        return f"{whose}: at {rate}, no Redis fault of {len(found.faults)} {_claim(found)} a publish."
    if found.healthy_failed or found.healthy_missing:
        return (
            f"{whose} FAILS also with Redis healthy: {found.healthy_failed:,} events failed, "
            f"{found.healthy_missing:,} were acknowledged and are not in the topic."
        )
    if found.verdict is Validity.INVALID:
        bad = ", ".join(one.fault for one in found.faults if one.verdict is Validity.INVALID)
        return f"{whose} FAILS: at {rate}, Redis trouble reaches its publishes ({bad})."
    return (
        f"{whose}: inconclusive at {rate}. {count[Validity.VALID]} of {len(found.faults)} faults pass, "
        f"{count[Validity.INCONCLUSIVE]} undecided."
    )


def _claim(judgement: Judgement) -> str:
    """What Redis trouble never does to a publish, as far as it was judged."""
    return "fails or slows" if judgement.latency_judged else "fails, loses or repeats"


def overview(proof: Proof) -> list[tuple[str, str]]:
    """What is true of all blocks together, and where it was measured, as rows of a name and a text."""
    found, machine, versions = proof.judgement, proof.metadata["machine"], proof.metadata["versions"]
    shown = ("python", "dualstream-lab", "aiokafka", "redis")
    used = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    kind = f"{machine['cores']} cores ({machine['architecture']}, {machine['system']})"
    events = (
        f"{found.events:,} in {found.blocks} blocks; {found.durable:,} durable, {found.failed:,} failed, "
        f"{found.missing:,} acknowledged and not in the topic"
    )
    disturbed = f"used the machine in {found.disturbed} blocks, whose latencies are not compared"
    nameless = f"{found.nameless:,} records have no id: neither header ce_id nor id in their JSON"
    others = f"{found.wrong_source:,} records have an event's id, and name another source than its own"
    rows = [
        ("events", events),
        ("latency", not found.latency_judged and "not judged: shown only"),
        ("healthy publish", f"p50 {milliseconds(found.healthy_p50)}, p99 {milliseconds(found.healthy_p99)}"),
        ("notifications", _notifications(found)),
        ("event loop", f"not served for {found.stall:.1f} ms at worst"),
        ("other programs", found.disturbed and disturbed),
        ("memory", found.slope is not None and f"{found.slope:+.2f} MiB/min"),
        ("not known", found.nameless and nameless),
        ("not read", "; ".join(found.unread)),
        ("other events", found.wrong_source and others),
        ("machine", f"{kind}, brokers and load together; {used}"),
        ("took", f"{proof.metadata['seconds']:.0f} s, from {proof.metadata['began']}"),
    ]
    return [(name, str(text)) for name, text in rows if text]


def _notifications(judgement: Judgement) -> str:
    if judgement.notified is None:
        return f"{judgement.delivered:,} delivered; this publisher has no counters"
    left = sum(fault.unaccounted for fault in judgement.faults)
    return (
        f"{judgement.durable:,} published = {judgement.notified:,} taken by Redis + {judgement.dropped:,} "
        f"dropped and counted{f' + {left:,} not accounted for' if left else ''}; "
        f"{judgement.delivered:,} delivered"
    )


def _interval(interval: Interval) -> str:
    if not interval.pairs:
        return "-"
    if interval.pairs < 2 or math.isinf(interval.value):
        return _signed(interval.value)
    return f"{_signed(interval.value)} [{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "missing" if math.isinf(value) else f"{value:+,.2f}" if abs(value) < 100 else f"{value:+,.0f}"


def _again(times: tuple[float | None, ...]) -> str:
    known = [time for time in times if time is not None]
    if not times:
        return "-"
    if len(known) < len(times):
        return f"not in {len(times) - len(known)} of {len(times)}"
    return f"{max(known):.2f} s"


_PASSES: Final = {Validity.VALID: True, Validity.INVALID: False, Validity.INCONCLUSIVE: None}


def plot_proof(proof: Proof, ax: Axes | None = None) -> Axes:
    """Draw a row for each fault: what each pair says, the interval of all, and what is allowed (ms)."""
    from dualstream_lab.analysis import plot_differences  # noqa: PLC0415

    return plot_differences(
        [
            (one.fault, [bad - good for bad, good in one.pairs], one.p99, one.margin, _PASSES[one.verdict])
            for one in proof.judgement.faults
        ],
        ax,
    )


def page(proof: Proof) -> str:
    """The proof as an HTML page, which loads nothing from anywhere."""
    # matplotlib takes half a second
    from dualstream_lab.lab.output.page import MOODS, canvas, drawing, render  # noqa: PLC0415

    found = proof.judgement
    axes = plot_proof(proof, canvas(height=1.2 + 0.42 * len(found.faults)))
    return render(
        "proof.html.j2",
        title=f"Redis isolation: {found.verdict}",
        subject=f"Redis trouble never {_claim(found)} a publish",
        headline=headline(proof),
        mood=MOODS[found.verdict],
        proof=proof,
        header=COLUMNS,
        rows=[row(fault) for fault in found.faults],
        picture=drawing(axes, label="Paired differences"),
        level=LEVEL,
        looks=LOOKS,
        facts=overview(proof),
        says={fault.fault: CATALOGUE[fault.fault].says for fault in found.faults},
        command=_command(proof.options),
    )


def _command(options: Options) -> str:
    """The command line that makes the same proof again."""
    words = ["dualstream", "prove", "redis-isolation", "--rate", f"{options.rate:g}"]
    words += ["--time", f"{options.time:g}s", "--block", f"{options.timing.length:g}"]
    words += ["--faults", ",".join(options.faults), "--seed", f"{options.seed}"]
    if options.rules.latency_judged:
        words += ["--margin", f"{options.rules.ms:g}", "--others", f"{options.rules.background:g}"]
    else:
        words.append("--functional")
    if options.quick:
        words.append("--quick")
    if options.publisher is not None:
        words += ["--publisher", str(options.publisher)]
    return shlex.join(words)


def check_proof(proof: Proof) -> Conclusion:
    """A criterion for each fault, and one where publishing does not work without any either."""
    found = proof.judgement
    criterion = partial(Criterion, group=f"dualstream.{proof.metadata['proof']}")
    criteria = []
    if found.healthy_failed or found.healthy_missing:
        reason = f"{found.healthy_failed:,} events failed, {found.healthy_missing:,} are not in the topic"
        name = "publishing with Redis healthy"
        criteria.append(criterion(name=name, validity=Validity.INVALID, reason=reason))
    if found.unread:
        reason = "; ".join(found.unread)
        criteria.append(criterion(name="the topic was read", validity=Validity.INCONCLUSIVE, reason=reason))
    for fault in found.faults:
        reason = "inconclusive: " * (fault.verdict is Validity.INCONCLUSIVE) + "; ".join(fault.reasons)
        text = as_lines(COLUMNS, row(fault))
        criteria.append(criterion(name=fault.fault, validity=fault.verdict, text=text, reason=reason))
    return Conclusion(
        experiment=f"prove {proof.metadata['proof']}", state=proof.state, criteria=tuple(criteria),
        about={"headline": headline(proof), **dict(overview(proof))}, values=proof.as_dict(),
    )  # fmt: skip
