"""The arguments of the fan-out labs, and their rows as they come: shown at once, and kept when stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pandas as pd

from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.notebook import ProgressBar, in_notebook

T = TypeVar("T")


def each_of(name: str, values: Sequence[T]) -> tuple[T, ...]:
    """The values of an argument, as a tuple.

    Raises ConfigError for none, for one that is there twice, and for what is no sequence.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ConfigError(f"{name}: must be several values, such as a list (is {values!r})")
    found = tuple(values)
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"{name}: must have at least one value, and each once (is {list(found)!r})")
    return found


class Table:
    """The rows of a table, as they are measured. ``total``: how many there will be. ``progress`` gets what is
    measured, a line at a time; left out, a notebook shows a bar.
    """

    def __init__(self, total: int, progress: Callable[[str], None] | None) -> None:
        self._total = total
        self._bar = ProgressBar(total) if progress is None and in_notebook() else None
        self._progress = progress
        self._rows: list[dict[str, Any]] = []
        self._state = "running"

    def doing(self, activity: str) -> None:
        """Show what is measured next."""
        line = f"{len(self._rows) + 1} of {self._total}: {activity}"
        if self._progress is not None:
            self._progress(line)
        if self._bar is not None:
            self._bar.show(len(self._rows), line)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row that was measured."""
        self._rows.append(row)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Keep the rows until then where the work within is cancelled (the stop button).

        Where there are none yet, the cancellation goes on.
        """
        try:
            yield
            self._state = "finished"
        except asyncio.CancelledError:
            self._state = "interrupted"
            if not self._rows:
                raise
        finally:
            if self._bar is not None:
                self._bar.show(len(self._rows), f"{len(self._rows)} measured, {self._state}")
                self._bar.finish("success" if self._state == "finished" else "warning")

    def frame(self) -> pd.DataFrame:
        """All rows as a frame, whose ``attrs["state"]`` is ``finished`` or ``interrupted``."""
        frame = pd.DataFrame(self._rows)
        frame.attrs["state"] = self._state
        return frame
