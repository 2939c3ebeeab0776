"""A ledger as tables of text, for a terminal and for a notebook. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from dualstream_lab.ledger.classes import Entry
from dualstream_lab.ledger.recovery import PATHS, Path, Recovery
from dualstream_lab.recording import Manifest
from dualstream_lab.units import quantity


class Table(NamedTuple):
    """A header and rows of texts; a notebook shows them as a table."""

    header: list[str]
    rows: list[list[str]]

    def _repr_html_(self) -> str:
        def row(cells: list[str], tag: str) -> str:
            shown = (f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{''.join(shown)}</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        return f"<table><thead>{row(self.header, 'th')}</thead><tbody>{body}</tbody></table>"


def entry_table(entries: Iterable[Entry], *, examples: int = 3) -> Table:
    """Make a table of classes or marks, with ids."""
    rows = []
    for entry in entries:
        name = entry.title
        if entry.delay is not None:
            p50, p99, most = entry.delay
            name += f" (by {p50:,.1f} ms p50, {p99:,.1f} p99, {most:,.1f} at most)"
        rows.append([name, f"{entry.count:,}", share_text(entry.share), " ".join(entry.examples[:examples])])
    return Table(["", "events", "share", "for example"], rows)


def recovery_table(recoveries: Sequence[Recovery]) -> Table:
    """Make a table of recoveries, with a column for each fault."""
    header = ["", *(f"{recovery.fault} at {recovery.begin:.1f} s" for recovery in recoveries)]
    rows = [
        ["lasted", *("to the end" if each.lasted is None else duration(each.lasted) for each in recoveries)],
        ["showed after", *map(detected, recoveries)],
    ]
    for title in PATHS:
        paths = [getattr(recovery, title) for recovery in recoveries]
        for name, text in _OF_A_PATH.items():
            if any(paths) and (title, name) != ("live", "piled up, drained"):
                rows.append([f"{title}: {name}", *("-" if path is None else text(path) for path in paths)])
    return Table(header, rows)


def fault_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """List what was broken, from when until when, and the evidence for both."""
    zero, rows = manifest.started, list[tuple[str, ...]]()
    for fault in manifest.faults:
        begin, end = (f"{(at - zero) / 1e9:.1f} s" for at in (fault.begin, fault.end))
        rows.append((fault.name, begin, end if fault.end else "", fault.bite, fault.over))
    return rows


def share_text(share: float) -> str:
    """Write a share of all events, however small."""
    return f"{share:.2%}" if share >= 0.0001 else f"{share:.1e}"


def duration(seconds: float) -> str:
    """Write a length of time, in ms or s."""
    if not seconds:
        return "at once"
    return f"{seconds * 1e3:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def detected(recovery: Recovery) -> str:
    """Write when and how the fault showed."""
    if recovery.detected is None:
        return "no sign of it"
    return f"{duration(recovery.detected)}: {recovery.sign}"


def _unavailable(path: Path) -> str:
    if not path.unavailable:
        return "not unavailable"
    if path.again is None:
        return f"{duration(path.unavailable)}, to the end"
    after = f", until {duration(path.again)} after its end" if path.again else ""
    return duration(path.unavailable) + after


def _backlog(path: Path) -> str:
    drained = "" if path.drain is None else f", {path.drain:,.0f}/s"
    return f"{quantity(path.backlog, 'event')}{drained}"


def _back(path: Path) -> str:
    if path.normal is None:
        return "-"
    back = "not seen" if path.back is None else duration(path.back)
    return f"{back} ({path.normal:,.1f} ms before)"


_OF_A_PATH: Final = {
    "unavailable for": _unavailable,
    "piled up, drained": _backlog,
    "p99 as before, after its end": _back,
}
