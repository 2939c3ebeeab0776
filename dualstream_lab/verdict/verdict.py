"""What a run comes to: its measures, its thresholds, who saturated; as tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec

from dualstream_lab import former_names
from dualstream_lab.errors import RecordingError
from dualstream_lab.ledger import CLASSES, MARKS, Entry, Ledger, Recovery
from dualstream_lab.recording import RunDirectory, drops_of
from dualstream_lab.units import cell
from dualstream_lab.verdict.bottleneck import limit_sentence
from dualstream_lab.verdict.checker import as_plain
from dualstream_lab.verdict.measures import QUANTILES, measures, totals_of
from dualstream_lab.verdict.thresholds import Check, Threshold, format_measure

_LATENCIES = {
    "publish.latency": "publish: intended to ack",
    "publish.latency_arrived": "publish: of those that are durable",
    "publish.latency_raw": "publish: sent to ack (raw)",
    "live.latency": "live: intended to received",
    "live.latency_arrived": "live: of those that were received",
    "live.latency_raw": "live: sent to received (raw)",
    "live.delay": "live: ack to received",
    "durable.latency": "Kafka consumer: intended to read",
    "generator.slip": "generator: intended to sent",
}
_FAILED = {
    "rejected": "rejected", "unknown": "unknown", "no_room": "no room in the publisher", "unsent": "unsent",
}  # fmt: skip
_COUNTS = (
    ("delivered to subscribers", "{}", "live.delivered"),
    ("durable and undelivered, share", "{}", "live.missing"),
    ("skipped between two that were delivered", "{}", "live.skipped"),
    ("of another log on this Redis, and ignored", "{}", "live.other_epoch"),
    ("recovered by the gateway; gaps that it could not fill", "{1}; {0}", "live.gaps", "live.recovered"),
    ("read by the Kafka consumer", "{}", "durable.consumed"),
    ("read again by the Kafka consumer", "{}", "durable.repeated"),
    ("Kafka lag, at worst", "{}, {} messages", "durable.lag.max", "durable.lag.messages.max"),
    ("acknowledged and lost", "{}", "ledger.lost"),
)
_ONLY_SOME = {"live.skipped", "live.other_epoch", "durable.repeated"}
"""Of what there is none, nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a run comes to. ``measures``: by name (ms, counts, shares). ``limit``: who saturated.
    ``counters``: the sums of what its processes counted.

    ``entries``: the ledger's classes; ``marks``: what else is to be said of events; ``recoveries``: how each
    fault was got over; ``problems``: what could not be read or told when it was judged.
    """

    measures: Mapping[str, float]
    checks: tuple[Check, ...]
    limit: str
    counters: Mapping[str, int]
    entries: tuple[Entry, ...] = ()
    marks: tuple[Entry, ...] = ()
    recoveries: tuple[Recovery, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` made, also in versions that said less. Raises RecordingError for the rest."""
        try:
            values = former_names.renamed_verdict(values)
            return cls(
                measures=_Stored({name: float(value) for name, value in values["measures"].items()}),
                checks=tuple(_check(one) for one in values["thresholds"]),
                limit=str(values["limit"]),
                counters={str(name): int(count) for name, count in values["counters"].items()},
                entries=tuple(map(_entry, values["ledger"])),
                marks=tuple(map(_entry, values.get("marks", ()))),
                recoveries=msgspec.convert(values["recovery"], tuple[Recovery, ...]),
                problems=tuple(map(str, values["problems"])),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise RecordingError(f"the verdict is not one of this version: {error!r}") from error

    @property
    def held(self) -> bool:
        """Whether every threshold held."""
        return all(check.held for check in self.checks)

    def latency_table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of a table of the latencies that were measured."""
        found = self.measures
        rows = []
        for name, title in _LATENCIES.items():
            whole = name.removesuffix("_arrived")
            if f"{name}.p50" in found and (whole == name or not math.isfinite(found[f"{whole}.max"])):
                rows.append([title, *(cell(found[f"{name}.{q}"]) for q in QUANTILES)])
        return ["ms", *QUANTILES], rows

    def count_table(self) -> list[tuple[str, str]]:
        """What became of the events, as rows of a name and a figure."""
        found, show = self.measures, self._show
        rows = [
            ("intended", show("publish.intended")),
            ("durable on Kafka", f"{show('publish.durable')} ({show('publish.events_per_second')}/s)"),
            *((title, show(f"publish.{name}")) for name, title in _FAILED.items()),
            ("notifications: taken by Redis, dropped", f"{show('live.notified')}, {show('live.dropped')}"),
            *((f"dropped: {why}", f"{n:,}") for why, n in sorted(drops_of(self.counters).items())),
        ]
        for title, form, *names in _COUNTS:
            if names[0] in found and (found[names[0]] or names[0] not in _ONLY_SOME):
                rows.append((title, form.format(*map(show, names))))
        return rows + [(f"ledger: {entry.title}", f"{entry.count:,}") for entry in self.entries]

    def check_table(self) -> list[tuple[str, str, str]]:
        """Each threshold, what became of it, what was found."""
        return [(one.threshold.text, "held" if one.held else "MISSED", one.text) for one in self.checks]

    def _show(self, name: str) -> str:
        return format_measure(name, self.measures[name]) if name in self.measures else "not known"

    def as_dict(self, directory: RunDirectory) -> dict[str, Any]:
        """The verdict as JSON can hold it: +inf and NaN become text."""
        manifest = directory.manifest
        return as_plain({
            **{name: getattr(manifest, name) for name in ("name", "run", "state")},
            "held": self.held,
            "limit": self.limit,
            "thresholds": [
                {"threshold": c.threshold.text, "held": c.held, "value": c.value, "text": c.text}
                for c in self.checks
            ],
            "measures": dict(sorted(self.measures.items())),
            "counters": dict(sorted(self.counters.items())),
            "ledger": [entry.as_dict() for entry in self.entries],
            "marks": [mark.as_dict() for mark in self.marks],
            "recovery": [recovery.as_dict() for recovery in self.recoveries],
            "problems": list(self.problems),
            "machine": manifest.machine,
        })  # fmt: skip


def judge(directory: RunDirectory, *, keep: bool = False) -> Verdict:
    """Measure a run directory and hold it against its thresholds; ``keep``: write that into it, too."""
    manifest = directory.manifest
    whole = totals_of(directory)
    ledger = Ledger.of(directory)
    found = measures(directory, whole, ledger)
    limit = limit_sentence(
        found, whole, concurrency=manifest.users.get("concurrency", 1), faults=bool(manifest.faults),
        batch=int(manifest.workload.get("batch", 1)),
        buffer_events=int(manifest.settings.get("buffer_events", 150_000)),
    )  # fmt: skip
    verdict = Verdict(
        measures=found, checks=tuple(Threshold.parse(text).check(found) for text in manifest.thresholds),
        limit=limit, counters=whole.counters, entries=ledger.entries, marks=ledger.marks,
        recoveries=ledger.recoveries, problems=ledger.problems,
    )  # fmt: skip
    if keep:
        directory.write_verdict(verdict.as_dict(directory))
    return verdict


class _Stored(dict[str, float]):
    """Measures from a file: what it lacks is not known."""

    def __missing__(self, name: str) -> float:
        return math.nan


_MEANINGS: Final = dict((*CLASSES.values(), *MARKS.values()))


def _check(values: Mapping[str, Any]) -> Check:
    value = None if values["value"] is None else float(values["value"])
    return Check(threshold=Threshold.parse(values["threshold"]), value=value)


def _entry(values: Mapping[str, Any]) -> Entry:
    delay = values.get("delay_ms")
    known: dict[str, Any] = {"meaning": _MEANINGS[values["name"]]}
    if delay is not None:
        known["delay"] = (delay["p50"], delay["p99"], delay["max"])
    return msgspec.convert(dict(values) | known, Entry)
