"""``dualstream run``, ``smoke``, ``find-rate`` and ``runs``: load with a verdict."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from dualstream_lab.cli import INTERRUPTED, MISSED
from dualstream_lab.cli.console import say, stderr, stdout
from dualstream_lab.cli.ledger import show_recovery
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, RecordingError, StackError
from dualstream_lab.lab.find_rate import Search, at_rate, find_rate, probe_of
from dualstream_lab.lab.result import Run
from dualstream_lab.lab.runner import run_scenario
from dualstream_lab.lab.scenario import Scenario, shipped_scenarios
from dualstream_lab.load.measures import MEASURES, is_time
from dualstream_lab.load.thresholds import Threshold
from dualstream_lab.recording import list_runs
from dualstream_lab.stack import LocalStack

if TYPE_CHECKING:
    from dualstream_lab.lab.find_rate import Probe
    from dualstream_lab.lab.progress import Progress as RunProgress
    from dualstream_lab.recording import Manifest

__all__ = [
    "ended_in_order",
    "find_rate_command",
    "options",
    "run",
    "run_and_tell",
    "runs",
    "smoke",
    "verdict_options",
]

_Command = Callable[..., Any]


def options(command: _Command) -> _Command:
    """What run, smoke, find-rate and chaos share."""
    for option in reversed(
        (
            click.option("--rate", type=float, help="Events/s, instead of the scenario's."),
            click.option("--duration", type=float, help="Seconds, instead of the scenario's."),
            click.option("--seed", type=int, help="Another plan of the same kind."),
            click.option("--kafka", metavar="URL", help="Your Kafka; left out, a local stack is started."),
            click.option("--redis", metavar="URL", help="Your Redis."),
            click.option("--topic", help="The topic, which must exist."),
            click.option(
                "--runs", "root", type=click.Path(path_type=Path), default="runs", show_default=True,
                help="Where run directories go.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def verdict_options(command: _Command) -> _Command:
    """What run, smoke and chaos share."""
    for option in reversed(
        (
            click.option("--threshold", multiple=True, metavar="TEXT", help="One more: live.latency.p99<5ms"),
            click.option("--junit", type=click.Path(path_type=Path), help="Write the verdict as JUnit XML."),
            click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write it as JSON."),
        )
    ):
        command = option(command)
    return command


def _print_measures(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        for name in MEASURES:
            stdout.print(f"{name:34} {'time (us, ms, s, m)' if is_time(name) else 'number'}", markup=False)
        ctx.exit()


def _print_scenarios(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        for name, text in shipped_scenarios().items():
            stdout.print(f"{name:24} {text.splitlines()[0].removeprefix('# ')}", markup=False)
        ctx.exit()


@click.command(
    epilog="Example:  dualstream run redis_down.toml --threshold 'publish.latency.p99<20ms'"
    "   Faults that a scenario can have: dualstream chaos --list"
)
@click.argument("scenario")
@options
@verdict_options
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_print_scenarios,
              help="Name the shipped scenarios and leave.")  # fmt: skip
@click.option("--measures", is_flag=True, is_eager=True, expose_value=False, callback=_print_measures,
              help="Name what a threshold can measure and leave.")  # fmt: skip
def run(scenario: str, **options: Any) -> int:
    """Run SCENARIO, a TOML file or a shipped one's name, and judge it by its thresholds.

    Exit codes: 0 every threshold held, 99 one was missed, 2 bad arguments, 3 a broker is missing, 130
    interrupted (what was recorded is kept and summarised).
    """
    return run_and_tell(Scenario.read(scenario), **options)


@click.command(epilog="Example:  dualstream smoke --junit smoke.xml --threshold 'live.latency.p99<50ms'")
@options
@verdict_options
def smoke(**options: Any) -> int:
    """Both streams for 30 s at 10,000 events/s, with loose thresholds: for CI.

    Starts a real Kafka and a real Redis, or uses --kafka and --redis. Exit codes as of `dualstream run`.
    """
    return run_and_tell(Scenario.read("smoke.toml"), **options)


def run_and_tell(
    scenario: Scenario,
    *,
    threshold: tuple[str, ...],
    junit: Path | None,
    json_file: Path | None,
    root: Path,
    target_is_mine: bool = False,
    **options: Any,
) -> int:
    """Run it with these options and tell what came of it; the exit code."""
    for file in (junit, json_file):
        if file is not None and not file.resolve().parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no directory {file.resolve().parent}")
    scenario, settings = _prepared(scenario, **options)
    scenario = replace(scenario, thresholds=(*scenario.thresholds, *map(Threshold.parse, threshold)))
    work = scenario.workload
    say(f"{scenario.name}: {work.plan} plan, {work.rate:,.0f} events/s for {work.duration:g} s …")
    with ended_in_order():
        result = _with_bar(scenario, settings=settings, root=root, target_is_mine=target_is_mine)
    _tell(result)
    if json_file is not None:
        json_file.write_text(
            json.dumps(result.verdict.as_dict(result.directory), indent=1) + "\n", encoding="utf-8"
        )
    if junit is not None:
        _write_junit(result, junit)
    if result.state == "interrupted":
        return INTERRUPTED
    return 0 if result.held else MISSED


def _prepared(
    scenario: Scenario,
    *,
    rate: float | None,
    duration: float | None,
    seed: int | None,
    kafka: str | None,
    redis: str | None,
    topic: str | None,
) -> tuple[Scenario, Settings | None]:
    changes = {"rate": rate, "duration": duration, "seed": seed}
    workload = replace(scenario.workload, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]
    settings = Settings.load(kafka_url=kafka, redis_url=redis, topic=topic)
    if settings.kafka_url is None:
        if redis is not None:
            raise ConfigError("--redis without --kafka: give both, or neither for a local stack")
        return replace(scenario, workload=workload), None
    return replace(scenario, workload=workload), settings


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM is as Ctrl-C: what was broken is mended, what was recorded is kept."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_bar(scenario: Scenario, *, settings: Settings | None, root: Path, target_is_mine: bool) -> Run:
    columns = (TextColumn("{task.fields[seconds]:5.1f} s"), BarColumn(), TextColumn("{task.fields[line]}"))
    with (
        LocalStack(brokers=scenario.brokers, progress=say) if settings is None else nullcontext() as stack,
        Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as bar,
    ):
        task = bar.add_task("", total=scenario.workload.duration, seconds=0.0, line="")

        def show(progress: RunProgress) -> None:
            done = min(progress.seconds, progress.duration)
            bar.update(task, completed=done, seconds=progress.seconds, line=progress.line)

        return asyncio.run(
            run_scenario(
                scenario,
                settings=settings,
                stack=stack,
                root=root,
                target_is_mine=target_is_mine,
                show=show,
                say=say,
            )
        )


def _tell(result: Run) -> None:
    header, rows = result.verdict.latency_table()
    latencies = Table(title="Latency, ms", title_justify="left", title_style="bold")
    latencies.add_column("from to")
    for name in header[1:]:
        latencies.add_column(name, justify="right")
    for row in rows:
        latencies.add_row(*row)
    counts = Table(title="\nEvents", title_justify="left", title_style="bold", show_header=False)
    for _ in range(2):
        counts.add_column()
    for pair in result.verdict.count_table():
        counts.add_row(*pair)
    stdout.print(latencies)
    stdout.print(counts)
    if result.directory.manifest.faults:
        stdout.print(_faults(result.directory.manifest))
    show_recovery(result.verdict.recoveries)
    if result.checks:
        stdout.print(_checks(result))
    stdout.print(f"\n{result.limit}", markup=False)
    for problem in result.directory.problems:
        say(f"missing: {problem}")
    if result.state != "finished":
        what = {"interrupted": "it was interrupted", "running": "its writers died, or it still runs"}
        say(f"The run is not complete: {what.get(result.state, result.state)}.")
    stdout.print(f"run  {result.path}", markup=False)
    if result.verdict.recoveries:
        say(f"next: what became of each event:  dualstream ledger {result.path}")
    say(f"next: look at it in a notebook (`make lab`):  analysis.load({str(result.path)!r})")


def _checks(result: Run) -> Table:
    checks = Table(title="\nThresholds", title_justify="left", title_style="bold", show_header=False)
    for _ in range(3):
        checks.add_column()
    for check in result.checks:
        state = "held" if check.held else "[bold red]MISSED[/]"
        checks.add_row(check.threshold.text.replace("[", r"\["), state, check.text)
    return checks


def _faults(manifest: Manifest) -> Table:
    table = Table(title="\nFaults", title_justify="left", title_style="bold")
    for name in ("what", "from", "to", "that it bit", "that it is over"):
        table.add_column(name)
    for fault in manifest.faults:
        begin, end = ((at - manifest.started) / 1e9 for at in (fault.begin, fault.end))
        table.add_row(
            fault.what,
            f"{begin:.1f} s",
            f"{end:.1f} s" if fault.end else "",
            escape(fault.bite),
            escape(fault.over),
        )
    return table


def _write_junit(result: Run, file: Path) -> None:
    from junitparser import Failure, JUnitXml, TestCase, TestSuite  # noqa: PLC0415

    suite = TestSuite(f"dualstream {result.directory.manifest.name}")
    seconds = (result.directory.manifest.ended - result.directory.manifest.started) / 1e9
    ran = TestCase("the run finished", classname="dualstream", time=round(max(seconds, 0), 3))
    if result.state != "finished":
        ran.result = [Failure(f"it was {result.state}")]
    suite.add_testcase(ran)
    for check in result.checks:
        case = TestCase(check.threshold.text, classname="dualstream.thresholds", time=0)
        case.system_out = check.text
        if not check.held:
            case.result = [Failure(check.text)]
        suite.add_testcase(case)
    suite.add_property("limit", result.limit)
    xml = JUnitXml()
    xml.add_testsuite(suite)
    xml.write(str(file), pretty=True)


@click.command(
    "find-rate", epilog="Example:  dualstream find-rate --publish-p99 20 --live-p99 20 --repeats 5"
)
@options
@click.option(
    "--publish-p99", type=float, default=50, show_default=True, help="Limit, ms from the intended time."
)
@click.option(
    "--live-p99", type=float, default=50, show_default=True, help="Limit, ms from the intended time."
)
@click.option("--low", type=float, default=2_000, show_default=True, help="Events/s to begin with.")
@click.option("--high", type=float, default=200_000, show_default=True, help="Events/s to stop at.")
@click.option("--precision", type=float, default=0.1, show_default=True, help="Share of the rate.")
@click.option("--repeats", type=int, default=3, show_default=True, help="Searches; the median counts.")
def find_rate_command(
    publish_p99: float, live_p99: float, low: float, high: float, precision: float, repeats: int,
    root: Path, rate: float | None, **options: Any,
) -> int:  # fmt: skip
    """Find the highest rate at which publishing and live delivery both stay within their limits.

    Every rate is a run of its own (--duration, 6 s if left out); a rate that fails is tried again, and the
    whole search is repeated. Says what saturated.
    """
    if rate is not None:
        raise ConfigError("--rate is what is searched for; give --low and --high")
    options["duration"] = options["duration"] or 6.0
    search = Search(
        publish_p99=publish_p99, live_p99=live_p99, low=low, high=high, precision=precision, repeats=repeats
    )
    scenario, settings = _prepared(Scenario(name="find-rate", warm_up=2.0), rate=None, **options)
    stack = LocalStack(progress=say) if settings is None else None

    async def probe(at: float) -> Probe:
        plan = at_rate(scenario, at)
        result = await run_scenario(plan, settings=settings, stack=stack, root=root)
        found = probe_of(result, search, at)
        state = f"no: {found.reason}" if found.reason else "holds"
        p99 = f"publish p99 {found.publish_p99:8.1f} ms  live p99 {found.live_p99:8.1f} ms"
        say(f"{at:>10,.0f}/s  {p99}  {state}")
        if result.state == "interrupted":
            raise KeyboardInterrupt
        return found

    try:
        if stack is not None:
            stack.start()
        finding = asyncio.run(find_rate(search, probe))
    finally:
        if stack is not None:
            stack.stop()
    if not finding.rate:
        stdout.print(f"Not even {low:,.0f} events/s hold: {finding.saturated}", markup=False)
        return MISSED
    rates = sorted(finding.rates)
    stdout.print(
        f"{finding.rate:,.0f} events/s hold publish p99 ≤ {publish_p99:g} ms and live p99 ≤ {live_p99:g} ms "
        f"(median of {len(rates)} searches, {rates[0]:,.0f} to {rates[-1]:,.0f}).\n"
        f"What saturated: {finding.saturated}",
        markup=False,
    )
    say(f"next: dualstream smoke --rate {finding.rate * 0.8:.0f}")
    return 0


@click.command(epilog="Example:  dualstream runs   then   dualstream runs runs/smoke-20250601-120000-3f9a")
@click.argument("directory", type=click.Path(path_type=Path), default="runs")
def runs(directory: Path) -> int:
    """List the runs in DIRECTORY (runs, if left out), or show the one that it is."""
    if (directory / "manifest.json").exists():
        result = Run.open(directory)
        _tell(result)
        return 0 if result.held else MISSED
    if not directory.is_dir():
        raise StackError(f"there is no directory {directory}; `dualstream smoke` makes a run")
    found = list_runs(directory)
    table = Table()
    for name in ("run", "when", "state", "events/s", "s", "verdict"):
        table.add_column(name)
    for entry in found:
        if isinstance(entry, RecordingError):
            say(f"left out: {entry}")
            continue
        manifest, verdict = entry.manifest, entry.verdict()
        said = "-" if verdict is None else "held" if verdict.get("held") else "MISSED"
        table.add_row(
            entry.path.name,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.clocks.wall / 1e9)),
            manifest.state,
            f"{manifest.workload.get('rate', 0):,.0f}",
            f"{manifest.workload.get('duration', 0):g}",
            said if verdict is None or verdict.get("thresholds") else "-",
        )
    stdout.print(table)
    say(f"{len(found)} runs in {directory}; next: dualstream runs {directory / '<run>'}")
    return 0
