"""A run in sentences, made of its figures."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Final

from dualstream_lab.lab.report.report import Report
from dualstream_lab.ledger import CLASSES, Class
from dualstream_lab.recording import drops_of
from dualstream_lab.verdict.rules import Rule, deciding
from dualstream_lab.verdict.thresholds import format_measure


def subject(report: Report) -> str:
    """Which run the report is about, in a line."""
    work, manifest = report.workload, report.manifest
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(manifest.clocks.wall / 1e9))
    rate = f"{work.rate:,.0f} events/s" if work.plan != "closed" else "as fast as answers came"
    mark = "SIMULATED, nothing was measured; " if manifest.simulated else ""
    return f"{mark}{manifest.name}, {began}: {rate} for {work.duration:g} s"


class Outcome:
    """What the headline's rules compare of a run, and what they say of it."""

    def __init__(self, report: Report) -> None:
        verdict = report.verdict
        counts = {entry.name: entry.count for entry in verdict.entries}
        lost, orphans = (counts.get(CLASSES[which][0], 0) for which in (Class.LOST, Class.ORPHAN))
        never = {
            f"{lost:,} acknowledged events are not in Kafka": lost,
            f"{orphans:,} events were delivered and are not in Kafka": orphans,
        }
        self.impossible = " and ".join(text for text, count in never.items() if count)
        missed = [check for check in verdict.checks if not check.held]
        values = ((one.threshold.text, one.threshold.measure, one.value) for one in missed)
        which = [f"{t}: {'not measured' if v is None else format_measure(m, v)}" for t, m, v in values]
        self.missed, self.checks = len(missed), len(verdict.checks)
        self.which = enumerated(which, most=3)
        self.thresholds = "its threshold" if self.checks == 1 else f"all {self.checks} thresholds"
        self.cut = "" if report.finished else f"{_cut(report)}; until then "
        self.events = _events(report)


HEADLINES: Final[Sequence[Rule[Outcome]]] = (
    Rule("impossible", lambda run: run.impossible, "FAILS: {0.impossible}, which must never happen."),
    Rule("missed", lambda run: run.missed,
         "{0.cut}MISSED {0.missed} of {0.checks} thresholds ({0.which}): {0.events}."),
    Rule("cut short", lambda run: run.cut, "{0.cut}{0.events}."),
    Rule("nothing asked", lambda run: not run.checks, "{0.events}. No thresholds were set."),
    Rule("held", lambda _run: True, "Held {0.thresholds}: {0.events}."),
)  # fmt: skip
"""The first that applies is the verdict."""
_MOODS: Final = {
    "impossible": "bad",
    "missed": "bad",
    "cut short": "open",
    "nothing asked": "plain",
    "held": "good",
}


def headline(report: Report) -> tuple[str, str]:
    """The verdict in a sentence, and its mood: one of ``good``, ``bad``, ``open`` and ``plain``."""
    outcome = Outcome(report)
    rule = deciding(HEADLINES, outcome)
    return capital(rule.sentence.format(outcome)), _MOODS[rule.name]


def summary(report: Report) -> list[tuple[str, str]]:
    """What somebody asks first, and the answers: rows of two texts."""
    found = [("what ran", _load(report)), ("publishing", _publishing(report))]
    if report.manifest.faults:
        found.append(("broken on the way", _faults(report)))
    found += [("live", _live(report)), ("Kafka consumer", _consumer(report))]
    found.append(("must never happen", never(report)))
    return [*found, ("what was the limit", limit(report))]


def limit(report: Report) -> str:
    """Who saturated, as a sentence."""
    return capital(f"{report.verdict.limit}.")


def never(report: Report) -> str:
    """How often each thing happened that must never happen, as a sentence."""
    found = report.verdict.measures
    names = {"acknowledged and not in Kafka": "ledger.lost", "delivered and not in Kafka": "ledger.orphan"}
    said = [
        f"{text}: {found[name]:,.0f}" if name in found else f"{text}: cannot be told"
        for text, name in names.items()
    ]
    return capital(f"{'; '.join(said)}.")


def enumerated(parts: Sequence[str], *, most: int = 5) -> str:
    """The parts as ``a, b and c``; of more than ``most``, only how many more there are."""
    if len(parts) > most:
        return f"{', '.join(parts[:most])} and {len(parts) - most:,} more"
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def ms(value: float) -> str:
    """A latency or a length of time, given in ms, as a short text."""
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "missing"
    if value >= 1000:
        return f"{value / 1e3:,.1f} s" if value >= 10_000 else f"{value / 1e3:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def share(value: float) -> str:
    """A share in per cent, in which less than all is never shown as all, nor more than nothing as nothing."""
    if value in {0.0, 1.0}:
        return f"{value * 100:.0f} %"
    shown = f"{value * 100:.1f} %"
    if shown == "100.0 %":
        return "just under 100 %" if value < 1 else "100 %"
    return "under 0.1 %" if shown == "0.0 %" else shown


def _cut(report: Report) -> str:
    if report.manifest.state == "interrupted":
        return f"interrupted after {report.seconds:.1f} of {report.workload.duration:g} s"
    return "the run did not end: its writers died, or it still runs"


