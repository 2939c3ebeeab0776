"""A run in pictures, each with what is to be seen on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dualstream_lab import analysis
from dualstream_lab.lab.page import canvas, drawing
from dualstream_lab.lab.report import captions

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from dualstream_lab.lab.report.report import Report

__all__ = ["Picture", "ledger", "recovery", "story"]

_POINTS = 600  # windows of a line: more are not seen


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
    slow = max(0.5, finest)
    heard = frames.events["live_ms"].notna().any()
    found = [
        _drawn(
            "Both streams over time",
            analysis.plot_timeline(frames, canvas(), width=max(0.2, finest)),
            captions.timeline(report),
        ),
        _drawn(
            "Latency over time",
            analysis.plot_latency_over_time(frames, canvas(), width=slow),
            captions.over_time_of(report, slow),
        ),
    ]
    found.append(
        _drawn(
            "Latency by percentile",
            analysis.plot_latency_percentiles(frames, canvas()),
            captions.percentiles(report),
        )
    )
    if "consumed" not in frames.has:
        found.append(
            Picture(
                "Kafka lag beside live latency", None, "No Kafka consumer was recorded: its lag is not known."
            )
        )
    else:
        axes = analysis.plot_lag_and_latency(frames, canvas(), width=max(0.25, finest))
        found.append(_drawn("Kafka lag beside live latency", axes, captions.lag(report)))
    if not heard:
        found.append(Picture("Live latency", None, "No subscriber heard anything, or none was recorded."))
    return found


def ledger(report: Report) -> Picture:
    """What became of each event."""
    return Picture("What became of each event", None, captions.ledger(report))


def recovery(report: Report) -> Picture:
    """How each fault was got over."""
    return Picture("How each fault was got over", None, captions.recovery(report))


def _drawn(title: str, axes: Axes, caption: str) -> Picture:
    axes.set_title("", loc="left")  # the page's heading says it
    return Picture(title, drawing(axes, label=title), caption)
