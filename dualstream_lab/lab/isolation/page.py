"""A proof as one self-contained page, to show to one's team."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dualstream_lab.analysis.paired import LEVEL, LOOKS
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.lab.isolation.judgement import Verdict
from dualstream_lab.lab.isolation.text import COLUMNS, facts, headline, row

if TYPE_CHECKING:
    from dualstream_lab.lab.isolation.judgement import FaultVerdict
    from dualstream_lab.lab.isolation.proof import Options, Proof

__all__ = ["command", "page"]

_MOODS = {Verdict.PASSES: "good", Verdict.FAILS: "bad", Verdict.OPEN: "open"}


def page(proof: Proof) -> str:
    """HTML; nothing is loaded from anywhere."""
    # matplotlib takes half a second
    from dualstream_lab.lab.isolation.picture import plot_proof  # noqa: PLC0415
    from dualstream_lab.lab.output import canvas, drawing, render  # noqa: PLC0415

    found = proof.judgement
    axes = plot_proof(proof, canvas(height=1.2 + 0.42 * len(found.faults)))
    return render(
        "proof.html.j2",
        title=f"Redis isolation: {found.verdict}",
        subject="Redis trouble never fails or slows a publish",
        headline=headline(proof),
        mood=_MOODS[found.verdict],
        interrupted=proof.state != "finished",
        quick=proof.options.quick,
        faults=[
            {"name": one.fault, "reasons": "; ".join(one.reasons), "errors": _errors(one)}
            for one in found.faults
            if one.reasons
        ],
        header=COLUMNS,
        rows=[row(fault) for fault in found.faults],
        picture=drawing(axes, label="Paired differences"),
        how=_how(proof.options),
        facts=facts(proof),
        evidence=[_evidence(fault) for fault in found.faults],
        command=command(proof.options),
        kept=proof.path.name,
    )


def command(options: Options) -> str:
    """What makes the same proof again."""
    words = ["dualstream", "prove", "redis-isolation", "--rate", f"{options.rate:g}"]
    words += ["--time", f"{options.time:g}s", "--block", f"{options.timing.length:g}"]
    words += ["--faults", ",".join(options.faults), "--seed", f"{options.seed}"]
    words += ["--margin", f"{options.rules.ms:g}", "--others", f"{options.rules.others:g}"]
    if options.quick:
        words.append("--quick")
    if options.publisher is not None:
        words += ["--publisher", str(options.publisher)]
    return shlex.join(words)


def _errors(fault: FaultVerdict) -> str:
    return "; ".join(f"{text} ({count:,})" for text, count in list(fault.errors.items())[:3])


def _evidence(fault: FaultVerdict) -> tuple[str, ...]:
    says = CATALOGUE[fault.fault].says
    return fault.fault, says, fault.bite, f"{fault.stall:.1f} ms", f"{fault.growth:+.1f} MiB/min"


def _how(options: Options) -> str:
    timing, rules = options.timing, options.rules
    return (
        f"Blocks of {timing.length:g} s at {options.rate:,.0f} events/s, healthy and with a fault in turn, "
        "all of the same seed, by one warm publisher in one process. Latency is from the intended time, so "
        "that no waiting is left out; what failed counts as never. Durable is what the topic itself holds, "
        "by id, once. A fault passes when nothing failed, nothing is missing, and the upper end of the "
        f"interval of the paired p99 difference is at most {rules.ms:g} ms, or {rules.share:.0%} of the "
        "healthy p99 if that is more. The difference is that of all blocks with the fault together, less "
        "all healthy ones beside them together. Its interval is of pairs, never of events: the error is that "
        f"of a bootstrap over pairs, with Student's t, at {LEVEL:.1%}. Pairs are added until it is decided; "
        f"it may be found good after {', '.join(map(str, LOOKS))} pairs. Over all these looks, a publisher "
        "that is slower by what is allowed, or by more, passes in about 5 % of cases."
    )
