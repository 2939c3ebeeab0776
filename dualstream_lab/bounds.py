"""The bounds of a number that somebody gives, and how it is said that it is beyond them."""

from __future__ import annotations

from typing import Any

from dualstream_lab.errors import ConfigError


def within(name: str, value: Any, low: float, high: float, unit: str = "", *, whole: bool = False) -> Any:
    """The value. Raises ConfigError where it is no (whole) number, or not from ``low`` to ``high``."""
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right or not low <= value <= high:  # also refuses NaN
        kind = "" if right else "a whole number " if whole else "a number "
        raise ConfigError(f"{name}: must be {kind}from {low:,} to {high:,}{unit} (is {value!r})")
    return value
