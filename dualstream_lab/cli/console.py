"""How the commands talk: one console for messages (stderr), one for results (stdout), tables, progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from dualstream_lab.tasks import end_tasks

if TYPE_CHECKING:
    from rich.console import JustifyMethod, OverflowMethod
    from rich.text import Text

    from dualstream_lab.lab.gateway_check import Progress as CheckProgress
    from dualstream_lab.lab.runner import Progress as RunProgress


class _Plain(Console):
    """Prints texts as they are, whoever wrote them: no markup, no emoji, no control characters."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Replace control characters, also in each cell of a table."""
        if not text.isprintable():
            text = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
        return super().render_str(text, **options)


stderr = _Plain(stderr=True)
stdout = _Plain()
if not stdout.is_terminal:
    stdout.width = 120  # a log or a file has room for a table

_EVERY = 20.0  # s between two lines of progress in a log


def say(message: str) -> None:
    """Print a line for the person at the terminal."""
    stderr.print(message)


def working(activity: str) -> AbstractContextManager[object]:
    """Say what is going on while it is, on a terminal."""
    return stderr.status(activity) if stderr.is_terminal else nullcontext()


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text] | None],
    *,
    align: str = "l",
    no_wrap: bool = False,
    overflow: OverflowMethod = "ellipsis",
    **style: Any,
) -> None:
    """Print a table. ``align``: l or r for each column, the last one for all that follow. A row that is None
    is a line across.
    """
    table = Table(title=title or None, title_justify="left", title_style="bold", **style)
    for number, name in enumerate(columns):
        right = align[min(number, len(align) - 1)] == "r"
        justify: JustifyMethod = "right" if right else "left"
        table.add_column(name, justify=justify, no_wrap=no_wrap, overflow=overflow)
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    stdout.print(table)


def show_rows(rows: Iterable[Sequence[str | Text]], align: str = "l", left: int = 0) -> None:
    """Print rows without lines or a header."""
    show_table(
        "", ("",) * len(align), rows, align=align, show_header=False, box=None, padding=(0, 2, 0, left)
    )


@contextmanager
def progress_bar(total: float | None = None) -> Iterator[Callable[[float, str], None]]:
    """Yields ``show(done, text)``, to be called as often as there is news: a bar on a terminal, elsewhere
    a line now and then. ``total``: None: unknown.
    """
    if not stderr.is_terminal:
        due = time.monotonic() + _EVERY

        def line(_done: float, text: str) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _EVERY
                say(text)

        yield line
        return
    columns = (BarColumn(), TextColumn("{task.fields[text]}", markup=False))
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=total, text="")

        def show(done: float, text: str) -> None:
            bar.update(task, completed=done if total is None else min(done, total), text=text)

        yield show


@contextmanager
def run_progress(seconds: float) -> Iterator[Callable[[RunProgress | CheckProgress], None]]:
    """Yields what shows how far a run of so many seconds is."""
    with progress_bar(seconds) as bar:
        yield lambda progress: bar(progress.seconds, f"{progress.seconds:5.1f} s  {progress.line}")


@asynccontextmanager
async def repeating(show: Callable[[], None]) -> AsyncIterator[None]:
    """Call ``show`` four times a second during the block."""

    async def repeat() -> None:
        while True:
            show()
            await asyncio.sleep(0.25)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        await end_tasks([task])
