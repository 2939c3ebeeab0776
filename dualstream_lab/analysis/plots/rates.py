"""Events per second: intended and achieved, an outage, what became of publishing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.figure import Figure

from dualstream_lab.analysis.frames import Frames
from dualstream_lab.analysis.plots.look import COLORS, finish_over_time, new_axes, plain_numbers, shade
from dualstream_lab.recording import Outcome
from dualstream_lab.recording.rows import Floats
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_FAILURES: Final = (
    ((Outcome.UNKNOWN,), "unknown at the deadline", "#E69F00", "///"),
    ((Outcome.REJECTED, Outcome.NO_ROOM), "refused", "#D55E00", ""),
    ((Outcome.PENDING,), "no answer", "#999999", "..."),
)


def plot_rates(frames: Frames, ax: Axes | None = None, *, width: float = 0.5) -> Axes:
    """Intended against achieved: events/s that the plan wanted, that became durable, that were delivered."""
    axes = new_axes(ax)
    _draw_rates(frames, axes, width)
    return _finish_rates(frames, axes, "Intended and achieved rates")


def plot_timeline(frames: Frames, ax: Axes | None = None, *, width: float = 0.2) -> Axes:
    """An outage in one picture: events/s durable, delivered, missed (bars), faults shaded."""
    axes = new_axes(ax)
    _draw_rates(frames, axes, width)
    events = frames.events
    missed = (events["outcome"].to_numpy() == Outcome.DURABLE) & np.isnan(events["live_ms"].to_numpy())
    if missed.any() and "delivered" in frames.has:
        windows = _windows(frames.duration, width)
        rates = _rates(frames, events["intended_s"].to_numpy()[missed], width, windows)
        middles, label = (np.arange(windows) + 0.5) * width, "durable, undelivered"
        axes.bar(middles, rates, width, color=COLORS["delay_ms"], alpha=0.5, label=label, zorder=1)
    return _finish_rates(frames, axes, "Outage timeline")


def plot_outcomes(frames: Frames, ax: Axes | None = None, *, width: float = 0.25) -> Axes:
    """What became of the events intended in each ``width`` s, as events/s: durable ones as a line, others as
    stacked bars.
    """
    axes = new_axes(ax)
    windows = max(1, round(frames.duration / width))
    edges: Floats = np.arange(windows + 1, dtype=np.float64) * width
    begin, outcome = frames.events["intended_s"].to_numpy(), frames.events["outcome"].to_numpy()
    if len(begin):
        axes.stairs(
            _rates(frames, begin[outcome == Outcome.DURABLE], width, windows), edges, baseline=None,
            color=COLORS["publish_ms"], linewidth=1.5, label="durable on Kafka",
        )  # fmt: skip
    below = np.zeros(windows)
    for outcomes, label, color, hatch in _FAILURES:
        chosen = np.isin(outcome, outcomes)
        if chosen.any():
            found = _rates(frames, begin[chosen], width, windows)
            axes.bar(
                edges[:-1], found, width, below, align="edge", color=color, hatch=hatch, linewidth=0,
                label=label,
            )  # fmt: skip
            below += found
    return _finish_rates(frames, axes, "What became of publishing, by intended time")


def _draw_rates(frames: Frames, axes: Axes, width: float) -> None:
    begin = frames.events["intended_s"].to_numpy()
    workload = Workload.load(frames.manifest.workload)
    windows = _windows(max(frames.length, float(begin.max(initial=0))), width)
    middles: Floats = (np.arange(windows, dtype=np.float64) + 0.5) * width
    if workload.plan != "closed":
        inside = middles[middles < frames.duration]
        wanted = workload.intended_rate(inside)
        axes.plot(inside, wanted, color="#999999", linestyle=":", linewidth=2, label="intended by the plan")
    for column, label, dashes in (("publish_ms", "durable on Kafka", "-"), ("live_ms", "delivered", "--")):
        spent = frames.events[column].to_numpy()
        arrived = ~np.isnan(spent)
        if not arrived.any():
            continue
        rates = _rates(frames, begin[arrived] + spent[arrived] / 1e3, width, windows)
        axes.plot(middles, rates, color=COLORS[column], linestyle=dashes, label=label)


def _windows(length: float, width: float) -> int:
    return max(1, math.ceil(length / width - 1e-9))


def _rates(frames: Frames, at: Floats, width: float, windows: int) -> Floats:
    """Events/s in each window of those at ``at`` (s); what is outside of all windows is left out."""
    place = np.floor(at / width + 1e-9).astype(np.int32)  # 4.6 / 0.2 is just below 23
    outside = (place < 0) | (place >= windows)
    if outside.any():
        place = place[~outside]
    return np.bincount(place, minlength=windows).astype(np.float64) * (frames.sample / width)


def _finish_rates(frames: Frames, axes: Axes, title: str) -> Axes:
    shade(axes, frames)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)  # room for the names of faults
    axes.yaxis.set_major_formatter(plain_numbers)
    axes.set_ylabel("events/s")
    return finish_over_time(axes, frames, title)


def draw_live(series: Mapping[int, Sequence[float]], *, duration: float, rate: float) -> Figure:
    """A run that still goes on. ``series``: by second (durable events/s, delivered/s, publish p99 in ms)."""
    figure = Figure(figsize=(9, 3), dpi=80, layout="constrained")
    rates, latency = figure.subplots(1, 2)
    at = sorted(series)
    durable, delivered, p99 = (np.array([series[second][column] for second in at]) for column in range(3))
    rates.axhline(rate, color="#999999", linestyle=":", label="highest intended")
    rates.plot(at, durable, color="#000000", label="durable")
    rates.plot(at, delivered, color="#D55E00", linestyle="--", label="delivered")
    rates.set_ylabel("events/s")
    rates.yaxis.set_major_formatter(plain_numbers)
    latency.plot(at, np.where(np.isfinite(p99), p99, np.nan), color="#000000", label="publish p99")
    latency.set_ylabel("latency (ms)")
    for axes in (rates, latency):
        axes.set_xlim(0, duration)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("time (s)")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)
    return figure
