"""A run in pictures, each with what is to be seen on it, in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dualstream_lab import analysis
from dualstream_lab.lab.output.page import canvas, drawing
from dualstream_lab.lab.report.report import Report
from dualstream_lab.lab.report.words import capital, enumerated, ms, never, share
from dualstream_lab.ledger import Recovery

if TYPE_CHECKING:
    import numpy.typing as npt
    from markupsafe import Markup
    from matplotlib.axes import Axes


_POINTS = 600  # windows of a line: more are not seen
_FAULTS = 8  # of a picture
_PATHS = {
    "publish": ("publish_ms", "publish.latency"),
    "live": ("live_ms", "live.latency"),
    "Kafka consumer": ("consumed_ms", "durable.latency"),
}


class Picture(NamedTuple):
    """A drawing and its caption. ``svg`` is None where there is nothing to draw; the caption says why."""

    title: str
    svg: Markup | None
    caption: str


def _drawn(title: str, axes: Axes, caption: str) -> Picture:
    axes.set_title("", loc="left")  # the page's heading says it
    return Picture(title, drawing(axes, label=title), caption)


def story(report: Report) -> list[Picture]:
    """The pictures of what happened over time, in the order in which they are shown."""
    frames = report.frames
    if not len(frames.events):
        return [Picture("What happened", None, "No rows of events were recorded: there is nothing to draw.")]
    finest = frames.length / _POINTS
    half = max(0.5, finest)
    live = bool(frames.events["live_ms"].notna().any())
    path = "live" if live else "publish"
    pictures = [
        _drawn("Both streams over time", analysis.plot_timeline(frames, canvas(), width=max(0.2, finest)),
               _timeline(report)),
        _drawn("Latency over time", analysis.plot_latency_over_time(frames, canvas(), width=half),
               _over_time(report, half)),
        _drawn(f"How many had which {path} latency",
               analysis.plot_latency_heatmap(frames, canvas(), column=_PATHS[path][0]), _heat(report, path)),
        _drawn("Latency by percentile", analysis.plot_latency_percentiles(frames, canvas()),
               _percentiles(report)),
    ]  # fmt: skip
    title = "Kafka lag beside live latency"
    if "consumed" in frames.has:
        axes = analysis.plot_lag_and_latency(frames, canvas(), width=max(0.25, finest))
        pictures.append(_drawn(title, axes, _lag(report)))
    else:
        pictures.append(Picture(title, None, "No Kafka consumer was recorded: its lag is not known."))
    if not live:
        pictures.append(Picture("Live", None, "No subscriber was recorded, or none received anything."))
    return pictures


def _timeline(report: Report) -> str:
    """Says whether and when one of the two streams stood still."""
    found, said = report.verdict.measures, []
    if "publish.rate" in found:
        rate, of_plan = found["publish.events_per_second"], share(found["publish.rate"])
        said.append(f"{rate:,.0f} events/s became durable, {of_plan} of the plan's rate.")
    if report.verdict.recoveries:
        quiet = [
            f"{ms(one.publish.unavailable * 1e3)} ({one.fault} at {one.begin:.1f} s)"
            for one in report.verdict.recoveries
            if one.publish is not None and one.publish.unavailable
        ]
        still = f"Publishing stood still for {enumerated(quiet, most=4)}."
        said.append(still if quiet else "Publishing never stood still.")
    if "delivered" in report.frames.has:
        windows = analysis.outage_windows(report.frames)[["begin_s", "end_s", "missed"]]
        spans = [
            f"{begin:.1f} to {end:.1f} s ({missed:,.0f} events)"
            for begin, end, missed in windows.itertuples(index=False)
        ]
        when = f"Most of what was due from {enumerated(spans, most=4)} was durable and not delivered live."
        said.append(when if spans else "In no tenth of a second was most of it undelivered.")
    return " ".join(said)


def _over_time(report: Report, width: float) -> str:
    """Says the usual p99 and the worst one of each path, with faults and without."""
    said = []
    for name, (column, _) in _PATHS.items():
        p99 = analysis.over_time(report.frames, column, width=width, qs=(0.99,))["p99"].dropna()
        if not len(p99) or not report.frames.events[column].notna().any():
            continue
        there = p99[np.isfinite(p99)]
        if not len(there):
            said.append(f"{capital(name)}: more than 1 % are missing in every one.")
            continue
        broken = _in_fault(report, p99.index.to_numpy(), width / 2)
        text = f"{capital(name)} p99: {ms(float(p99[~broken].median()))} in the median"
        if broken.any():
            text += f" without a fault, {ms(float(p99[broken].median()))} while one was on"
        text += f"; worst {ms(float(there.max()))}, at {there.idxmax():,.1f} s"
        if missing := len(p99) - len(there):
            text += f"; in {missing:,} of {len(p99):,} windows more than 1 % are missing"
        said.append(f"{text}.")
    return f"By windows of {width:g} s. {' '.join(said)}"


def _in_fault(report: Report, times: npt.NDArray[np.float64], margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which of these moments, s, lie within a fault, or within ``margin`` s of one."""
    faults = report.frames.faults
    inside = np.zeros(len(times), np.bool_)
    for begin, end in zip(faults["begin_s"], faults["end_s"], strict=True):
        inside |= (times >= begin - margin) & (times <= end + margin)
    return inside


