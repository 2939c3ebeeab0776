"""A report as one self-contained page, and as a few tables for a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from dualstream_lab.lab.output.export import escaped, markdown_table
from dualstream_lab.lab.output.page import render
from dualstream_lab.lab.report import again, words
from dualstream_lab.lab.report.report import Report
from dualstream_lab.lab.report.story import ledger, recovery, story
from dualstream_lab.ledger import CLASSES, Class, Entry
from dualstream_lab.ledger.tables import Table, entry_table, fault_rows, recovery_table
from dualstream_lab.verdict.thresholds import format_measure

_PARTIES = (
    ("generator: CPU, worst second", "generator.cpu"),
    ("generator: event loop late, at worst", "generator.loop_lag"),
    ("generator: stopped by the garbage collector, at worst", "generator.gc_pause"),
    ("subscribers: stopped by the garbage collector, at worst", "live.gc_pause"),
    ("generator: events sent after their time, p99", "generator.slip.p99"),
    ("publisher: events in its buffer, at most", "publisher.buffered_events"),
    ("Kafka: answer to a small request, at worst", "kafka.answer"),
    ("Redis: CPU, worst second", "redis.cpu"),
    ("Redis: answer to a small request, at worst", "redis.answer"),
    ("Redis: bytes kept for the slowest client, at most", "redis.output_buffer"),
)
_SIDE_BY_SIDE = 3
_PROCESSES = (
    ("subscribers: CPU, worst second", "delivered.cpu"),
    ("Kafka consumer: CPU, worst second", "consumed.cpu"),
)
_FAULTS = 6  # of a pull request


def html(report: Report) -> str:
    """The report as an HTML page, which loads nothing from anywhere and needs no script."""
    sentence, mood = words.headline(report)
    return render(
        "report.html.j2",
        title=f"{report.manifest.name}: {sentence.partition(':')[0]}",
        subject=words.subject(report),
        headline=sentence,
        mood=mood,
        report=report,
        words=words,
        again=again,
        checks=_checks(report),
        pictures=story(report),
        ledger=ledger(report),
        entries=_classes(report.verdict.entries),
        marks=_classes(report.verdict.marks),
        recovery=recovery(report),
        recoveries=_recoveries(report, None),
        faults=fault_rows(report.manifest),
        peaks=_peaks(report),
        environment=_environment(report),
        example=_example(report),
    )


def markdown(report: Report) -> str:
    """The report in GitHub's Markdown, short enough for a comment."""
    sentence, _ = words.headline(report)
    parts = [f"### {escaped(report.manifest.name)}\n\n**{escaped(sentence)}**"]
    parts += [f"> missing: {escaped(problem)}" for problem in report.problems[:5]]
    if len(report.problems) > 5:
        parts.append(f"> and {len(report.problems) - 5} more")
    if report.verdict.checks:
        parts.append(markdown_table(("threshold", "", "found"), _checks(report)))
    parts.append(markdown_table(("", ""), words.summary(report)))
    header, rows = report.verdict.latency_table()
    if rows:
        parts.append(markdown_table(header, rows, numbers=True))
    if report.verdict.entries:
        shown = [row[:3] for row in _classes(report.verdict.entries)]
        parts.append(markdown_table(("ledger", "events", "share"), shown, numbers=True))
    if report.verdict.recoveries:
        parts += [markdown_table(table.header, table.rows) for table in _recoveries(report, _FAULTS)]
        if (more := len(report.verdict.recoveries) - _FAULTS) > 0:
            parts.append(f"and {more} more faults")
    again_ = f"```sh\n{again.command(report)}\n```\n\n```toml\n{again.scenario(report)}```"
    parts.append(f"<details><summary>The same run again</summary>\n\n{again_}\n\n</details>")
    about = dict(_environment(report))
    line = "; ".join((words.subject(report), about["machine"], about["versions"]))
    parts.append(f"<sub>{escaped(line)}; `{report.name}`</sub>")
    return "\n\n".join(parts) + "\n"


def _checks(report: Report) -> list[tuple[str, str, str]]:
    """The rows of the thresholds; those that were missed come first."""
    return sorted(report.verdict.check_table(), key=lambda row: row[1] == "held")


def _classes(entries: Sequence[Entry]) -> list[list[str]]:
    """The rows of the ledger's classes, with what each class means."""
    shown = entry_table(entries, examples=1).rows
    return [[*row[:3], entry.meaning, row[3]] for row, entry in zip(shown, entries, strict=True)]


def _recoveries(report: Report, most: int | None) -> list[Table]:
    """Tables of how the first ``most`` faults were got over: a column for each fault, a few in each table."""
    found = report.verdict.recoveries[:most]
    firsts = range(0, len(found), _SIDE_BY_SIDE)
    return [recovery_table(found[first : first + _SIDE_BY_SIDE]) for first in firsts]


def _peaks(report: Report) -> list[tuple[str, str]]:
    """How busy each of the processes and brokers was, as rows of a name and a figure."""
    measures, seconds = report.verdict.measures, report.frames.seconds
    found = [(title, format_measure(name, measures[name])) for title, name in _PARTIES if name in measures]
    load = seconds[seconds["at_s"] > 0]
    for title, column in _PROCESSES:
        if column in load and load[column].notna().any():
            found.append((title, f"{load[column].max():.2f} cores"))
    return found


def _environment(report: Report) -> list[tuple[str, str]]:
    """Where the run was measured, and with what, as rows of a name and a text."""
    manifest = report.manifest
    machine = manifest.machine
    kind = ", ".join(str(machine[key]) for key in ("system", "release", "architecture") if key in machine)
    memory = f", {machine['memory_bytes'] / 2**30:,.1f} GiB" if "memory_bytes" in machine else ""
    settings = ", ".join(f"{name}={value}" for name, value in manifest.settings.items() if value is not None)
    return [
        ("machine", f"{machine.get('cores', '?')} cores{memory}, {kind}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("settings", settings or "not recorded"),
        ("run", f"{manifest.run}; event ids begin with {manifest.ids}; seed {report.workload.seed}"),
        ("warm-up", f"{manifest.warm_up:,} more events were sent before it, with ids of another run"),
        ("rows", "every event" if manifest.sample == 1 else f"one event in {manifest.sample}"),
    ]


def _example(report: Report) -> str | None:
    """The id of an event that was not simply delivered, whose story is worth reading, if there is one."""
    for entry in report.verdict.entries:
        if entry.name != CLASSES[Class.DELIVERED][0] and entry.examples:
            return entry.examples[0]
    return None
