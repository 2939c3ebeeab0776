"""What became of every event, as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from matplotlib.ticker import FuncFormatter, NullLocator

from dualstream_lab.analysis.plots.look import finish, new_axes, plain_numbers
from dualstream_lab.ledger import CLASSES, Class, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from dualstream_lab.ledger import Entry

__all__ = ["plot_ledger"]

_NEVER: Final = {CLASSES[which][0] for which in (Class.LOST, Class.ORPHAN)}
_GOOD, _BAD = "#009E73", "#D55E00"
_COLORS: Final = {"heard": _GOOD, "silent": "#E69F00", "heard-after-giving-up": "#56B4E9"}
_OTHERS: Final = "#999999"
_DECADES: Final = 30  # a count that is so many times another one would hide it on a linear axis


class _Bar(NamedTuple):
    name: str
    events: int
    text: str
    color: str


def plot_ledger(ledger: Ledger | Sequence[Entry], ax: Axes | None = None) -> Axes:
    """A bar a class and cause: how many events (log where they differ by decades).

    What must never happen always has its line: a count, "none", or that it cannot be told. ``ledger``: one,
    or its ``entries``, which are taken to be all there is to tell.
    """
    bars = list(_bars(ledger))
    axes = new_axes(ax, height=1.2 + 0.38 * len(bars))
    counts = [bar.events for bar in bars if bar.events]
    most = max(counts, default=1)
    log = bool(counts) and most >= _DECADES * min(counts)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(0.5, most * (2 * most) ** 0.3)  # room for the texts
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, most * 1.3)
    for place, bar in enumerate(bars):
        axes.barh(place, bar.events, height=0.7, color=bar.color)
        axes.annotate(
            bar.text, (max(bar.events, axes.get_xlim()[0]), place), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=9,
            color=_BAD if bar.color == _BAD and bar.events else "#000000",
        )  # fmt: skip
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(plain_numbers))
    sample = ledger.sample if isinstance(ledger, Ledger) else 1
    axes.set_xlabel(
        f"events{' (log)' if log else ''}{f'; one in {sample} was recorded' if sample > 1 else ''}"
    )
    axes.tick_params(axis="y", length=0)
    simulated = isinstance(ledger, Ledger) and ledger.directory.manifest.simulated
    finish(axes, f"What became of {sum(counts):,} events", simulated=simulated)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return axes


def _bars(ledger: Ledger | Sequence[Entry]) -> Iterator[_Bar]:
    """By class, as the ledger has them."""
    if isinstance(ledger, Ledger):
        entries: Sequence[Entry] = ledger.entries
        told = {"lost": ledger.lost is not None, "orphan": ledger.orphans is not None}
    else:
        entries, told = ledger, {"lost": True, "orphan": True}
    for name, _ in CLASSES.values():
        found = [entry for entry in entries if entry.name == name]
        if name in _NEVER and not found:
            yield _Bar(name, 0, "none" if told[name] else "cannot be told: rows are missing", _OTHERS)
        for entry in found:
            share = f"{entry.share:.2%}" if entry.share >= 0.0001 else f"{entry.share:.1e}"
            text = f"{entry.count:,}  ({share})"
            if name in _NEVER:
                text += ": must never happen"
            yield _Bar(
                f"{name}: {entry.cause}" if entry.cause else name, entry.count, text,
                _BAD if name in _NEVER else _COLORS.get(name, _OTHERS),
            )  # fmt: skip
