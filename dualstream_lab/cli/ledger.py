"""``dualstream ledger``: what became of each event of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from dualstream_lab.cli.console import say, show_table, stdout
from dualstream_lab.cli.exit_codes import MISSED
from dualstream_lab.cli.options import opened, printing
from dualstream_lab.former_names import LEDGER
from dualstream_lab.ledger import CLASSES, MARKS, Class, Ledger, Recovery
from dualstream_lab.ledger.tables import entry_table, recovery_table
from dualstream_lab.units import quantity

_NAMES = [name for name, _ in (*CLASSES.values(), *MARKS.values())]
_NEVER = {CLASSES[Class.LOST][0], CLASSES[Class.ORPHAN][0]}


def _explain() -> None:
    for title, among in (("Every event is in one class:", CLASSES), ("and may have marks:", MARKS)):
        stdout.print(title)
        for name, meaning in among.values():
            stdout.print(f"  {name:26}{meaning}")


@click.command(
    epilog="Example:  dualstream ledger runs/redis_down-20250601-120000-3f9a --class undelivered | head   "
    "then   dualstream ledger RUN --event ID"
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--event", metavar="ID", help="Tell one event's story instead: when it was where, and who received it."
)
@click.option(
    "--class",
    "name",
    metavar="NAME",
    type=click.Choice([*_NAMES, *LEDGER]),
    help="Print the ids of one class or mark instead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@printing("--explain", _explain, "Say what the classes and marks mean and leave.")
def ledger(run: Path, event: str | None, name: str | None, as_json: bool) -> int:
    """Account for every event of RUN, a run directory, on both paths.

    Each event is in one class: durable and delivered; durable and undelivered, with the cause; lost; orphan;
    unknown, and what it turned out to be; … (--explain). It is worked out from the run directory alone, also
    of a run that was interrupted or is damaged; what is missing is named. For each fault it says when it
    showed, how long publishing and the live path were unavailable, what piled up, and when all was as before.

    Exit codes: 0 nothing lost; 99 there are lost events or orphans; 2 RUN is no run directory; 3 its manifest
    cannot be read.
    """
    found = Ledger.of(opened(run))
    if event is not None:
        story = found.entry(event)
        _print_json(story.as_dict()) if as_json else stdout.print(str(story))
        return MISSED if story.name in _NEVER else 0
    if name is not None:
        name = LEDGER.get(name, name)
        ids = found.ids(name)
        if as_json:
            _print_json({"name": name, "count": found.count(name), "ids": list(ids)})
        else:
            for event_id in ids:
                click.echo(event_id)
    elif as_json:
        _print_json(found.as_dict())
    else:
        _show(found)
    return MISSED if found.broken else 0


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1))


def _show(account: Ledger) -> None:
    if account.directory.manifest.simulated:
        say("Simulated: a model's events, nothing was measured.")
    if not account.events:
        say("The run has no rows: of its events only the intervals' counters are left (dualstream runs RUN).")
    for title, entries in (("Ledger", account.entries), ("\nBesides, of these", account.marks)):
        if entries:
            header, rows = entry_table(entries)
            _show_rows(title, header, rows)
    stdout.print(quantity(account.events, "event, in one class", "events, each in one class"))
    if account.unsent:
        unsent = quantity(account.unsent, "more was", "more were")
        stdout.print(f"{unsent} due and not sent when the run was stopped")
    show_recovery(account.recoveries)
    for problem in account.problems:
        say(f"note: {problem}")
    if account.broken:
        say("There are lost events or orphans: that must never happen.")
    examples = [entry.examples[0] for entry in account.entries if entry.name != CLASSES[Class.DELIVERED][0]]
    if examples:
        say(f"next: dualstream ledger {account.directory.path} --event {examples[0]}")


def show_recovery(recoveries: Sequence[Recovery]) -> None:
    """Print how each fault was got over, if there were any."""
    # side by side as long as a terminal has room
    for first in range(0, len(recoveries), 2):
        header, rows = recovery_table(recoveries[first : first + 2])
        _show_rows("\nRecovery", header, rows)


def _show_rows(title: str, header: list[str], rows: list[list[str]]) -> None:
    align = "".join("r" if name in {"events", "share"} else "l" for name in header)
    show_table(title, header, rows, align=align, overflow="fold")
