"""What is shown while a command works: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn

from dualstream_lab.cli.console import say, stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["progress_bar"]

_EVERY = 20.0  # s between two lines in a log


@contextmanager
def progress_bar(total: float | None = None) -> Iterator[Callable[[float, str], None]]:
    """Yields ``show(done, text)``, to be called as often as there is news. ``total``: None: unknown."""
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
