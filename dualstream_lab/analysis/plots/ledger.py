"""What became of every event, and how a run got over its faults: bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dualstream_lab.analysis.plots import look
from dualstream_lab.ledger import CLASSES, Class, Entry, Ledger, Path, Recovery
from dualstream_lab.ledger.recovery import PATHS
from dualstream_lab.ledger.tables import detected, share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_NEVER: Final = {CLASSES[which][0] for which in (Class.LOST, Class.ORPHAN)}
_COLORS: Final = {
    "delivered": look.GOOD, "undelivered": look.DOUBTFUL, "delivered-after-giving-up": "#56B4E9",
}  # fmt: skip
_OTHERS: Final = "#999999"
_DECADES: Final = 30  # a count that is so many times another one would hide it on a linear axis

_FAULT, _UNAVAILABLE, _BACK = "#F0E442", "#000000", "#009E73"
_DRAINS: Final[dict[str, Any]] = {
    "color": "#56B4E9", "hatch": "////", "edgecolor": "#ffffff", "linewidth": 0,
}  # fmt: skip


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
    axes = look.new_axes(ax, height=1.2 + 0.38 * len(bars))
    counts = [bar.events for bar in bars if bar.events]
    most = max(counts, default=1)
    log = bool(counts) and most >= _DECADES * min(counts)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(0.5, most * (2 * most) ** 0.3)  # room for the texts
        look.few_numbers(axes.xaxis)
    else:
        axes.set_xlim(0, most * 1.3)
        axes.xaxis.set_major_formatter(look.plain_numbers)
    for place, bar in enumerate(bars):
        axes.barh(place, bar.events, height=0.7, color=bar.color)
        color = look.BAD if bar.color == look.BAD and bar.events else "#000000"
        look.write_beside(axes, (max(bar.events, axes.get_xlim()[0]), place), bar.text, right=4, color=color)
    look.name_rows(axes, [bar.name for bar in bars])
    sample = ledger.sample if isinstance(ledger, Ledger) else 1
    of_a_sample = f"; one in {sample} was recorded" if sample > 1 else ""
    axes.set_xlabel(f"events{' (log)' * log}{of_a_sample}")
    simulated = isinstance(ledger, Ledger) and ledger.directory.manifest.simulated
    look.finish(axes, f"What became of {sum(counts):,} events", simulated=simulated)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return axes


def _bars(ledger: Ledger | Sequence[Entry]) -> Iterator[_Bar]:
    """The bars, by class, in the order of the ledger."""
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
            color = look.BAD if name in _NEVER else _COLORS.get(name, _OTHERS)
            yield _Bar(entry.title, entry.count, text, color)


class _Row(NamedTuple):
    """The row of a fault (without a path), or of one of its paths."""

    recovery: Recovery
    name: str
    path: Path | None


def plot_recovery(recoveries: Sequence[Recovery], ax: Axes | None = None) -> Axes:
    """A row a fault, and below it a row a path: when the fault was on, when it showed, how long the path was
    unavailable, until when what had piled up was drained, when p99 was as before. All in s of the fault.

    Where a silence began is known only if it outlasted the fault; another one is drawn from the begin. A row
    wants about a quarter of an inch: four rows a fault.
    """
    rows = list(_rows(recoveries))
    axes = look.new_axes(ax, height=max(2.5, 1.2 + 0.26 * len(rows)))
    reach = 1.06 * max((_last(row) for row in rows), default=1.0)
    for place, row in enumerate(rows):
        if row.path is None:
            _draw_fault(axes, place, row.recovery, reach)
        else:
            _draw_path(axes, place, row, reach)
    _label(axes, rows)
    axes.set_xlim(0, reach)
    look.name_rows(axes, [row.name for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("normal" if row.path else "bold")
    axes.set_xlabel("time (s after the fault's begin)")
    return look.finish(axes, "How each fault was got over", nothing="there was no fault")


def _rows(recoveries: Sequence[Recovery]) -> Iterator[_Row]:
    for recovery in recoveries:
        yield _Row(recovery, f"{look.fault_name(recovery.fault)} at {recovery.begin:.1f} s", None)
        for name in PATHS:
            path: Path | None = getattr(recovery, name)
            if path is not None:
                yield _Row(recovery, name, path)


def _silence(row: _Row) -> tuple[float, float | None]:
    """(begin, end) of the longest one; None: it did not end."""
    assert row.path is not None  # noqa: S101  (a path's row)
    path, lasted = row.path, row.recovery.lasted
    if path.again is None or (lasted is None and path.again > 0):
        return 0.0, None
    if lasted is None or not path.again:
        return 0.0, path.unavailable
    return lasted + path.again - path.unavailable, lasted + path.again


def _drained(row: _Row) -> float | None:
    """When nothing was piled up any more, after a silence."""
    path = row.path
    if path is None or not path.unavailable or not path.drain:
        return None
    end = _silence(row)[1]
    return None if end is None else end + path.backlog / path.drain


def _last(row: _Row) -> float:
    """The last moment that the row shows."""
    lasted, path = row.recovery.lasted or 0.0, row.path
    if path is None:
        return max(lasted, row.recovery.detected or 0.0, 0.1)
    return max(path.unavailable, _silence(row)[1] or 0.0, _drained(row) or 0.0, lasted + (path.back or 0.0))


def _draw_fault(axes: Axes, place: int, recovery: Recovery, reach: float) -> None:
    if place:
        axes.axhline(place - 0.5, color="#cccccc", linewidth=0.7)
    end = reach if recovery.lasted is None else recovery.lasted
    axes.barh(place, end, height=0.62, color=_FAULT, edgecolor="#666666", linewidth=0.7)
    if recovery.detected is not None:
        axes.plot(recovery.detected, place, marker="v", color=look.BAD, markersize=7, clip_on=False)
    at = (max(recovery.detected or 0.0, end if end < reach / 2 else 0.0), place)
    look.write_beside(axes, at, detected(recovery), right=7, size=8)


def _draw_path(axes: Axes, place: int, row: _Row, reach: float) -> None:
    path, lasted = row.path, row.recovery.lasted
    assert path is not None  # noqa: S101  (a path's row)
    axes.barh(place, reach if lasted is None else lasted, height=1, color=_FAULT, alpha=0.25, zorder=0)
    if path.unavailable:
        begin, end = _silence(row)
        axes.barh(place, (end or reach) - begin, left=begin, height=0.4, color=_UNAVAILABLE)
        drained = _drained(row)
        if end is None:
            axes.plot(reach, place, marker=">", color=_UNAVAILABLE, markersize=8, clip_on=False)
        elif drained is not None:
            axes.barh(place, drained - end, left=end, height=0.4, **_DRAINS)
    if path.back is not None and lasted is not None:
        axes.plot(lasted + path.back, place, marker="D", color=_BACK, markersize=6, markeredgecolor="white")
    elif path.normal is not None and not (path.unavailable and _silence(row)[1] is None):
        axes.text(
            0.995, place, "p99 not as before", transform=axes.get_yaxis_transform(), ha="right", va="center",
            fontsize=8, color="#555555",
        )  # fmt: skip


def _label(axes: Axes, rows: Sequence[_Row]) -> None:
    """Write into the legend what the signs mean."""
    if not rows:
        return
    axes.barh(0, 0, color=_FAULT, edgecolor="#666666", linewidth=0.7, label="the fault is on")
    axes.plot([], [], "v", color=look.BAD, markersize=7, label="it shows")
    axes.barh(0, 0, color=_UNAVAILABLE, label="unavailable")
    axes.barh(0, 0, label="drains", **_DRAINS)
    axes.plot([], [], "D", color=_BACK, markersize=6, markeredgecolor="white", label="p99 is as before")
