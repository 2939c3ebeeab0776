"""The rows of a lab as they come: shown while it runs, and kept when it is stopped."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from dualstream_lab.stack import LocalStack
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["Table", "stack_or_own"]


class Table:
    """``total``: how many rows there will be. ``progress`` is told what is measured, a line at a time; left
    out, a notebook shows a bar.
    """

    def __init__(self, total: int, progress: Callable[[str], None] | None) -> None:
        self._total = total
        self._bar = _bar(total) if progress is None else None
        self._progress = progress
        self._rows: list[dict[str, Any]] = []
        self._state = "running"

    def doing(self, what: str) -> None:
        """What comes next."""
        line = f"{len(self._rows) + 1} of {self._total}: {what}"
        if self._progress is not None:
            self._progress(line)
        if self._bar is not None:
            bar, label = self._bar.children
            bar.value, label.value = len(self._rows), line

    def add(self, row: dict[str, Any]) -> None:
        """What was measured."""
        self._rows.append(row)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """What is cancelled in here (the stop button) keeps the rows until then; without any it goes on."""
        try:
            yield
            self._state = "finished"
        except asyncio.CancelledError:
            self._state = "interrupted"
            if not self._rows:
                raise
        finally:
            if self._bar is not None:
                bar, label = self._bar.children
                bar.value, label.value = len(self._rows), f"{len(self._rows)} measured, {self._state}"
                bar.bar_style = "success" if self._state == "finished" else "warning"

    def frame(self) -> pd.DataFrame:
        """All rows; ``attrs["state"]``: ``finished`` or ``interrupted``."""
        frame = pd.DataFrame(self._rows)
        frame.attrs["state"] = self._state
        return frame


def _bar(total: int) -> Any:
    """A bar and a line below it, where this is a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    import ipywidgets  # noqa: PLC0415
    from IPython.display import display  # noqa: PLC0415

    box = ipywidgets.VBox([ipywidgets.IntProgress(max=total), ipywidgets.Label()])
    display(box)  # type: ignore[no-untyped-call]
    return box


@asynccontextmanager
async def stack_or_own(stack: LocalStack | None) -> AsyncIterator[LocalStack]:
    """A started stack: this one, or one that is made and ended here. Raises StackError."""
    if stack is not None:
        yield stack
        return
    made = LocalStack()
    try:
        await in_thread(made.start)
        yield made
    finally:
        await in_thread(made.stop)
