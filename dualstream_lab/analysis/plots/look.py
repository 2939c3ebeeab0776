"""How every picture looks: colours, labels, axes, faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib.pyplot as plt
from matplotlib.ticker import NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dualstream_lab.analysis.frames import Frames

__all__ = ["COLORS", "LABELS", "finish", "latency_axis", "new_axes", "shade", "time_axis"]

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


def new_axes(ax: Axes | None) -> Axes:
    """``ax``, or a fresh one of a notebook's size."""
    if ax is not None:
        return ax
    _, made = plt.subplots(figsize=(9, 4), layout="constrained")
    return made


def shade(axes: Axes, frames: Frames) -> None:
    """Faults: shaded, and named in words."""
    names = {"kill": "killed", "stop": "stopped", "restart": "restarted"}
    columns = [frames.faults[name].tolist() for name in ("what", "begin_s", "end_s")]
    for what, begin, end in zip(*columns, strict=True):
        target, _, verb = what.removeprefix("net.").partition(".")
        axes.axvspan(begin, end, color=COLORS["fault"], alpha=0.35, linewidth=0, zorder=0)
        axes.annotate(
            f"{target.capitalize()} {names.get(verb, verb.replace('-', ' '))}", ((begin + end) / 2, 0.97),
            xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=9,
        )  # fmt: skip


def latency_axis(axes: Axes, label: str = "latency (ms)") -> None:
    """A log axis from top to bottom, with few and plain numbers."""
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


def time_axis(axes: Axes, frames: Frames) -> None:
    """From the plan's zero to the last answer."""
    axes.set_xlim(0, frames.length)
    axes.set_xlabel("time (s after the plan's zero)")


def finish(axes: Axes, title: str) -> Axes:
    """Title, grid, legend; says so where nothing was drawn."""
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
