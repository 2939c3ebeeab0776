"""A run's figures as tables of text, for the page and for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.ledger import CLASSES, Class
from dualstream_lab.ledger.tables import entry_table, recovery_table
from dualstream_lab.load.thresholds import format_measure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dualstream_lab.lab.report.report import Report
    from dualstream_lab.ledger import Entry
    from dualstream_lab.ledger.tables import Table

__all__ = ["checks", "entries", "environment", "example", "faults", "marks", "peaks", "recoveries"]

_PARTIES = (
    ("generator: CPU, worst second", "generator.cpu"),
    ("generator: event loop late, at worst", "generator.loop_lag"),
    ("generator: events sent after their time, p99", "generator.slip.p99"),
    ("publisher: events in its buffer, at most", "publisher.buffered_events"),
    ("Kafka: answer to a small request, at worst", "kafka.answer"),
    ("Redis: CPU, worst second", "redis.cpu"),
    ("Redis: answer to a small request, at worst", "redis.answer"),
    ("Redis: bytes kept for the slowest client, at most", "redis.output_buffer"),
)
_SIDE_BY_SIDE = 3
_PROCESSES = (
    ("subscribers: CPU, worst second", "heard.cpu"),
    ("Kafka consumer: CPU, worst second", "consumed.cpu"),
)


def checks(report: Report) -> list[list[str]]:
    """Each threshold, what became of it, what was found; those that were missed first."""
    found = sorted(report.verdict.checks, key=lambda check: check.held)
    return [[c.threshold.text, "held" if c.held else "MISSED", c.text] for c in found]


def entries(report: Report) -> list[list[str]]:
    """The ledger's classes, with what they mean."""
    return _classes(report.verdict.entries)


def marks(report: Report) -> list[list[str]]:
    """What else is to be said of events."""
    return _classes(report.verdict.marks)


def _classes(found: Iterable[Entry]) -> list[list[str]]:
    found = list(found)
    shown = entry_table(found, examples=1).rows
    return [[*row[:3], entry.meaning, row[3]] for row, entry in zip(shown, found, strict=True)]


def faults(report: Report) -> list[list[str]]:
    """What was broken from when until when, and that it was."""
    zero = report.manifest.started
    found = []
    for fault in report.manifest.faults:
        begin, end = ((at - zero) / 1e9 for at in (fault.begin, fault.end))
        over = f"{end:.1f} s" if fault.end else ""
        found.append([fault.what, f"{begin:.1f} s", over, fault.bite, fault.over])
    return found


def recoveries(report: Report, *, most: int | None = None) -> list[Table]:
    """A column a fault, a few faults a table."""
    found = report.verdict.recoveries[:most]
    return [
        recovery_table(found[first : first + _SIDE_BY_SIDE]) for first in range(0, len(found), _SIDE_BY_SIDE)
    ]


def peaks(report: Report) -> list[tuple[str, str]]:
    """How busy each party was."""
    measures, seconds = report.verdict.measures, report.frames.seconds
    found = [(title, format_measure(name, measures[name])) for title, name in _PARTIES if name in measures]
    load = seconds[seconds["at_s"] > 0]
    for title, column in _PROCESSES:
        if column in load and load[column].notna().any():
            found.append((title, f"{load[column].max():.2f} cores"))
    return found


def environment(report: Report) -> list[tuple[str, str]]:
    """Where it was measured, and with what."""
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


def example(report: Report) -> str | None:
    """An event whose story is worth reading."""
    for entry in report.verdict.entries:
        if entry.name != CLASSES[Class.HEARD][0] and entry.examples:
            return entry.examples[0]
    return None
