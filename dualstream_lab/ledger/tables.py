"""A ledger as tables of text, for a terminal and for a notebook. Pure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dualstream_lab.ledger.entry import Entry
    from dualstream_lab.ledger.recovery import Path, Recovery

__all__ = ["Table", "entry_table", "recovery_table"]


class Table(NamedTuple):
    """Texts; a notebook shows it as a table."""

    header: list[str]
    rows: list[list[str]]

    def _repr_html_(self) -> str:
        def row(cells: list[str], tag: str) -> str:
            shown = (f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{''.join(shown)}</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        return f"<table><thead>{row(self.header, 'th')}</thead><tbody>{body}</tbody></table>"


def entry_table(entries: Iterable[Entry], *, examples: int = 3) -> Table:
    """Header and rows: classes or marks, with ids."""
    rows = []
    for entry in entries:
        name = f"{entry.name}: {entry.cause}" if entry.cause else entry.name
        if entry.delay is not None:
            p50, p99, most = entry.delay
            name += f" (by {p50:,.1f} ms p50, {p99:,.1f} p99, {most:,.1f} at most)"
        rows.append([name, f"{entry.count:,}", _share(entry.share), " ".join(entry.examples[:examples])])
    return Table(["", "events", "share", "for example"], rows)


def recovery_table(recoveries: Sequence[Recovery]) -> Table:
    """Header and rows: a column a fault."""
    header = ["", *(f"{recovery.what} at {recovery.begin:.1f} s" for recovery in recoveries)]
    rows = [["lasted", *("to the end" if r.lasted is None else _s(r.lasted) for r in recoveries)]]
    rows.append(["showed after", *(_detected(recovery) for recovery in recoveries)])
    for title, paths in (
        ("publish", [recovery.publish for recovery in recoveries]),
        ("live", [recovery.live for recovery in recoveries]),
        ("consumer", [recovery.consumer for recovery in recoveries]),
    ):
        if not any(paths):
            continue
        rows.append([f"{title}: silent for", *map(_silent, paths)])
        if title != "live":
            rows.append([f"{title}: piled up, drained", *map(_backlog, paths)])
        rows.append([f"{title}: p99 as before, after its end", *map(_back, paths)])
    return Table(header, rows)


def _share(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else f"{share:.1e}"


def _s(seconds: float) -> str:
    if not seconds:
        return "at once"
    return f"{seconds * 1e3:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _detected(recovery: Recovery) -> str:
    return "no sign of it" if recovery.detected is None else f"{_s(recovery.detected)}: {recovery.sign}"


def _silent(path: Path | None) -> str:
    if path is None:
        return "-"
    if not path.silent:
        return "not silent"
    if path.again is None:
        return f"{_s(path.silent)}, to the end"
    return f"{_s(path.silent)}, until {_s(path.again)} after its end" if path.again else _s(path.silent)


def _backlog(path: Path | None) -> str:
    if path is None:
        return "-"
    drained = "" if path.drain is None else f", {path.drain:,.0f}/s"
    return f"{path.backlog:,} events{drained}"


def _back(path: Path | None) -> str:
    if path is None or path.normal is None:
        return "-"
    if path.back is None:
        return f"not seen ({path.normal:,.1f} ms before)"
    return f"{_s(path.back)} ({path.normal:,.1f} ms before)"
