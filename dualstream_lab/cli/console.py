"""How the commands talk: one console for messages (stderr), one for results (stdout)."""

from __future__ import annotations

import re
import time
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from rich.text import Text

__all__ = ["Duration", "Moment", "export_lines", "say", "stderr", "stdout", "working"]


class _Plain(Console):
    """Prints texts as they are, whoever wrote them: no markup, no emoji, no control characters."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Also each cell of a table."""
        if not text.isprintable():
            text = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
        return super().render_str(text, **options)


stderr = _Plain(stderr=True)
stdout = _Plain()
if not stdout.is_terminal:
    stdout.width = 120  # a log or a file has room for a table

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}


def say(message: str) -> None:
    """A line for the person at the terminal."""
    stderr.print(message)


def working(what: str) -> AbstractContextManager[object]:
    """Say what is going on while it is, on a terminal."""
    return stderr.status(what) if stderr.is_terminal else nullcontext()


def export_lines(environment: Mapping[str, str]) -> str:
    """What a shell evaluates to point at these brokers."""
    return "\n".join(f"export {name}='{value}'" for name, value in environment.items())


class Duration(click.ParamType[Any]):
    """``90s``, ``15m``, ``8h``, ``2d`` or plain seconds; becomes seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, above zero."""
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", str(value))
        if match is None or not float(match[1]):
            self.fail(f"{value!r} is not a duration; allowed: 500ms, 90s, 15m, 8h, 2d", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


class Moment(click.ParamType[Any]):
    """So long ago (``10m``), or a time (RFC 3339, with its zone); becomes seconds since the epoch."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds since the epoch."""
        if isinstance(value, float):
            return value
        if re.fullmatch(r"[\d.]+\s*[a-z]*", value):
            return time.time() - Duration().convert(value, param, ctx)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r} is not a time; allowed: 10m (ago), 2025-06-01T12:00:00Z", param, ctx)
        return moment.timestamp()
