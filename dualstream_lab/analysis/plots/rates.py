"""Events per second: intended and achieved, an outage, what became of publishing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.ticker import FuncFormatter

from dualstream_lab.analysis.plots.look import COLORS, finish, new_axes, shade, time_axis
from dualstream_lab.recording import Outcome
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    from dualstream_lab.analysis.frames import Frames

__all__ = ["plot_outcomes", "plot_rates", "plot_timeline"]

_FAILURES: Final = (
    ((Outcome.UNKNOWN,), "unknown at the deadline", "#E69F00"),
    ((Outcome.REJECTED, Outcome.NO_ROOM), "refused", "#D55E00"),
    ((Outcome.PENDING,), "no answer", "#999999"),
)


def plot_rates(frames: Frames, ax: Axes | None = None, *, width: float = 0.5) -> Axes:
    """Intended against achieved: events/s that the plan wanted, that became durable, that were heard."""
    axes = new_axes(ax)
    begin = frames.events["intended_s"].to_numpy()
    workload = Workload.load(frames.manifest.workload)
    edges = np.arange(0, max(frames.length, float(begin.max(initial=0))) + width, width)
    middles = edges[:-1] + width / 2
    if workload.plan != "closed":
        inside = middles[middles < frames.duration]
        wanted = workload.intended_rate(inside)
        axes.plot(inside, wanted, color="#999999", linestyle=":", linewidth=2, label="intended by the plan")
    for column, label in (("publish_ms", "durable on Kafka"), ("live_ms", "heard on Redis")):
        spent = frames.events[column].to_numpy()
        when = (begin + spent / 1e3)[~np.isnan(spent)]
        if not len(when):
            continue
        counts, _ = np.histogram(when, edges)
        axes.plot(middles, counts * frames.sample / width, color=COLORS[column], label=label)
    shade(axes, frames)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)  # room for the names of faults
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("events/s")
    time_axis(axes, frames)
    return finish(axes, "Intended and achieved rates")


def plot_timeline(frames: Frames, ax: Axes | None = None, *, width: float = 0.2) -> Axes:
    """An outage in one picture: events/s durable and heard, notifications missed (bars), faults shaded."""
    axes = plot_rates(frames, ax, width=width)
    events = frames.events
    missed = events.loc[(events["outcome"] == 1) & events["live_ms"].isna(), "intended_s"]
    if len(missed) and "heard" in frames.has:
        edges = np.arange(0, frames.duration + width, width)
        counts, _ = np.histogram(missed, edges)
        axes.bar(
            edges[:-1] + width / 2, counts * frames.sample / width, width=width, color=COLORS["delay_ms"],
            alpha=0.5, label="durable, and never heard live", zorder=1,
        )  # fmt: skip
    return finish(axes, "Outage timeline")


def plot_outcomes(frames: Frames, ax: Axes | None = None, *, width: float = 0.25) -> Axes:
    """What became of the events intended in each ``width`` s, as events/s: durable ones as a line, others as
    stacked bars.
    """
    axes = new_axes(ax)
    edges = np.arange(0, frames.duration + width / 2, width)
    begin, outcome = frames.events["intended_s"], frames.events["outcome"]

    def rates(*outcomes: Outcome) -> npt.NDArray[np.float64]:
        counts, _ = np.histogram(begin[outcome.isin(outcomes)], edges)
        return counts * frames.sample / width

    if len(begin):
        axes.stairs(
            rates(Outcome.DURABLE), edges, baseline=None, color=COLORS["publish_ms"], linewidth=1.5,
            label="durable on Kafka",
        )  # fmt: skip
    below = np.zeros(len(edges) - 1)
    for outcomes, label, color in _FAILURES:
        found = rates(*outcomes)
        if found.any():
            axes.bar(edges[:-1], found, width, below, align="edge", color=color, label=label)
            below += found
    shade(axes, frames)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)  # room for the names of faults
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("events/s")
    time_axis(axes, frames)
    return finish(axes, "What became of publishing, by intended time")
