"""A finished run: its directory, its measures, its verdict, and how it is shown."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualstream_lab.load.limits import limit_sentence
from dualstream_lab.load.measures import measures, totals
from dualstream_lab.load.thresholds import Check, Threshold, format_measure
from dualstream_lab.recording import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Run", "judge"]

_LATENCIES = (
    ("publish: intended to ack", "publish.latency"),
    ("publish: of those that are durable", "publish.latency_arrived"),
    ("publish: sent to ack (raw)", "publish.latency_raw"),
    ("live: intended to heard", "live.latency"),
    ("live: of those that were heard", "live.latency_arrived"),
    ("live: sent to heard (raw)", "live.latency_raw"),
    ("live: ack to heard", "live.delay"),
    ("Kafka consumer: intended to read", "durable.latency"),
    ("generator: intended to sent", "generator.slip"),
)
_COLUMNS = ("p50", "p90", "p99", "p99.9", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a run. ``measures``: by name (ms, counts, shares); ``limit``: who saturated, a sentence.

    In a notebook, the last line of a cell shows it as tables. Frames and plots:
    ``dualstream_lab.analysis.load(run)``.
    """

    directory: RunDirectory
    measures: Mapping[str, float]
    checks: tuple[Check, ...]
    limit: str
    counters: Mapping[str, int]

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def state(self) -> str:
        """``finished``, ``interrupted``, or ``running`` where its writers died."""
        return self.directory.manifest.state

    @property
    def held(self) -> bool:
        """Whether every threshold held."""
        return all(check.held for check in self.checks)

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Read a run directory, also an unfinished one. Raises RecordingError."""
        return judge(RunDirectory.open(path))

    def __repr__(self) -> str:
        verdict = "no thresholds" if not self.checks else "held" if self.held else "MISSED"
        return f"<Run {self.path} {self.state}, {verdict}>"

    def latency_table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows, of the latencies that were measured."""
        rows = [
            [title, *(_cell(self.measures[f"{name}.{q}"]) for q in _COLUMNS)]
            for title, name in _LATENCIES
            if f"{name}.p50" in self.measures
            and not (name.endswith("_arrived") and math.isfinite(self.measures[f"{name[:-8]}.max"]))
        ]
        return ["ms", *_COLUMNS], rows

    def count_table(self) -> list[tuple[str, str]]:
        """What became of the events."""
        found, show = self.measures, self._show
        rows = [
            ("intended", show("publish.intended")),
            ("durable on Kafka", f"{show('publish.durable')} ({show('publish.events_per_second')}/s)"),
            ("rejected, unknown, no room, unsent", ", ".join(
                show(f"publish.{name}") for name in ("rejected", "unknown", "no_room", "unsent"))),
            ("notifications: taken by Redis, dropped", f"{show('live.notified')}, {show('live.dropped')}"),
        ]  # fmt: skip
        dropped = {
            n.removeprefix("dropped: "): c for n, c in self.counters.items() if n.startswith("dropped: ")
        }
        rows += [(f"dropped: {why}", f"{count:,}") for why, count in sorted(dropped.items())]
        if "live.heard" in found:
            rows.append(
                ("heard by subscribers", f"{show('live.heard')} (share missing {show('live.missing')})")
            )
        if "durable.consumed" in found:
            consumed = f"{show('durable.consumed')}, {show('durable.repeated')} again"
            rows.append(("read by the Kafka consumer", consumed))
        if "durable.lag.max" in found:
            lag = f"{show('durable.lag.max')}, {show('durable.lag.messages.max')} messages"
            rows.append(("Kafka lag, at worst", lag))
        if "ledger.lost" in found:
            rows.append(("acknowledged and lost", show("ledger.lost")))
        return rows

    def _show(self, name: str) -> str:
        return format_measure(name, self.measures[name]) if name in self.measures else "not known"

    def _repr_html_(self) -> str:
        header, rows = self.latency_table()
        parts = [
            f"<h4>{html.escape(self.directory.manifest.name)}: {html.escape(self.state)}</h4>",
            _table(header, rows),
            _table(["events", ""], [list(row) for row in self.count_table()]),
        ]
        if self.checks:
            verdicts = [[c.threshold.text, "held" if c.held else "MISSED", c.text] for c in self.checks]
            parts.append(_table(["threshold", "", "found"], verdicts))
        parts.append(f"<p>{html.escape(self.limit)}</p>")
        parts += [f"<p>missing: {html.escape(problem)}</p>" for problem in self.directory.problems]
        parts.append(f"<p><code>{html.escape(str(self.path))}</code></p>")
        return "".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: +inf and NaN become text."""
        return {
            "name": self.directory.manifest.name,
            "run": self.directory.manifest.run,
            "state": self.state,
            "held": self.held,
            "limit": self.limit,
            "thresholds": [
                {"threshold": c.threshold.text, "held": c.held, "value": _json(c.value), "text": c.text}
                for c in self.checks
            ],
            "measures": {name: _json(value) for name, value in sorted(self.measures.items())},
            "counters": dict(sorted(self.counters.items())),
            "problems": self.directory.problems,
            "machine": self.directory.manifest.machine,
        }


def judge(directory: RunDirectory) -> Run:
    """Measure a run directory and hold it against its thresholds."""
    manifest = directory.manifest
    whole = totals(directory.intervals())
    found = measures(directory, whole)
    checks = tuple(Threshold.parse(text).check(found) for text in manifest.thresholds)
    sentence = limit_sentence(
        found,
        whole,
        lanes=manifest.users.get("lanes", 1),
        buffer_events=int(manifest.settings.get("buffer_events", 150_000)),
        faults=bool(manifest.faults),
    )
    return Run(directory=directory, measures=found, checks=checks, limit=sentence, counters=whole.counters)


def _cell(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"{value:,.2f}"


def _json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