def _events(report: Report) -> str:
    """What became of the run's events, as a part of a sentence."""
    found = report.verdict.measures
    durable, intended = found.get("publish.durable", 0), found.get("publish.intended", 0)
    if not intended:
        return "no event was recorded"
    every = "every one" if durable == intended else f"{durable:,.0f} ({share(durable / intended)})"
    text = f"{intended:,.0f} events, {every} durable"
    missing = found.get("live.missing")
    if missing is not None:
        text += ", all delivered" if not missing else f", {share(missing)} of them undelivered"
    publish, live = (found.get(f"{path}.latency.p99", math.nan) for path in ("publish", "live"))
    text += "" if math.isnan(publish) else f"; publish p99 {ms(publish)}"
    text += f", live p99 {ms(live)}" if math.isfinite(live) else ""
    faults = list(dict.fromkeys(fault.name for fault in report.manifest.faults))
    return f"through {enumerated(faults, most=3)}, {text}" if faults else text


def _load(report: Report) -> str:
    work, users = report.workload, report.manifest.users
    rate = f"{work.rate:,.0f} events/s" + ("" if work.plan == "constant" else " at most")
    plan = "as fast as answers come" if work.plan == "closed" else f"{rate} ({work.plan} plan)"
    kinds = {"fixed": f"{work.payload_bytes:,} bytes each", "github": "as big as GitHub's webhooks"}
    size = kinds.get(work.payload, f"{work.payload_bytes:,} bytes in the median")
    who = f"{users.get('concurrency', 1):,} calls in flight"
    if "subscribers" in users:
        who += f", {users['subscribers']:,} Redis subscriber{'s' * (users['subscribers'] != 1)}"
    if users.get("workers"):
        who += f", {users['workers']:,} worker{'s' * (users['workers'] != 1)}"
    by = {"lab": "", "simulation": ", in a model"}.get(report.manifest.engine, ", driven by Locust")
    return (
        f"{plan} for {work.duration:g} s, in batches of {work.batch:,}, of {work.sources:,} sources, {size}; "
        f"{who}{by}"
    )


def _publishing(report: Report) -> str:
    found = report.verdict.measures
    if not found.get("publish.intended"):
        return "Nothing of it was recorded."
    durable, intended = found["publish.durable"], found["publish.intended"]
    text = f"{durable:,.0f} of {intended:,.0f} events are durable"
    if "publish.events_per_second" in found:
        text += f", {format_measure('publish.events_per_second', found['publish.events_per_second'])}/s"
    if "publish.rate" in found:
        text += f" ({share(found['publish.rate'])} of the plan's rate)"
    bad = _counted(found, {
        "publish.rejected": "refused by Kafka", "publish.unknown": "without an answer by the deadline",
        "publish.no_room": "found no room in the buffer", "publish.unsent": "never sent",
    })  # fmt: skip
    text += f"; {enumerated(bad)}" if bad else ""
    return f"{text}. {_latency(report, 'publish.latency', 'To the acknowledgement')}"


def _counted(measures: Mapping[str, float], names: Mapping[str, str]) -> list[str]:
    return [f"{measures[name]:,.0f} {said}" for name, said in names.items() if measures.get(name)]


def _live(report: Report) -> str:
    found = report.verdict.measures
    if "live.delivered" not in found:
        return "No subscriber was recorded."
    reasons = {why: count for why, count in drops_of(report.verdict.counters).items() if count}
    through = "events delivered through a gateway" if "live.gaps" in found else "notifications delivered"
    text = f"{found['live.delivered']:,.0f} {through}"
    if "live.missing" in found:
        missing = found["live.missing"]
        text += f"; {share(missing)} of the durable events are undelivered" if missing else "; none missed"
    if reasons:
        which = enumerated([f"{count:,} ({why})" for why, count in sorted(reasons.items())])
        text += f"; the publisher gave up {which}"
    more = _counted(found, {
        "live.gaps": "gaps that the gateway could not fill", "live.recovered": "recovered by repair",
        "live.skipped": "skipped between two that were delivered",
    })  # fmt: skip
    text = "; ".join([text, *more])
    return f"{text}. {_latency(report, 'live.latency', 'To the first subscriber')}"


def _consumer(report: Report) -> str:
    found = report.verdict.measures
    if "durable.consumed" not in found:
        return "None was recorded: Kafka's acknowledgement is all that is known of the log."
    text = f"{found['durable.consumed']:,.0f} records read"
    if found.get("durable.repeated"):
        text += f", {found['durable.repeated']:,.0f} of them again"
    if "durable.lag.max" in found:
        text += f"; at worst {ms(found['durable.lag.max'])} behind"
    return f"{text}. {_latency(report, 'durable.latency', 'To its read')}"


def _latency(report: Report, name: str, title: str) -> str:
    found = report.verdict.measures
    p50, p99 = (found.get(f"{name}.{q}", math.nan) for q in ("p50", "p99"))
    if math.isnan(p50):
        return ""
    arrived = found.get(f"{name}_arrived.p50", math.nan)
    if math.isinf(p99) and not math.isnan(arrived):
        p99 = found[f"{name}_arrived.p99"]
        return f"{title}, of those that arrived: p50 {ms(arrived)}, p99 {ms(p99)}."
    return f"{title}: p50 {ms(p50)}, p99 {ms(p99)}, slowest {ms(found[f'{name}.max'])}."


def _faults(report: Report) -> str:
    zero = report.manifest.started
    spans = []
    for fault in report.manifest.faults:
        begin, end = ((at - zero) / 1e9 for at in (fault.begin, fault.end))
        lasted = "to the end" if not fault.end else f"to {end:.1f} s"
        span = f"at {begin:.1f} s" if 0 < end - begin < 0.05 else f"from {begin:.1f} {lasted}"
        spans.append(f"{fault.name} {span}")
    return f"{enumerated(spans, most=8)}."


def capital(text: str) -> str:
    """The text with its first letter capital, as a sentence begins."""
    return text[:1].upper() + text[1:]
