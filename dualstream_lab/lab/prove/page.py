"""A proof as one self-contained page, to show to one's team."""

from __future__ import annotations

import html
import io
import shlex
from typing import TYPE_CHECKING

from dualstream_lab.analysis.paired import LEVEL, LOOKS
from dualstream_lab.faults.catalogue import CATALOGUE
from dualstream_lab.lab.prove.report import COLUMNS, facts, headline, row

if TYPE_CHECKING:
    from dualstream_lab.lab.prove.judgement import FaultVerdict
    from dualstream_lab.lab.prove.proof import Options, Proof

__all__ = ["command", "page"]

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
h1 { font-size: 1.1rem; font-weight: 600; color: #555; margin: 0 }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
.verdict { font-size: 1.6rem; line-height: 1.3; margin: .4rem 0 0; padding: .8rem 1rem;
           border-left: .5rem solid }
.passes { border-color: #009E73; background: #eef8f4 }
.FAILS { border-color: #D55E00; background: #fdf1ea }
.inconclusive { border-color: #E69F00; background: #fdf7e8 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid #e4e4e4; white-space: nowrap }
th { font-weight: 600; color: #555 }
th:first-child, td:first-child, th:last-child, td:last-child, .facts td { text-align: left }
.facts td { white-space: normal; vertical-align: top }
.facts th { text-align: left }
.facts td:first-child { color: #555; white-space: nowrap }
td.passes, td.FAILS, td.inconclusive { background: none; font-weight: 600; border-color: #e4e4e4 }
td.passes { color: #00694d } td.FAILS { color: #a84300 } td.inconclusive { color: #8a5f00 }
svg { max-width: 100%; height: auto }
pre { background: #f6f6f6; padding: .7rem 1rem; white-space: pre-wrap }
p.how { max-width: 46rem; color: #444 }
"""


def page(proof: Proof) -> str:
    """HTML; nothing is loaded from anywhere."""
    found, said = proof.judgement, html.escape
    cut = (
        ""
        if proof.state == "finished"
        else "<p>It was interrupted: this is what was measured until then.</p>"
    )
    quick = "<p>This is the quick form: short blocks, and the most telling faults only.</p>"
    reasons = "".join(
        f"<li><b>{said(one.fault)}</b>: {said('; '.join(one.reasons))}{_errors(one)}</li>"
        for one in found.faults
        if one.reasons
    )
    rows = "".join(_row(fault) for fault in found.faults)
    heads = "".join(f"<th>{said(name)}</th>" for name in COLUMNS)
    environment = "".join(f"<tr><td>{said(n)}</td><td>{said(v)}</td></tr>" for n, v in facts(proof))
    evidence = "".join(
        f"<tr><td>{said(one.fault)}</td><td>{said(CATALOGUE[one.fault].says)}</td>"
        f"<td>{said(one.bite)}</td><td>{one.stall:.1f} ms</td><td>{one.growth:+.1f} MiB/min</td></tr>"
        for one in found.faults
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Redis isolation: {said(found.verdict)}</title><style>{_STYLE}</style></head><body>
<h1>Redis trouble never fails or slows a publish</h1>
<p class="verdict {found.verdict}">{said(headline(proof))}</p>
{cut}{quick if proof.options.quick else ""}
{f"<ul>{reasons}</ul>" if reasons else ""}
<h2>Fault by fault</h2>
<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>
<h2>What each pair says</h2>
{_picture(proof)}
<p class="how">A dot is a pair: the p99 of a block with the fault, less the mean of the healthy blocks around
it. Bars are the intervals for all of them together, black lines what is allowed.</p>
<h2>How it was decided</h2>
<p class="how">{said(_how(proof.options))}</p>
<h2>All blocks together</h2>
<table class="facts">{environment}</table>
<h2>What was broken, and that it bit</h2>
<div class="scroll"><table class="facts"><thead><tr><th>fault</th><th>what is done</th><th>as another client
saw it</th><th>event loop, longest stall</th><th>memory, less healthy</th></tr></thead>
<tbody>{evidence}</tbody></table></div>
<h2>Again</h2>
<pre>{said(command(proof.options))}</pre>
<p class="how">Every event of every block is kept in <code>{said(proof.path.name)}</code>; from it,
<code>dualstream prove redis-isolation --from {said(proof.path.name)}</code> judges again.</p>
</body></html>
"""


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


def _row(fault: FaultVerdict) -> str:
    cells = row(fault)
    plain = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells[:-1])
    return f'<tr>{plain}<td class="{fault.verdict}">{html.escape(cells[-1])}</td></tr>'


def _errors(fault: FaultVerdict) -> str:
    shown = [f"{html.escape(text)} ({count:,})" for text, count in list(fault.errors.items())[:3]]
    return f"<br>{'; '.join(shown)}" if shown else ""


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


def _picture(proof: Proof) -> str:
    """As SVG."""
    import matplotlib as mpl  # noqa: PLC0415  (half a second)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    from dualstream_lab.lab.prove.picture import plot_proof  # noqa: PLC0415

    plot_proof(proof)
    figure = plt.gcf()
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "dualstream", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    plt.close(figure)
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :].replace(
        "<svg", '<svg role="img" aria-label="Paired differences"', 1
    )
