"""What is to be seen on each picture of a run, in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dualstream_lab.analysis import outage_windows, over_time
from dualstream_lab.lab.report.words import enumerated, ms, never, share

if TYPE_CHECKING:
    from dualstream_lab.lab.report.report import Report
    from dualstream_lab.ledger import Recovery

__all__ = ["heat", "lag", "ledger", "over_time_of", "percentiles", "recovery", "timeline"]

_PATHS = (("publish", "publish_ms"), ("live", "live_ms"), ("Kafka consumer", "consumed_ms"))


def timeline(report: Report) -> str:
    """Whether and when one of the two streams stood still."""
    found = report.verdict.measures
    said = []
    if "publish.rate" in found:
        rate = found["publish.events_per_second"]
        said.append(
            f"{rate:,.0f} events/s became durable, {share(found['publish.rate'])} of the plan's rate."
        )
    if report.verdict.recoveries:
        quiet = [
            f"{ms(one.publish.silent * 1e3)} ({one.what} at {one.begin:.1f} s)"
            for one in report.verdict.recoveries
            if one.publish is not None and one.publish.silent
        ]
        said.append(f"Publishing stood still for {enumerated(quiet, most=4)}." if quiet else
                    "Publishing never stood still.")  # fmt: skip
    if "heard" in report.frames.has:
        windows = outage_windows(report.frames)
        spans = [
            f"{begin:.1f} to {end:.1f} s ({missed:,.0f} events)"
            for begin, end, missed in zip(
                windows["begin_s"], windows["end_s"], windows["missed"], strict=True
            )
        ]
        when = f"Most of what was due from {enumerated(spans, most=4)} was durable and never heard live."
        said.append(when if spans else "In no tenth of a second was most of it never heard live.")
    return " ".join(said)


def over_time_of(report: Report, width: float) -> str:
    """The usual p99 and the worst, with faults and without."""
    said = []
    for name, column in _PATHS:
        p99 = over_time(report.frames, column, width=width, qs=(0.99,))["p99"].dropna()
        if not len(p99) or not report.frames.events[column].notna().any():
            continue
        there = p99[np.isfinite(p99)]
        if not len(there):
            said.append(f"{_capital(name)}: more than 1 % never arrived in every one.")
            continue
        broken = np.zeros(len(p99), np.bool_)
        for begin, end in zip(report.frames.faults["begin_s"], report.frames.faults["end_s"], strict=True):
            broken |= (p99.index >= begin - width / 2) & (p99.index <= end + width / 2)
        text = f"{_capital(name)} p99: {ms(float(p99[~broken].median()))} in the median"
        if broken.any():
            text += f" without a fault, {ms(float(p99[broken].median()))} while one was on"
        text += f"; worst {ms(float(there.max()))}, at {there.idxmax():,.1f} s"
        if never := len(p99) - len(there):
            text += f"; in {never:,} of {len(p99):,} windows more than 1 % never arrived"
        said.append(f"{text}.")
    return f"By windows of {width:g} s. {' '.join(said)}"


def heat(report: Report, column: str) -> str:
    """Where most are, and how many never arrived."""
    events = report.frames.events
    values = events[column].to_numpy()
    durable = (events["outcome"] == 1).to_numpy()
    never = np.isnan(values) & (durable if column == "live_ms" else True)
    path = {"live_ms": "live.latency", "publish_ms": "publish.latency"}[column]
    found = report.verdict.measures
    arrived = f"{path}_arrived" if f"{path}_arrived.p50" in found else path
    said = []
    if f"{arrived}.p50" in found:
        p50, p99, most = (ms(found[f"{arrived}.{q}"]) for q in ("p50", "p99", "max"))
        said.append(f"Of what arrived, half did within {p50}, 99 % within {p99}, the slowest after {most}.")
    count = int(np.count_nonzero(never))
    if not count:
        return " ".join([*said, "None never arrived."])
    text = f"{count * report.frames.sample:,} events never arrived (the band on top)"
    if len(report.frames.faults):
        begin = events["intended_s"].to_numpy()[never]
        inside = np.zeros(count, np.bool_)
        for first, last in zip(report.frames.faults["begin_s"], report.frames.faults["end_s"], strict=True):
            inside |= (begin >= first) & (begin <= last)
        text += f", {share(float(inside.mean()))} of them due while a fault was on"
    return " ".join([*said, f"{text}."])


def percentiles(report: Report) -> str:
    """Of each path, how far its line goes."""
    found = report.verdict.measures
    said = []
    for name, path in (
        ("publish", "publish.latency"),
        ("live", "live.latency"),
        ("Kafka consumer", "durable.latency"),
    ):
        if f"{path}.p50" not in found:
            continue
        p50, p99, p999 = (ms(found[f"{path}.{q}"]) for q in ("p50", "p99", "p99.9"))
        said.append(f"{_capital(name)}: p50 {p50}, p99 {p99}, p99.9 {p999}.")
    if any(np.isinf(found.get(f"{path}.max", 0)) for path in ("publish.latency", "live.latency")):
        said.append("A line ends where the rest never arrived.")
    return " ".join(said)


def lag(report: Report) -> str:
    """How far the consumer was behind, and live meanwhile."""
    found = report.verdict.measures
    text = ""
    if "durable.lag.max" in found:
        text = (
            f"The oldest acknowledged record waited at most {ms(found['durable.lag.max'])} for the Kafka "
            f"consumer, 99 % of the time at most {ms(found['durable.lag.p99'])}"
        )
        if "durable.lag.messages.max" in found:
            text += f"; {found['durable.lag.messages.max']:,.0f} messages at worst"
        text += ". "
    if "live.latency.p50" in found:
        p50, p99 = (ms(found[f"live.latency.{q}"]) for q in ("p50", "p99"))
        text += f"Live events meanwhile: p50 {p50}, p99 {p99}."
    return text


def ledger(report: Report) -> str:
    """Each event is somewhere, and what must never happen."""
    entries = report.verdict.entries
    events = sum(entry.count for entry in entries)
    parts = [
        f"{entry.count:,} {entry.name}{f' ({entry.cause})' if entry.cause else ''}"
        for entry in sorted(entries, key=lambda entry: -entry.count)
    ]
    more = ""
    if report.frames.sample > 1:
        more = f" One event in {report.frames.sample} was recorded, and counts are of those."
    return f"Of {events:,} events, each in one class: {enumerated(parts)}. {never(report)}{more}"


def recovery(report: Report, *, most: int) -> str:
    """Each fault in a sentence."""
    found = report.verdict.recoveries
    said = [_recovery(one) for one in found[:most]]
    if len(found) > most:
        said.append(f"These are the first {most} of {len(found)} faults.")
    return " ".join(said)


def _recovery(one: Recovery) -> str:
    text = f"{one.what} at {one.begin:.1f} s"
    text += (
        f" showed after {ms(one.detected * 1e3)} ({one.sign})"
        if one.detected is not None
        else " never showed"
    )
    for name, path in (("publishing", one.publish), ("live", one.live), ("the consumer", one.consumer)):
        if path is not None and path.silent:
            text += f"; {name} was silent for {ms(path.silent * 1e3)}"
            text += ", to the end" if path.again is None else ""
        if path is not None and path.back is not None and path.silent:
            text += f" and as before {ms(path.back * 1e3)} after its end"
    return f"{text}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
