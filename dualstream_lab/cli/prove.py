"""``dualstream prove``: proofs with a verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource
from rich.text import Text

from dualstream_lab.cli.console import progress_bar, say, show_rows, show_table, stderr, stdout
from dualstream_lab.cli.interrupts import Interrupts
from dualstream_lab.cli.options import conclude, duration, output, path, verdict_files
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.isolation.blocks import Timing
from dualstream_lab.lab.isolation.judgement import Rules
from dualstream_lab.lab.isolation.proof import QUICK, Options, Progress, Proof, redis_faults
from dualstream_lab.lab.isolation.proof import prove as make_proof
from dualstream_lab.lab.isolation.text import COLUMNS, check_proof, headline, overview, page, row
from dualstream_lab.units import quantity
from dualstream_lab.verdict.checker import Validity

_COLORS = {Validity.VALID: "green", Validity.INVALID: "bold red", Validity.INCONCLUSIVE: "yellow"}
# Events/s, and the seconds of everything, of a block and of the warm-up, where options leave them out.
_WHOLE = (10_000.0, 880.0, 3.0, 40.0)
_QUICK = (10_000.0, 170.0, 2.5, 15.0)
_FUNCTIONAL = (2000.0, 300.0, 2.5, 2.0)
_NOT_FUNCTIONAL = {"quick": "--quick", "margin": "--margin", "background": "--others", "again": "--from"}


@click.group(context_settings={"max_content_width": 100})
def prove() -> None:
    """Prove what the pattern promises, on real brokers, with a verdict and a page to show."""


@prove.command(
    "redis-isolation",
    epilog="Example:  dualstream prove redis-isolation --publisher my_publisher.py --rate 2000 --html p.html",
)
@click.option("--quick", is_flag=True, help=f"Take 3 minutes: short blocks, and only {', '.join(QUICK)}.")
@click.option(
    "--functional",
    is_flag=True,
    help="Judge failures, losses and repeats only, on any machine, in about 2 minutes: latency is shown, and "
    "not judged. For CI.",
)
@click.option("--rate", type=float, help="Publish so many events/s.  [default: 10000; --functional: 2000]")
@click.option(
    "--faults",
    metavar="A,B",
    help="Inject only these faults.  [default: all of Redis in dualstream chaos --list]",
)
@click.option(
    "--time",
    "limit",
    type=duration,
    help="Take so long for everything.  [default: 880s; --quick: 170s; --functional: 300s]",
)
@path("--publisher", metavar="FILE", help="Prove it of your own publisher: a Python file, see above.")
@click.option(
    "--block",
    type=float,
    help="Judge so many seconds of a block.  [default: 3; --quick and --functional: 2.5]",
)
@click.option(
    "--margin",
    type=float,
    default=1.0,
    help="Allow such a difference in publish p99, ms; or a tenth of the healthy p99, if that is more.",
)
@click.option(
    "--others",
    "background",
    type=float,
    default=0.3,
    help="Allow other programs so many cores; latencies of blocks with more are not compared.",
)
@click.option("--seed", type=int, default=1, help="Draw another plan of the same kind.")
@verdict_files
@output("--html", "html_file", help="Write a page to show to your team.")
@path("--runs", "root", default="runs", help="Keep the blocks in this directory.")
@path("--from", "again", metavar="DIR", help="Measure nothing: judge the kept blocks of a proof again.")
@click.pass_context
def redis_isolation(
    ctx: click.Context, quick: bool, functional: bool, rate: float | None, faults: str | None,
    limit: float | None, publisher: Path | None, block: float | None, margin: float, background: float,
    seed: int, junit: Path | None, json_file: Path | None, html_file: Path | None, root: Path,
    again: Path | None,
) -> int:  # fmt: skip
    """Prove that Redis trouble never fails or slows a publish.

    Blocks of load, healthy and with a Redis fault in turn, on a local Kafka and Redis of its own. A fault
    passes when no publish failed, every acknowledged event is in the topic, once, and the publish p99 is not
    slower than beside it, by the upper end of an interval over the pairs. Pairs are added until that is
    decided. With --functional the p99 decides nothing: one short block a fault shows failures, losses and
    repeats; what fails only after a longer wait for Redis than the fault's (1.5 s) needs a longer --block.

    Your own publisher is a file with `async def make_publisher(kafka_url, redis_url, topic)`, which returns
    an object with `async def publish_batch(self, events)` (return: all are durable; raise: they are not) and,
    if you like, `async def close(self)`. Each event is a dualstream_lab.Event. Its word is not trusted: the
    topic is read, and an event is found by the record's header ce_id or, without it, by `id` of the JSON
    object in its value; on Redis, by its id anywhere in a message. examples/my_publisher.py shows how.

    Exit codes: 0 every fault passes (with --functional that says nothing of latency), 99 one fails, 4
    inconclusive within the time, 2 bad arguments or a file that cannot be used, 3 a broker did not start, 130
    interrupted (what was measured is judged and kept).
    """
    for name, option in _NOT_FUNCTIONAL.items():
        if functional and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--functional judges no latency, in a form of its own: leave {option} out")
    if again is not None:
        proof = Proof.of(again)
    else:
        chosen = QUICK if quick else redis_faults()
        if faults is not None:
            chosen = tuple(name.strip() for name in faults.split(",") if name.strip())
        usual_rate, time, length, first = _FUNCTIONAL if functional else _QUICK if quick else _WHOLE
        timing = Timing(length=length if block is None else block, first=first)
        timing = replace(timing, after=min(1.0, timing.length / 2))
        rules = Rules(ms=margin, background=background, latency_judged=not functional)
        options = Options(
            faults=chosen, rate=usual_rate if rate is None else rate, time=limit or time, timing=timing,
            rules=rules, publisher=publisher, seed=seed, quick=quick,
        )  # fmt: skip
        proof = _measure(options, root)
    _show(proof)
    web_page = (html_file, lambda file: file.write_text(page(proof), encoding="utf-8"))
    code = conclude(check_proof, proof, web_page, junit=junit, json_file=json_file)
    if html_file is not None:
        say(f"next: show {html_file} to your team")
    return code


def _measure(options: Options, root: Path) -> Proof:
    short = "the quick form, with the most telling faults: " if options.quick else ""
    if not options.rules.latency_judged:
        short = "failures, losses and repeats are judged, and latency is not: "
    say(
        f"{short}{quantity(len(options.faults), 'fault')} at {options.rate:,.0f} events/s, in blocks of "
        f"{options.timing.length:g} s; {quantity(round(options.time / 60), 'minute')} at most …"
    )
    said: set[str] = set()
    with Interrupts() as interrupts, progress_bar(options.time) as bar:

        def show(progress: Progress) -> None:
            if not stderr.is_terminal and progress.doing not in said:  # of each fault once, for a log
                said.add(progress.doing)
                say(f"{progress.seconds:5.1f} s  {progress.doing}")
            spent = f"{progress.seconds / 60:.1f} of at most {progress.time / 60:.0f} min"
            line = f"{progress.decided} of {quantity(progress.faults, 'fault')} decided; now {progress.doing}"
            bar(progress.seconds, f"{spent}  {line}")

        return interrupts.run(make_proof(options, root=root, say=say, show=show))


def _show(proof: Proof) -> None:
    rows: list[tuple[str | Text, ...]] = []
    for fault in proof.judgement.faults:
        *cells, verdict = (cell.replace(" [", "\n[") for cell in row(fault))
        rows.append((*cells, Text(verdict, _COLORS[fault.verdict])))
    latency = proof.judgement.latency_judged
    title = f"Publish with each fault, less healthy beside it{'' if latency else ' (shown, not judged)'}"
    align = f"l{'r' * (len(COLUMNS) - 2)}l"
    show_table(title, COLUMNS, rows, align=align, no_wrap=True, padding=(0, 1, 0, 0))
    for fault in proof.judgement.faults:
        for reason in fault.reasons:
            stdout.print(f"{fault.fault}: {reason}")
        for text, count in list(fault.errors.items())[:3]:
            stdout.print(f"  {quantity(count, 'time')}: {text}")
    stdout.print()
    show_rows(overview(proof))
    for problem in proof.problems:
        say(f"missing: {problem}")
    if proof.state != "finished":
        say("The proof is not complete: it was interrupted." if proof.state == "interrupted" else
            "The proof is not complete: it died, or still runs.")  # fmt: skip
    color = _COLORS[proof.judgement.verdict]
    stdout.print(f"\n{headline(proof)}", style=color)
    stdout.print(f"blocks  {proof.path}")
    undecided = [fault.fault for fault in proof.judgement.faults if fault.verdict is Validity.INCONCLUSIVE]
    if undecided and proof.judgement.verdict is Validity.INCONCLUSIVE:
        form = "" if latency else "--functional "
        say(f"next: those that are open, by themselves:  {form}--faults {','.join(undecided)} --time 15m")