def _heat(report: Report, name: str) -> str:
    """Says where most latencies of the path are, and how many events are missing."""
    events, found = report.frames.events, report.verdict.measures
    column, path = _PATHS[name]
    missing = events[column].isna().to_numpy()
    if name == "live":
        missing = missing & (events["outcome"] == 1).to_numpy()
    said = []
    arrived = f"{path}_arrived" if f"{path}_arrived.p50" in found else path
    if f"{arrived}.p50" in found:
        p50, p99, most = (ms(found[f"{arrived}.{q}"]) for q in ("p50", "p99", "max"))
        said.append(f"Of what arrived, half did within {p50}, 99 % within {p99}, the slowest after {most}.")
    count = int(np.count_nonzero(missing))
    if not count:
        return " ".join([*said, "None is missing."])
    text = f"{count * report.frames.sample:,} events are missing (the band on top)"
    if len(report.frames.faults):
        inside = _in_fault(report, events["intended_s"].to_numpy()[missing])
        text += f", {share(float(inside.mean()))} of them due while a fault was on"
    return " ".join([*said, f"{text}."])


def _percentiles(report: Report) -> str:
    """Says the percentiles of each path."""
    found, said = report.verdict.measures, []
    for name, (_, path) in _PATHS.items():
        if f"{path}.p50" in found:
            p50, p99, p999 = (ms(found[f"{path}.{q}"]) for q in ("p50", "p99", "p99.9"))
            said.append(f"{capital(name)}: p50 {p50}, p99 {p99}, p99.9 {p999}.")
    if any(np.isinf(found.get(f"{path}.max", 0)) for path in ("publish.latency", "live.latency")):
        said.append("A line ends where the rest is missing.")
    return " ".join(said)


def _lag(report: Report) -> str:
    """Says how far the Kafka consumer was behind, and how fast live delivery was meanwhile."""
    found, text = report.verdict.measures, ""
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


def ledger(report: Report) -> Picture:
    """The picture of what became of each event, and of what must never happen."""
    title, entries = "What became of each event", report.verdict.entries
    parts = [f"{entry.count:,} {entry.title}" for entry in sorted(entries, key=lambda entry: -entry.count)]
    events, sample = sum(entry.count for entry in entries), report.frames.sample
    more = f" One event in {sample} was recorded, and counts are of those." if sample > 1 else ""
    caption = f"Of {events:,} events, each in one class: {enumerated(parts)}. {never(report)}{more}"
    if not entries or not {"ledger.lost", "ledger.orphan"} <= report.verdict.measures.keys():
        return Picture(title, None, caption)  # a bar of what cannot be told would look like 0
    axes = canvas(height=1.2 + 0.38 * (len(entries) + 2))
    return _drawn(title, analysis.plot_ledger(entries, axes), caption)


def recovery(report: Report) -> Picture:
    """The picture of how each fault was got over."""
    title, faults = "How each fault was got over", report.verdict.recoveries
    shown = faults[:_FAULTS]
    if not shown:
        return Picture(title, None, "")
    rows = sum(1 + sum(path is not None for path in (one.publish, one.live, one.consumer)) for one in shown)
    axes = canvas(height=max(2.5, 1.2 + 0.26 * rows))
    said = [*map(_recovery, shown)]
    if len(faults) > _FAULTS:
        said.append(f"These are the first {_FAULTS} of {len(faults)} faults.")
    return _drawn(title, analysis.plot_recovery(shown, axes), " ".join(said))


def _recovery(one: Recovery) -> str:
    text = f"{one.fault} at {one.begin:.1f} s"
    seen = "did not show" if one.detected is None else f"showed after {ms(one.detected * 1e3)} ({one.sign})"
    text += f" {seen}"
    for name, path in (("publishing", one.publish), ("live", one.live), ("the consumer", one.consumer)):
        if path is not None and path.unavailable:
            text += f"; {name} was unavailable for {ms(path.unavailable * 1e3)}"
            text += ", to the end" if path.again is None else ""
            if path.back is not None:
                text += f" and as before {ms(path.back * 1e3)} after its end"
    return f"{text}."
