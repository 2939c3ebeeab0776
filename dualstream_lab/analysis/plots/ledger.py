"""What became of every event, as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dualstream_lab.analysis.plots.look import (
    BAD,
    DOUBTFUL,
    GOOD,
    few_numbers,
    finish,
    name_rows,
    new_axes,
    plain_numbers,
)  # fmt: skip
from dualstream_lab.ledger import CLASSES, Class, Ledger
from dualstream_lab.ledger.tables import share_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from dualstream_lab.ledger import Entry

__all__ = ["plot_ledger"]

_NEVER: Final = {CLASSES[which][0] for which in (Class.LOST, Class.ORPHAN)}
_COLORS: Final = {"heard": GOOD, "silent": DOUBTFUL, "heard-after-giving-up": "#56B4E9"}
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
        few_numbers(axes.xaxis)
    else:
        axes.set_xlim(0, most * 1.3)
        axes.xaxis.set_major_formatter(plain_numbers)
    for place, bar in enumerate(bars):
        axes.barh(place, bar.events, height=0.7, color=bar.color)
        axes.annotate(
            bar.text, (max(bar.events, axes.get_xlim()[0]), place), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=9,
            color=BAD if bar.color == BAD and bar.events else "#000000",
        )  # fmt: skip
    name_rows(axes, [bar.name for bar in bars])
    sample = ledger.sample if isinstance(ledger, Ledger) else 1
    axes.set_xlabel(
        f"events{' (log)' if log else ''}{f'; one in {sample} was recorded' if sample > 1 else ''}"
    )
    simulated = isinstance(ledger, Ledger) and ledger.directory.manifest.simulated
    finish(axes, f"What became of {sum(counts):,} events", simulated=simulated)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return axes


def _bars(ledger: Ledger | Sequence[Entry]) -> Iterator[_Bar]:
    """By class, as the ledger has them."""
    if isinstance(ledger, Ledger):
        entries: Sequence[Entry] = ledger.entries
        known = {"lost": ledger.lost is not None, "orphan": ledger.orphans is not None}
    else:
        entries, known = ledger, {"lost": True, "orphan": True}
    for name, _ in CLASSES.values():
        found = [entry for entry in entries if entry.name == name]
        if name in _NEVER and not found:
            yield _Bar(name, 0, "none" if known[name] else "cannot be told: rows are missing", _OTHERS)
        for entry in found:
            text = f"{entry.count:,}  ({share_text(entry.share)}){': must never happen' * (name in _NEVER)}"
            color = BAD if name in _NEVER else _COLORS.get(name, _OTHERS)
            yield _Bar(f"{name}: {entry.cause}" if entry.cause else name, entry.count, text, color)
