"""The arguments of the fan-out labs, held against what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dualstream_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["each_of", "number", "whole"]

T = TypeVar("T")


def whole(name: str, value: object, low: int, high: int) -> int:
    """Raises ConfigError where it is not a whole number within."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}: must be a whole number from {low:,} to {high:,} (is {value!r})")
    return value


def number(name: str, value: object, low: float, high: float) -> float:
    """Raises ConfigError where it is not a number within."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{name}: must be a number from {low:,g} to {high:,g} (is {value!r})")
    return float(value)


def each_of(name: str, values: Sequence[T]) -> tuple[T, ...]:
    """All of them, each once. Raises ConfigError for none, for repeats, and for what is no sequence."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ConfigError(f"{name}: must be several values, such as a list (is {values!r})")
    found = tuple(values)
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"{name}: must have at least one value, and each once (is {list(found)!r})")
    return found
