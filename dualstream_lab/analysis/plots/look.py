"""How every picture looks: colours, labels, axes, faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import NullLocator

from dualstream_lab.analysis.frames import Frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


GOOD: Final = "#009E73"
DOUBTFUL: Final = "#E69F00"
BAD: Final = "#D55E00"
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
    "live_ms": "live: intended to received",
    "live_raw_ms": "live: sent to received (raw)",
    "delay_ms": "live: ack to received",
    "consumed_ms": "Kafka consumer: intended to read",
    "slip_ms": "generator: intended to sent",
}
DASHES: Final = {"consumed_ms": ("-.", ":"), "lag": ("-.", ":")}
"""Of p99 and of p50, where not solid and dashed: in grey, vermilion and blue are the same."""
LINES: Final = (
    ("#000000", "-"),
    ("#D55E00", (0, (6, 1.5))),
    ("#0072B2", (0, (3, 1, 1, 1))),
    ("#009E73", (0, (1.5, 1))),
    ("#CC79A7", (0, (8, 1, 1, 1, 1, 1))),
)
"""Colour and dashes of a picture's first line, second line, … In grey, the dashes tell them apart."""
MARKERS: Final = "os^Dv"

_ROOM: Final = 0.8  # of the width that axes have before a legend stands beside them
_GAP: Final = 5.0  # points between two names
_FIRST: Final = 5  # numbers of faults of one kind that a legend names


def new_axes(ax: Axes | None, *, height: float = 4) -> Axes:
    """``ax``, or a fresh one of a notebook's size (``height``: inches)."""
    if ax is not None:
        return ax
    _, made = plt.subplots(figsize=(9, height), layout="constrained")
    return made


def fault_name(name: str) -> str:
    """The name of a fault in words: "Redis killed"."""
    names = {"kill": "killed", "stop": "stopped", "restart": "restarted"}
    target, _, verb = name.removeprefix("net.").partition(".")
    return f"{target.capitalize()} {names.get(verb, verb.replace('-', ' '))}".strip()


def shade(axes: Axes, frames: Frames) -> None:
    """Faults: shaded, and named in words; where the names have no room, numbered, and named in the legend."""
    spans = list(zip(frames.faults["begin_s"].tolist(), frames.faults["end_s"].tolist(), strict=True))
    names = [fault_name(name) for name in frames.faults["fault"]]
    for begin, end in spans:
        axes.axvspan(begin, end, facecolor=COLORS["fault"], alpha=0.35, linewidth=0, zorder=0)
    middles = [sum(span) / 2 for span in spans]
    places = _places(axes, names, middles, frames.length)
    if None in places:
        _number(axes, names)
        names = [str(number) for number in range(1, len(names) + 1)]
        places = _places(axes, names, middles, frames.length)
    coordinates = ("data", "axes fraction")
    for name, place in zip(names, places, strict=True):
        if place is not None:
            axes.annotate(name, (place, 0.97), xycoords=coordinates, ha="center", va="top", fontsize=9)


def _places(axes: Axes, names: Sequence[str], middles: Sequence[float], length: float) -> list[float | None]:
    """The place of each name, centred, in s: within the axes, and None where another one is in its way."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101  (axes that were not removed)
    room = _ROOM * axes.get_position().width * figure.get_figwidth() * 72
    found: list[float | None] = [None] * len(names)
    taken = -_GAP
    for number in sorted(range(len(names)), key=middles.__getitem__):
        half = TextPath((0, 0), names[number], size=9).get_extents().width / 2
        place = min(max(middles[number] / length * room, half), room - half)
        if place - half >= taken + _GAP or taken < 0:
            found[number] = place / room * length
            taken = place + half
    return found


def _number(axes: Axes, names: Sequence[str]) -> None:
    """Write into the legend which numbers are faults of which name."""
    style: dict[str, Any] = {"facecolor": COLORS["fault"], "alpha": 0.5, "linewidth": 0}
    for name in dict.fromkeys(names):
        numbers = [str(number) for number, other in enumerate(names, 1) if other == name]
        label = f"{' '.join(numbers[:_FIRST])}{' …' if len(numbers) > _FIRST else ''}  {name}"
        axes.add_patch(Rectangle((0, 0), 0, 0, label=label, **style))


def latency_axis(axes: Axes, label: str = "latency (ms)") -> None:
    """A log axis from top to bottom, with few and plain numbers."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if low <= 0:  # nothing was drawn
        low, high = 1.0, 10.0
    if high < 4 * low:  # one value: room for a number above and below it
        low, high = low / 2, high * 2
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


def few_numbers(axis: Axis, ticks: Sequence[float] | None = None) -> None:
    """Plain numbers on a log axis, at ``ticks`` or at the powers of ten."""
    if ticks is None:
        axis.set_major_formatter(plain_numbers)
    else:
        axis.set_ticks(ticks, [plain_numbers(tick) for tick in ticks])
    axis.set_minor_locator(NullLocator())


def name_rows(axes: Axes, names: Sequence[str], *, room: float = 0.6, **text: Any) -> None:
    """The names of rows that are drawn one below the other, the first on top."""
    axes.set_yticks(range(len(names)), names, **text)
    axes.set_ylim(max(len(names), 1) - min(room, 1 - room), -room)
    axes.tick_params(axis="y", length=0)


def plain_numbers(value: float, _: float | None = None) -> str:
    """12,000 rather than 1.2e4, for an axis."""
    return f"{value:,g}" if abs(value) < 100 else f"{value:,.0f}"


def finish(
    axes: Axes, title: str, *, simulated: bool = False, nothing: str = "nothing was recorded for this"
) -> Axes:
    """Title, grid, legend; says ``nothing`` where nothing was drawn."""
    axes.set_title(f"{title} (simulated)" if simulated else title, loc="left", fontsize=11)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    # a single rectangle is a fault
    drawn = [*axes.collections, *axes.containers, *(h for h in handles if not isinstance(h, Rectangle))]
    if not drawn:
        axes.text(0.5, 0.5, nothing, transform=axes.transAxes, ha="center")
    return axes


def finish_over_time(axes: Axes, frames: Frames, title: str) -> Axes:
    """Finish a picture whose horizontal axis is time, from the plan's zero to the last answer."""
    axes.set_xlim(0, frames.length)
    axes.set_xlabel("time (s after the plan's zero)")
    return finish(axes, title, simulated=frames.manifest.simulated)


def write_beside(
    axes: Axes, at: tuple[float, float], text: str, *, right: float, color: str = "#000000", size: float = 9,
    **place: Any,
) -> None:  # fmt: skip
    """A text whose left end is ``right`` points beside a place of the axes."""
    axes.annotate(
        text, at, xytext=(right, 0), textcoords="offset points", va="center", fontsize=size, color=color,
        **place,
    )  # fmt: skip
