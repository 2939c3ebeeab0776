"""Pictures of runs. Each takes an ``ax`` (or makes one) and returns it; units are on every axis.

The colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; lines that share
a colour differ in their dashes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from dualstream_lab.analysis.statistics import lag, over_time
from dualstream_lab.recording import Outcome
from dualstream_lab.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pandas as pd
    from matplotlib.axes import Axes

    from dualstream_lab.analysis.frames import Frames

__all__ = [
    "COLORS",
    "plot_lag_and_latency",
    "plot_latency_over_time",
    "plot_latency_percentiles",
    "plot_outcomes",
    "plot_rates",
    "plot_sweep",
    "plot_timeline",
]

COLORS: Final = {
    "publish_ms": "#000000",
    "publish_raw_ms": "#999999",
    "live_ms": "#D55E00",
    "live_raw_ms": "#E69F00",
    "delay_ms": "#CC79A7",
    "consumed_ms": "#0072B2",
    "slip_ms": "#009E73",
    "lag": "#0072B2",
    "fault": "#F0E442",
}
LABELS: Final = {
    "publish_ms": "publish: intended to ack",
    "publish_raw_ms": "publish: sent to ack (raw)",
    "live_ms": "live: intended to heard on Redis",
    "live_raw_ms": "live: sent to heard (raw)",
    "delay_ms": "live: ack to heard",
    "consumed_ms": "Kafka consumer: intended to read",
    "slip_ms": "generator: intended to sent",
}
_FAILURES: Final = (
    ((Outcome.UNKNOWN,), "unknown at the deadline", "#E69F00"),
    ((Outcome.REJECTED, Outcome.NO_ROOM), "refused", "#D55E00"),
    ((Outcome.PENDING,), "no answer", "#999999"),
)
_NO_LAG = 0.1  # ms: a log axis has no zero
_PATHS = ("publish_ms", "live_ms", "consumed_ms")


def plot_latency_percentiles(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS
) -> Axes:
    """Latency (ms, log) by percentile, stretched so that every further nine has the same room.

    A line ends where events never arrived.
    """
    axes = _axes(ax)
    nines = np.linspace(0, 5, 301)
    for column in columns:
        values = frames.events[column].to_numpy()
        if not len(values) or np.isnan(values).all():
            continue
        shown = nines[nines <= np.log10(len(values))]
        full = np.where(np.isnan(values), np.inf, np.maximum(values, 1e-3))
        found = np.quantile(full, 1 - 10.0**-shown, method="inverted_cdf")
        there = np.isfinite(found)
        axes.plot(shown[there], found[there], color=COLORS[column], label=LABELS[column])
    axes.set_xticks(range(6), ["0", "90", "99", "99.9", "99.99", "99.999"])
    axes.set_xlabel("percentile of all intended events, %")
    _latency_axis(axes)
    return _finish(axes, "Latency by percentile")


def plot_latency_over_time(
    frames: Frames, ax: Axes | None = None, *, columns: Sequence[str] = _PATHS, width: float = 0.5
) -> Axes:
    """p50 (dashed) and p99 (solid) of the events intended in each ``width`` s; faults are shaded.

    A line is interrupted where that many never arrived.
    """
    axes = _axes(ax)
    for column in columns:
        table = over_time(frames, column, width=width).replace(np.inf, np.nan)
        if table["p50"].isna().all():
            continue
        color = COLORS[column]
        axes.plot(table.index, table["p99"], color=color, label=f"{LABELS[column]}, p99")
        axes.plot(table.index, table["p50"], color=color, linestyle="--", linewidth=1, label="p50")
    _shade(axes, frames)
    _latency_axis(axes)
    _time_axis(axes, frames)
    return _finish(axes, "Latency over time")


def plot_lag_and_latency(frames: Frames, ax: Axes | None = None, *, width: float = 0.25) -> Axes:
    """Kafka lag beside live latency, on one clock and one axis: both in ms."""
    axes = _axes(ax)
    table = lag(frames, width=0.02)
    windows = np.floor(table.index.to_numpy() / width)
    highest = table["seconds"].groupby(windows).max() * 1e3
    axes.plot(
        (highest.index.to_numpy() + 0.5) * width,
        np.maximum(highest.to_numpy(), _NO_LAG), color=COLORS["lag"],
        label=f"Kafka lag: age of the oldest unread record, highest\n(at the bottom: {_NO_LAG:g} ms or none)",
    )  # fmt: skip
    live = over_time(frames, "live_ms", width=width).replace(np.inf, np.nan)
    axes.plot(live.index, live["p99"], color=COLORS["live_ms"], label="live: intended to heard on Redis, p99")
    axes.plot(live.index, live["p50"], color=COLORS["live_ms"], linestyle="--", linewidth=1, label="p50")
    _shade(axes, frames)
    _latency_axis(axes, "lag, latency (ms)")
    _time_axis(axes, frames)
    return _finish(axes, "Kafka lag and live latency")


def plot_rates(frames: Frames, ax: Axes | None = None, *, width: float = 0.5) -> Axes:
    """Intended against achieved: events/s that the plan wanted, that became durable, that were heard."""
    axes = _axes(ax)
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
    _shade(axes, frames)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)  # room for the names of faults
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("events/s")
    _time_axis(axes, frames)
    return _finish(axes, "Intended and achieved rates")


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
    return _finish(axes, "Outage timeline")


def plot_outcomes(frames: Frames, ax: Axes | None = None, *, width: float = 0.25) -> Axes:
    """What became of the events intended in each ``width`` s, as events/s: durable ones as a line, others as
    stacked bars.
    """
    axes = _axes(ax)
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
    _shade(axes, frames)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)  # room for the names of faults
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("events/s")
    _time_axis(axes, frames)
    return _finish(axes, "What became of publishing, by intended time")


def plot_sweep(
    table: pd.DataFrame, ax: Axes | None = None, *, columns: Sequence[str], x: str = "rate"
) -> Axes:
    """Measures (ms, log) of several runs against their rate: one line a column of ``table``.

    What is 0 has a hollow marker, below all others.
    """
    axes = _axes(ax)
    styles = list(zip(["#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7"], "os^Dv", strict=True))
    ordered = table.sort_values(x)
    rates = ordered[x].to_numpy()
    measures = [ordered[column].replace(np.inf, np.nan).to_numpy(np.float64) for column in columns]
    every = np.concatenate(measures)
    lowest = min(every[every > 0], default=2.0) / 2  # a log axis has no zero
    for number, (column, values) in enumerate(zip(columns, measures, strict=True)):
        color, marker = styles[number % len(styles)]
        none = values == 0
        shown = np.where(none, lowest, values)
        axes.plot(rates, shown, color=color, marker=marker, label=column)
        axes.plot(rates[none], shown[none], color=color, marker=marker, mfc="white", linestyle="")
    if (every == 0).any():
        axes.plot([], [], color="#999999", marker="o", mfc="white", linestyle="", label="0")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("intended events/s" if x == "rate" else x)
    _latency_axis(axes, "ms")
    return _finish(axes, "Where each bends")


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    _, made = plt.subplots(figsize=(9, 4), layout="constrained")
    return made


def _shade(axes: Axes, frames: Frames) -> None:
    names = {"kill": "killed", "stop": "stopped", "restart": "restarted"}
    columns = [frames.faults[name].tolist() for name in ("what", "begin_s", "end_s")]
    for what, begin, end in zip(*columns, strict=True):
        target, _, verb = what.removeprefix("net.").partition(".")
        axes.axvspan(begin, end, color=COLORS["fault"], alpha=0.35, linewidth=0, zorder=0)
        axes.annotate(
            f"{target.capitalize()} {names.get(verb, verb.replace('-', ' '))}", ((begin + end) / 2, 0.97),
            xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=9,
        )  # fmt: skip


def _latency_axis(axes: Axes, label: str = "latency (ms)") -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if axes.texts:  # room for the names of faults
        high *= (high / low) ** 0.12
    steps = [m * 10.0**e for e in range(-3, 7) for m in (1, 3)]
    ticks = [step for step in steps if low <= step <= high] or [low, high]
    if len(ticks) > 7:
        ticks = [step for step in ticks if f"{step:.0e}".startswith("1")]
    axes.set_yticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)
    axes.set_ylabel(label)


def _time_axis(axes: Axes, frames: Frames) -> None:
    axes.set_xlim(0, frames.length)
    axes.set_xlabel("time (s after the plan's zero)")


def _finish(axes: Axes, title: str) -> Axes:
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing was recorded for this", transform=axes.transAxes, ha="center")
    return axes
