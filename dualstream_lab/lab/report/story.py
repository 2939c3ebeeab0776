"""A run in pictures, each with what is to be seen on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dualstream_lab import analysis
from dualstream_lab.lab.output.page import canvas, drawing
from dualstream_lab.lab.report import captions

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from dualstream_lab.lab.report.report import Report

__all__ = ["Picture", "ledger", "recovery", "story"]

_POINTS = 600  # windows of a line: more are not seen
_FAULTS = 8  # of a picture


class Picture(NamedTuple):
    """``svg`` is None where there is nothing to draw; then the caption says why."""

    title: str
    svg: Markup | None
    caption: str


def story(report: Report) -> list[Picture]:
    """What happened, over time."""
    frames = report.frames
    if not len(frames.events):
        return [Picture("What happened", None, "No rows of events were recorded: there is nothing to draw.")]
    finest = frames.length / _POINTS
    half = max(0.5, finest)
    heard = bool(frames.events["live_ms"].notna().any())
    column, whose = ("live_ms", "live") if heard else ("publish_ms", "publish")
    found = [
        _drawn(
            "Both streams over time",
            analysis.plot_timeline(frames, canvas(), width=max(0.2, finest)),
            captions.timeline(report),
        ),
        _drawn(
            "Latency over time",
            analysis.plot_latency_over_time(frames, canvas(), width=half),
            captions.over_time_of(report, half),
        ),
        _drawn(
            f"How many had which {whose} latency",
            analysis.plot_latency_heatmap(frames, canvas(), column=column),
            captions.heat(report, column),
        ),
        _drawn(
            "Latency by percentile",
            analysis.plot_latency_percentiles(frames, canvas()),
            captions.percentiles(report),
        ),
    ]
    title = "Kafka lag beside live latency"
    if "consumed" in frames.has:
        axes = analysis.plot_lag_and_latency(frames, canvas(), width=max(0.25, finest))
        found.append(_drawn(title, axes, captions.lag(report)))
    else:
        found.append(Picture(title, None, "No Kafka consumer was recorded: its lag is not known."))
    if not heard:
        found.append(Picture("Live", None, "No subscriber was recorded, or none heard anything."))
    return found


def ledger(report: Report) -> Picture:
    """What became of each event."""
    title, entries = "What became of each event", report.verdict.entries
    if not entries or not {"ledger.lost", "ledger.orphan"} <= report.verdict.measures.keys():
        return Picture(title, None, captions.ledger(report))  # a bar of what cannot be told would look like 0
    axes = canvas(height=1.2 + 0.38 * (len(entries) + 2))
    return _drawn(title, analysis.plot_ledger(entries, axes), captions.ledger(report))


def recovery(report: Report) -> Picture:
    """How each fault was got over."""
    title, found = "How each fault was got over", report.verdict.recoveries[:_FAULTS]
    if not found:
        return Picture(title, None, "")
    rows = sum(1 + sum(path is not None for path in (one.publish, one.live, one.consumer)) for one in found)
    axes = canvas(height=max(2.5, 1.2 + 0.26 * rows))
    caption = captions.recovery(report, most=_FAULTS)
    return _drawn(title, analysis.plot_recovery(found, axes), caption)


def _drawn(title: str, axes: Axes, caption: str) -> Picture:
    axes.set_title("", loc="left")  # the page's heading says it
    return Picture(title, drawing(axes, label=title), caption)
