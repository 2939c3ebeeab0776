"""The timeline of a run: rates and latencies of both streams, with what was done to Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from dualstream_lab.analysis.latency import windows

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["Timeline", "draw_timeline"]

_WIDTH = 0.2
_KAFKA, _REDIS, _ACK = "#1f5fa8", "#c8442b", "#4a4a4a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What is drawn. Times are ns after the start, one row an event, 0 for "never"; the outage is in s."""

    title: str
    rate: float
    length: float
    outage: tuple[float, float]
    intended: npt.NDArray[np.int64]
    acked: npt.NDArray[np.int64]
    kafka: npt.NDArray[np.int64]
    redis: npt.NDArray[np.int64]


def draw_timeline(run: Timeline, file: Path) -> None:
    """Write a PNG of 1400 by 1100 pixels."""
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 7.9), dpi=140, layout="constrained")
        rate, publish, delivery = figure.subplots(3, 1, sharex=True)
        figure.suptitle(run.title, x=0.01, ha="left", fontweight="bold")
        _draw_rates(rate, run)
        _draw_latency(publish, run, run.acked, "publish (call to Kafka's ack)", _ACK)
        publish.set_ylabel("publish latency, ms")
        _draw_latency(delivery, run, run.kafka, "event at a Kafka consumer", _KAFKA)
        _draw_latency(delivery, run, run.redis, "notification at a Redis subscriber", _REDIS)
        delivery.set_ylabel("delivery latency, ms")
        delivery.set_xlabel("seconds")
        for axes in (rate, publish, delivery):
            axes.axvspan(*run.outage, color="#f2d9d4", zorder=0, linewidth=0)
            axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
            axes.set_axisbelow(True)
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
        rate.set_xlim(0, run.length)
        rate.text(
            sum(run.outage) / 2,
            0.06,
            "Redis killed",
            ha="center",
            color=_REDIS,
            transform=rate.get_xaxis_transform(),
        )
        figure.savefig(file)


def _draw_rates(axes: Axes, run: Timeline) -> None:
    edges = np.arange(0, run.length + _WIDTH, _WIDTH)
    for times, name, color in (
        (run.acked, "durable on Kafka", _KAFKA),
        (run.redis, "heard on Redis", _REDIS),
    ):
        counts, _ = np.histogram(times[times > 0] / 1e9, edges)
        axes.plot(edges[:-1] + _WIDTH / 2, counts / _WIDTH, label=name, color=color, linewidth=1.5)
    axes.axhline(run.rate, color="#999999", linewidth=0.8, linestyle=":", label="intended")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("events/s")


def _draw_latency(axes: Axes, run: Timeline, end: npt.NDArray[np.int64], name: str, color: str) -> None:
    starts, p50, p99 = windows(run.intended, end, width=_WIDTH, length=run.length)
    axes.plot(starts + _WIDTH / 2, p99, color=color, linewidth=1.5, label=f"{name}, p99")
    axes.plot(starts + _WIDTH / 2, p50, color=color, linewidth=1, linestyle="--", label=f"{name}, p50")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
