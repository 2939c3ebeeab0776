"""Figures as people read them: three digits, with their unit."""

from __future__ import annotations

import math
from typing import Final

_TIMES: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_COUNTS: Final = ((1e9, "G"), (1e6, "M"))


def seconds(value: float) -> str:
    """``13.5 ms``; ``never`` of what has no end."""
    if math.isinf(value):
        return "never"
    size, unit = next((pair for pair in _TIMES if value >= pair[0]), _TIMES[-1])
    return f"{_digits(value / size)} {unit}"


def milliseconds(value: float) -> str:
    """``12.34 ms``, ``12.00 s`` of ten seconds and more; ``missing`` of what has no end."""
    if not math.isfinite(value):
        return "not known" if math.isnan(value) else "missing"
    return f"{value / 1000:,.2f} s" if value >= 10_000 else f"{value:,.2f} ms"


def cell(value: float) -> str:
    """Milliseconds in a table, whose header has the unit."""
    return "-" if math.isnan(value) else "missing" if math.isinf(value) else f"{value:,.2f}"


def count(value: float) -> str:
    """``9,990`` or ``1.71 M``."""
    if math.isinf(value):
        return "no number"
    for size, unit in _COUNTS:
        if value >= 10 * size:
            return f"{_digits(value / size)} {unit}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else _digits(value)


def many(value: float, noun: str) -> str:
    """``1 shard``, ``2 shards``."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def quantity(number: int, one: str, several: str = "") -> str:
    """``1 event``, ``12,345,678 events``: to the last one, unlike :func:`many`. ``several``: what is said of
    any other number than one, where that is not ``one`` and an s.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def percent(value: float) -> str:
    """``48 %`` of 0.484."""
    if 0 < value < 0.001:
        return "under 0.1 %"
    return f"{_digits(value * 100) if value < 0.1 else f'{value * 100:,.0f}'} %"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{float(f'{value:.3g}'):g}"
